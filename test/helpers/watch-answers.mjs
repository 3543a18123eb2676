// Preloaded into programs that tests start, by whatever Node, and thus plain and small.
import { subscribe } from 'node:diagnostics_channel';
import { createRequire } from 'node:module';

// Most processes serve nothing and never load the check.
subscribe('fastify.initialization', ({ fastify }) => {
  createRequire(import.meta.url)('./answers.ts').watch(fastify);
});
