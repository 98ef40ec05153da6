import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { buildSchema, type GraphQLSchema, parse, validate } from 'graphql';
import { getVariableValues } from 'graphql/execution/values.js';
import { documents } from './documents.ts';

const sdl = process.env['DAOS_SCHEMA'] ?? '../schema/schema.graphql'; // npm test runs in explorer/

function problems(schema: GraphQLSchema, { query, variables }: (typeof documents)[number]): readonly Error[] {
  const document = parse(query);
  const operation = document.definitions[0];
  assert.equal(operation?.kind, 'OperationDefinition');
  const { errors = [] } = getVariableValues(schema, operation.variableDefinitions ?? [], JSON.parse(variables ?? '{}'));
  return [...validate(schema, document), ...errors];
}

test('the documents and their variables fit the schema', { skip: existsSync(sdl) ? false : `${sdl} is not there` }, () => {
  const schema = buildSchema(readFileSync(sdl, 'utf8'));
  for (const document of documents) assert.deepEqual(problems(schema, document), [], document.query);
});

const example = '../examples/hello';

test('the package is the example', { skip: existsSync(example) ? false : `${example} is not there` }, () => {
  const { input } = JSON.parse(documents.find(({ query }) => query.includes('createPackage'))?.variables ?? '{}');
  assert.equal(input.composeFile, readFileSync(`${example}/compose.yaml`, 'utf8'));
  for (const { path, content } of input.files) assert.equal(content, readFileSync(`${example}/${path}`, 'utf8'));
});
