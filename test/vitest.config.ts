import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts', 'test/**/*.test.tsx'],
    // Every answer of the control plane, in whatever test, is held against the OpenAPI document.
    setupFiles: ['test/helpers/watch-answers.mjs', 'test/helpers/answer-faults.ts'],
    globalSetup: ['test/helpers/build.ts'],
    // Most of the time tests wait for timers, servers and terminals.
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 20_000,
    env: { NODE_ENV: 'production' },
  },
});
