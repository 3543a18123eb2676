import type { StrategyName } from '../core/domain.ts';

/** How each strategy picks and what it is for, in full and in few words, for people who choose one. */
export const strategyNotes: Readonly<Record<StrategyName, Readonly<{ rule: string; use: string; brief: string }>>> = {
  round_robin: { rule: 'each in turn', use: 'equal, predictable load; testing', brief: 'equal load' },
  equal_weighted: {
    rule: 'fewest total, ever',
    use: 'long-running jobs; fairness over time',
    brief: 'long jobs',
  },
  weighted_round_robin: { rule: 'by VRAM and price', use: 'mixed GPUs; performance vs cost', brief: 'mixed GPUs' },
  least_connections: { rule: 'fewest active now', use: 'real time; variable durations', brief: 'real time' },
  least_response_time: { rule: 'lowest average RT', use: 'latency-critical inference', brief: 'latency-critical' },
};
