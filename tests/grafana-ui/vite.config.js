// One page with everything in it, that a browser opens as a file.
import { defineConfig } from 'vite';

export default defineConfig({
  base: './',
  build: { chunkSizeWarningLimit: 20_000, modulePreload: false },
  esbuild: { jsx: 'automatic' },
});
