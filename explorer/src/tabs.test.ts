import assert from 'node:assert/strict';
import { test } from 'node:test';
import { storedOnce } from './tabs.ts';
import { inMemory } from './token.ts';

const state = JSON.stringify({ activeTabIndex: 1, tabs: [{ query: 'a' }, { query: 'b', variables: '{}' }] });

test('the active texts are those of the active tab, whatever was stored beside them', () => {
  const storage = storedOnce(inMemory());
  storage.setItem('graphiql:tabState', state);
  storage.setItem('graphiql:query', 'stale');
  assert.equal(storage.getItem('graphiql:query'), 'b');
  assert.equal(storage.getItem('graphiql:variables'), '{}');
});

test('without tabs there are no active texts', () => {
  const storage = storedOnce(inMemory());
  assert.equal(storage.getItem('graphiql:query'), null);
  storage.setItem('graphiql:tabState', 'no JSON');
  assert.equal(storage.getItem('graphiql:query'), null);
});

test('all else is stored as it is', () => {
  const storage = storedOnce(inMemory());
  storage.setItem('graphiql:theme', 'dark');
  assert.equal(storage.getItem('graphiql:theme'), 'dark');
  storage.removeItem('graphiql:theme');
  assert.equal(storage.getItem('graphiql:theme'), null);
});
