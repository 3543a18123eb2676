import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts', 'test/**/*.test.tsx'],
    globalSetup: ['test/helpers/build.ts'],
    // On a shared machine a test may meet a stall of seconds once; twice in a row is a fault. Elsewhere nothing is tried again.
    retry: process.env.CI ? 1 : 0,
    testTimeout: 20_000,
    hookTimeout: 20_000,
    env: { NODE_ENV: 'production' },
  },
});
