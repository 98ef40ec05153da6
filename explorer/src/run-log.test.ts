import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectRunLog } from './run-log.ts';

const event = (...sequences: number[]) => ({
  data: { runLog: { complete: false, entries: sequences.map((sequence) => ({ sequence })) } },
});

test('each event shows the entries of those before it', () => {
  const collect = collectRunLog();
  collect(event(1, 2));
  assert.deepEqual(collect(event(3)), event(1, 2, 3));
  assert.deepEqual(collect(event()), event(1, 2, 3));
});

test('a reconnect that starts over shows nothing twice', () => {
  const collect = collectRunLog();
  collect(event(1, 2));
  assert.deepEqual(collect(event(1, 2, 3)), event(1, 2, 3));
});

test('entries without a sequence are all kept', () => {
  const collect = collectRunLog<object>();
  collect({ data: { runLog: { entries: [{}] } } });
  assert.deepEqual(collect({ data: { runLog: { entries: [{}] } } }), { data: { runLog: { entries: [{}, {}] } } });
});

test('only the last entries are kept', () => {
  const collect = collectRunLog(2);
  assert.deepEqual(collect(event(1, 2, 3)), event(2, 3));
});

test('other results pass unchanged', () => {
  const result = { data: { hosts: {} } };
  assert.equal(collectRunLog()(result), result);
  const failed = { data: null };
  assert.equal(collectRunLog()(failed), failed);
});
