import {
  type Balancer,
  type BalancerSettings,
  createBalancer,
  type Lease,
  type Refusal,
} from '../../src/core/balancer.ts';
import type { StrategyName } from '../../src/core/domain.ts';
import { LoadTable, type RowRef } from '../../src/core/load-table.ts';
import { type Strategy, strategies } from '../../src/core/strategies/index.ts';

export type Fleet = { table: LoadTable; balancer: Balancer; refs: RowRef[] };

/** Upstreams that are up from the start, without slow start unless asked for. */
export function createFleet(options: {
  size: number;
  strategy: StrategyName;
  weights?: readonly number[];
  ceiling?: number;
  settings?: Partial<BalancerSettings>;
  /** Stands in for the registry's strategy of that name. */
  planted?: Strategy['create'] | undefined;
  capacity?: number;
}): Fleet {
  const table = LoadTable.create(options.capacity ?? 64);
  const { planted } = options;
  const registry = strategies.map((s) => (s.name === options.strategy && planted ? { ...s, create: planted } : s));
  const balancer = createBalancer(table, { slowStartMs: 0, ...options.settings }, { strategies: registry });
  table.strategy = options.strategy;
  const fleet: Fleet = { table, balancer, refs: [] };
  for (let i = 0; i < options.size; i++) joinFleet(fleet, 0, options.weights?.[i] ?? 1, options.ceiling ?? 0);
  return fleet;
}

export function joinFleet(fleet: Fleet, now: number, weight = 1, ceiling = 0): RowRef {
  const ref = fleet.table.join({ weight, ceiling, now });
  fleet.table.setRunning(ref, true, now);
  fleet.balancer.probed(ref, true, now, '');
  fleet.refs.push(ref);
  return ref;
}

export function leaseOf(answer: Lease | Refusal): Lease {
  if (typeof answer === 'string') throw new Error(`expected a lease, got ${answer}`);
  return answer;
}

/** Picks a row and ends the request at once. */
export function serve(fleet: Fleet, now: number): number {
  const lease = leaseOf(fleet.balancer.acquire(now));
  lease.settle('complete', now);
  return lease.row;
}

export function must(condition: boolean, message: () => string): void {
  if (!condition) throw new Error(message());
}
