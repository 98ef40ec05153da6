// Builds the page into the Python package, from which the server serves it at …/graphql/ide/.

import { defineConfig } from 'vite';
import { compress } from './build/compress.ts';
import { notices } from './build/notices.ts';

const { watch, write } = notices();

export default defineConfig({
  base: './', // any path prefix
  plugins: [watch(), write(), compress()],
  worker: { format: 'es', plugins: () => [watch()] },
  build: {
    outDir: '../daos/explorer',
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's Content-Security-Policy forbids data: scripts
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 4000, // kB; Monaco
    rolldownOptions: {
      onLog: (level, log, report) => {
        if (log.code !== 'MODULE_LEVEL_DIRECTIVE') report(level, log); // "use client" has no meaning in a browser
      },
    },
  },
});
