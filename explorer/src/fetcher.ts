// GraphiQL's connection to the API: queries and mutations by POST, subscriptions by graphql-transport-ws.

import type { Fetcher, FetcherParams } from '@graphiql/toolkit';
import { type ExecutionResult, getOperationAST, GraphQLError, type OperationDefinitionNode, parse } from 'graphql';
import { createClient } from 'graphql-ws';
import type { Endpoint } from './endpoint.ts';
import { collectRunLog } from './run-log.ts';

/** Returns a fetcher that sends `token` and calls `refused` if the server rejects it. Headers from the header editor take precedence. */
export function createFetcher(endpoint: Endpoint, token: string, refused: () => void): Fetcher {
  return (params, options) => {
    const ours = `Bearer ${token}`;
    const sent = new Headers({ authorization: ours });
    for (const [name, value] of Object.entries(options?.headers ?? {})) sent.set(name, String(value));
    const operation = operationIn(params);
    const request = {
      headers: Object.fromEntries(sent),
      params: { ...params, operationName: operation?.name?.value ?? null },
      refused: sent.get('authorization') === ours ? refused : () => {}, // for a token from the header editor, the form cannot help
    };
    return operation?.operation === 'subscription'
      ? subscribe({ url: endpoint.websocket, ...request })
      : post({ url: endpoint.http, ...request });
  };
}

// Parsed from the text: right after a switch of tabs, GraphiQL still reports the operation of the previous tab.
function operationIn({ query, operationName }: FetcherParams): OperationDefinitionNode | null | undefined {
  try {
    const document = parse(query);
    return getOperationAST(document, operationName) ?? getOperationAST(document);
  } catch {
    return null; // the server's error message explains the problem
  }
}

interface Request {
  url: string;
  headers: Record<string, string>;
  params: FetcherParams;
  refused(): void;
}

async function post({ url, headers, params, refused }: Request): Promise<ExecutionResult> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { accept: 'application/graphql-response+json, application/json;q=0.9', 'content-type': 'application/json', ...headers },
    body: JSON.stringify(params),
  });
  const text = await response.text();
  const result = parsed(text);
  if (response.status === 401 || isUnauthenticated(result?.errors)) refused();
  return result ?? { errors: [new GraphQLError(`${response.status} ${response.statusText}: ${text.slice(0, 200)}`)] };
}

function parsed(text: string): ExecutionResult | null {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// An observable, not an async generator: stopping a generator waits for the next event, which may never arrive.
function subscribe({ url, headers, params, refused }: Request) {
  return {
    subscribe(observer: { next(value: ExecutionResult): void; error(error: unknown): void; complete(): void }) {
      const client = createClient({
        url,
        connectionParams: headers, // one connection per subscription, so that edited headers take effect
        shouldRetry: (event) => isClose(event) && event.code !== 4403,
      });
      const collect = collectRunLog<ExecutionResult>();
      const unsubscribe = client.subscribe(
        { query: params.query, variables: params.variables, operationName: params.operationName ?? null },
        {
          next(result) {
            const event = result as ExecutionResult;
            if (isUnauthenticated(event.errors)) refused();
            observer.next(collect(event));
          },
          error(error) {
            if (isUnauthenticated(error) || (isClose(error) && [4401, 4403].includes(error.code))) refused();
            observer.error(isClose(error) ? { message: `The connection was closed: ${error.code} ${error.reason}`.trim() } : error);
          },
          complete: () => observer.complete(),
        },
      );
      return { unsubscribe };
    },
  } as ReturnType<Fetcher>;
}

function isClose(event: unknown): event is CloseEvent {
  return typeof event === 'object' && event !== null && 'code' in event && 'reason' in event;
}

function isUnauthenticated(errors: unknown): boolean {
  return Array.isArray(errors) && errors.some((error) => error?.extensions?.code === 'UNAUTHENTICATED');
}
