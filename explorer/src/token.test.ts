import assert from 'node:assert/strict';
import { test } from 'node:test';
import { carriesToken, tokenIn } from './token.ts';

test('a token is found in the fragment of a link', () => {
  assert.equal(tokenIn('#token=abc'), 'abc');
  assert.equal(tokenIn('#x=1&token=abc&y=2'), 'abc');
});

test('a person may paste the token, with Bearer, or the whole link', () => {
  assert.equal(tokenIn('  abc\n'), 'abc');
  assert.equal(tokenIn('Bearer abc'), 'abc');
  assert.equal(tokenIn('http://localhost:8000/graphql#token=abc '), 'abc');
});

test('a token in a link is percent-decoded and keeps its plus signs', () => {
  assert.equal(tokenIn('#token=a%2Fb+c%3D'), 'a/b+c=');
  assert.equal(tokenIn('#token=100%'), '100%');
});

test('a token that no header can carry is none', () => {
  for (const text of ['', '   ', '#token=', '#token=a%0Ab', 'two words', 'ä']) assert.equal(tokenIn(text), null);
});

test('only a fragment with a token is taken for one', () => {
  assert.equal(carriesToken('#token=abc'), true);
  assert.equal(carriesToken('#x=1&token=abc'), true);
  assert.equal(carriesToken('#mytoken=abc'), false);
  assert.equal(carriesToken(''), false);
});
