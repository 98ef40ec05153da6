// Where the API is, seen from this page. Pure.

export interface Endpoint {
  http: string;
  websocket: string;
}

/** The API's addresses for the page at `…/graphql/ide/`: `…/graphql`, whatever prefix a proxy puts before it. */
export function endpointOf(page: string): Endpoint {
  const http = new URL('..', page); // drops query and fragment too
  http.pathname = http.pathname.replace(/\/$/, '');
  const websocket = new URL(http);
  websocket.protocol = http.protocol === 'https:' ? 'wss:' : 'ws:';
  return { http: http.href, websocket: websocket.href };
}
