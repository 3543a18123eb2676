import { type StrategyName, strategyNames } from '../domain.ts';
import { equalWeighted } from './equal-weighted.ts';
import { leastConnections } from './least-connections.ts';
import { leastResponseTime } from './least-response-time.ts';
import { roundRobin } from './round-robin.ts';
import type { Strategy } from './strategy.ts';
import { weightedRoundRobin } from './weighted-round-robin.ts';

const rows: Readonly<Record<StrategyName, Strategy>> = {
  round_robin: roundRobin,
  equal_weighted: equalWeighted,
  weighted_round_robin: weightedRoundRobin,
  least_connections: leastConnections,
  least_response_time: leastResponseTime,
};

/** The registry: one line a strategy, in the order of `strategyNames`. */
export const strategies: readonly Strategy[] = strategyNames.map((name) => rows[name]);

export type { Pick, PickContext, Strategy } from './strategy.ts';
