import type * as undici from 'undici';

/**
 * What the build puts in place of `undici`: the same classes without fetch, WebSocket, caches and mocks, whose loading
 * took longer than all else that a thread of the data plane loads.
 */
export const Agent = require('../../node_modules/undici/lib/dispatcher/agent.js') as typeof undici.Agent;
export const Client = require('../../node_modules/undici/lib/dispatcher/client.js') as typeof undici.Client;
export const Pool = require('../../node_modules/undici/lib/dispatcher/pool.js') as typeof undici.Pool;
export const buildConnector = require('../../node_modules/undici/lib/core/connect.js') as typeof undici.buildConnector;
export const errors = require('../../node_modules/undici/lib/core/errors.js') as typeof undici.errors;

const Dispatcher = require('../../node_modules/undici/lib/dispatcher/dispatcher.js') as typeof undici.Dispatcher;
Object.assign(Dispatcher.prototype, require('../../node_modules/undici/lib/api/index.js') as object);

let shared: undici.Agent | null = null;

/** As in the index of the package. */
export const request = (
  url: string | URL,
  { dispatcher, ...options }: NonNullable<Parameters<typeof undici.request>[1]> = {},
): Promise<undici.Dispatcher.ResponseData<unknown>> => {
  const { origin, pathname, search } = new URL(url);
  if (dispatcher === undefined) shared ??= new Agent();
  return (dispatcher ?? (shared as undici.Agent)).request({
    ...options,
    origin,
    path: `${pathname}${search}`,
    method: options.method ?? (options.body ? 'PUT' : 'GET'),
  });
};
