// Writes a .gz next to each text file, for servers that send precompressed files.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { constants, gzipSync } from 'node:zlib';
import type { Plugin } from 'vite';

const smallest = 1024; // bytes; below this, an additional header costs what compression saves

export function compress(): Plugin {
  let folder = '';
  return {
    name: 'compress',
    configResolved: (config) => {
      folder = join(config.root, config.build.outDir);
    },
    closeBundle: () => {
      for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
        if (!/\.(css|html|js|json|svg|txt)$/.test(file)) continue;
        const content = readFileSync(join(folder, file));
        if (content.length <= smallest) continue;
        writeFileSync(join(folder, `${file}.gz`), gzipSync(content, { level: constants.Z_BEST_COMPRESSION }));
      }
    },
  };
}
