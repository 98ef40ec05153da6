import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endpointOf } from './endpoint.ts';

test('the endpoint is the path above the page, without a slash at its end', () => {
  assert.deepEqual(endpointOf('http://localhost:8000/graphql/ide/'), {
    http: 'http://localhost:8000/graphql',
    websocket: 'ws://localhost:8000/graphql',
  });
});

test('a path prefix stays', () => {
  assert.equal(endpointOf('http://host/a/b/graphql/ide/').http, 'http://host/a/b/graphql');
});

test('https goes with wss', () => {
  assert.equal(endpointOf('https://host:8443/graphql/ide/').websocket, 'wss://host:8443/graphql');
});

test('file name, query and fragment of the page are dropped', () => {
  assert.equal(endpointOf('http://host/graphql/ide/index.html?x=1#token=secret').http, 'http://host/graphql');
});
