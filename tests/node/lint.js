// Lints a schema by graphql-eslint's rules: node lint.js.  Reads the schema from stdin, a JSON string.
// Prints one JSON array: {rule, line, message}.  The rules remember types, so one process is for one schema.
import plugin from '@graphql-eslint/eslint-plugin';
import { ESLint } from 'eslint';
import { json } from 'node:stream/consumers';

const schema = await json(process.stdin);
const eslint = new ESLint({
  overrideConfigFile: true, // no eslint.config.js anywhere
  overrideConfig: {
    files: ['**/*.graphql'],
    plugins: { '@graphql-eslint': plugin },
    languageOptions: { parser: plugin.parser, parserOptions: { graphQLConfig: { schema } } },
    rules: {
      ...plugin.configs['flat/schema-recommended'].rules,
      ...plugin.configs['flat/schema-relay'].rules,
      // The contract has lists beside connections, and log entries that are no nodes: they are numbered within their run.
      '@graphql-eslint/relay-edge-types': ['error', { listTypeCanWrapOnlyEdgeType: false, shouldImplementNode: false }],
      // The contract gives an id to what can be asked for by it. These are parts of it, lists of it, or news about it.
      '@graphql-eslint/strict-id-in-types': [
        'error',
        {
          exceptions: {
            types: [
              'LogEntry', 'PackageFile', 'PageInfo', 'PinnedKey', 'RegistryLogin', 'Container', 'ShownKey', 'Variable',
            ],
            suffixes: ['Connection', 'Edge', 'Event', 'Payload'],
          },
        },
      ],
    },
  },
});
const [{ messages }] = await eslint.lintText(schema, { filePath: 'schema.graphql' });
console.log(JSON.stringify(messages.map(({ ruleId, line, message }) => ({ rule: ruleId, line, message }))));
