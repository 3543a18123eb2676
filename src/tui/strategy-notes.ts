import type { StrategyName } from '../core/domain.ts';

/** How each strategy picks, and what the guide says it is for: in full, then in fewer words. */
export const strategyNotes: Readonly<
  Record<StrategyName, Readonly<{ rule: string; uses: readonly [string, string, string] }>>
> = {
  round_robin: {
    rule: 'each in turn',
    uses: ['equal distribution, testing', 'equal distribution', 'equal, testing'],
  },
  equal_weighted: {
    rule: 'fewest total, ever',
    uses: ['long-running workloads, fair over time', 'fair over time', 'fair over time'],
  },
  weighted_round_robin: {
    rule: 'by VRAM and price',
    uses: ['heterogeneous GPUs, performance vs cost', 'heterogeneous GPUs', 'mixed GPUs'],
  },
  least_connections: {
    rule: 'fewest active now',
    uses: ['real-time workloads, variable duration', 'real-time workloads', 'real-time'],
  },
  least_response_time: {
    rule: 'lowest average RT',
    uses: ['latency-sensitive apps, inference', 'latency-sensitive', 'latency-sensitive'],
  },
};
