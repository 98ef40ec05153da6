// The URLs of the API, derived from the URL of this page. Pure.

export interface Endpoint {
  http: string;
  websocket: string;
}

/** Returns the API's URLs for the page at `…/graphql/ide/`: `…/graphql`, with any prefix that a proxy adds. */
export function endpointOf(page: string): Endpoint {
  const http = new URL('..', page); // also drops query and fragment
  http.pathname = http.pathname.replace(/\/$/, '');
  const websocket = new URL(http);
  websocket.protocol = http.protocol === 'https:' ? 'wss:' : 'ws:';
  return { http: http.href, websocket: websocket.href };
}
