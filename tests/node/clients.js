// Drives the server by the protocols' reference clients: node clients.js ws|sse URL TOKEN.
// Reads documents from stdin, a JSON array of {query, variables}, sends them at once, and prints what each of them got.
import { createClient as createSSE } from 'graphql-sse';
import { createClient as createWebSocket } from 'graphql-ws';
import { text } from 'node:stream/consumers';
import WebSocket from 'ws';

const [kind, url, token] = process.argv.slice(2);
const authorization = `Bearer ${token}`;
const client =
  kind === 'ws'
    ? createWebSocket({ url, webSocketImpl: WebSocket, connectionParams: { authorization }, retryAttempts: 0 })
    : createSSE({ url, headers: { authorization }, retryAttempts: 0 });

// The first event of a subscription is enough: it has no end of its own.
function ask(request) {
  return new Promise((resolve) => {
    const got = { events: [], error: null, completed: false };
    const unsubscribe = client.subscribe(request, {
      next(event) {
        got.events.push(event);
        if (request.query.startsWith('subscription') && !event.errors) unsubscribe();
      },
      error(error) {
        resolve({ ...got, error: Array.isArray(error) ? error : { code: error.code ?? null, message: String(error.message) } });
      },
      complete: () => resolve({ ...got, completed: true }),
    });
  });
}

const answers = await Promise.all(JSON.parse(await text(process.stdin)).map(ask));
await client.dispose();
console.log(JSON.stringify(answers));
