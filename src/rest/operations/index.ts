import type { Operation } from '../operation.ts';
import { fleetOperations } from './fleet.ts';
import { instanceOperations } from './instances.ts';
import { keyOperations } from './keys.ts';
import { loadBalancerOperations } from './load-balancer.ts';
import { probeOperations } from './probes.ts';
import { watchOperations } from './watch.ts';

/** The registry: routing, checking, 405, the OpenAPI document and the documentation page all derive from it. */
export const operations: readonly Operation[] = [
  ...loadBalancerOperations,
  ...instanceOperations,
  ...fleetOperations,
  ...watchOperations,
  ...keyOperations,
  ...probeOperations,
];
