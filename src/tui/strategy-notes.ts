import type { StrategyName } from '../core/domain.ts';

/** What each strategy is for, for people who choose one. */
export const strategyNotes: Readonly<Record<StrategyName, Readonly<{ rule: string; use: string }>>> = {
  round_robin: { rule: 'each in turn', use: 'equal, predictable load; testing' },
  equal_weighted: { rule: 'fewest total, ever', use: 'long-running jobs; fairness over time' },
  weighted_round_robin: { rule: 'by VRAM and price', use: 'mixed GPUs; performance vs cost' },
  least_connections: { rule: 'fewest active now', use: 'real time; variable durations' },
  least_response_time: { rule: 'lowest average RT', use: 'latency-critical inference' },
};
