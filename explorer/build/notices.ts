// Writes THIRD-PARTY-NOTICES.txt: the licenses of everything that the build includes from node_modules.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Plugin } from 'vite';

// Included in monaco-editor and graphiql's style sheet, with a license of its own that neither package contains.
const codicons = `The icon font in GraphiQL's editors: Codicons (https://github.com/microsoft/vscode-codicons)
Copyright (c) Microsoft Corporation
Creative Commons Attribution 4.0 International: https://creativecommons.org/licenses/by/4.0/legalcode
`;

/** `watch` collects the modules of one bundle (workers are separate bundles); `write` adds the notices to the output. */
export function notices(): { watch(): Plugin; write(): Plugin } {
  const packages = new Set<string>();
  return {
    watch: () => ({
      name: 'watch-packages',
      moduleParsed({ id }) {
        const folder = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id.replace(/^\0/, ''))?.[1];
        if (folder) packages.add(folder);
      },
    }),
    write: () => ({
      name: 'write-notices',
      generateBundle() {
        const source = [codicons, ...new Set([...packages].map(notice).sort())].join(`\n${'-'.repeat(80)}\n\n`);
        this.emitFile({ type: 'asset', fileName: 'THIRD-PARTY-NOTICES.txt', source });
      },
    }),
  };
}

function notice(folder: string): string {
  const { name, version, license, author } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const texts = readdirSync(folder)
    .filter((file) => /^(licen[cs]e|notice|third-?party-?notices?)/i.test(file))
    .sort()
    .map((file) => readFileSync(join(folder, file), 'utf8').trim());
  if (!license && texts.length === 0) throw new Error(`${name} ${version} names no licence`);
  const owner = typeof author === 'string' ? author : author?.name;
  return [`${name} ${version} (${license})${owner ? `\n${owner}` : ''}`, ...texts].join('\n\n') + '\n';
}
