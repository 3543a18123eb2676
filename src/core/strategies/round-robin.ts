import type { Strategy } from './strategy.ts';

/** Whoever was served longest ago. No index into a list, so no change of membership can skew it. */
export const roundRobin: Strategy = {
  name: 'round_robin',
  title: 'Round Robin',
  summary: 'Distributes requests evenly across all available GPUs in a circular fashion',
  useCases: ['Equal distribution of workload', 'Simple setup with predictable patterns', 'Testing and development'],
  create({ table }) {
    const { lastPick } = table.columns;
    return {
      pick(rows, count) {
        let best = rows[0] as number;
        for (let i = 1; i < count; i++) {
          const row = rows[i] as number;
          if ((lastPick[row] as number) < (lastPick[best] as number)) best = row;
        }
        return best;
      },
      score: (row) => Math.max(0, lastPick[row] as number),
    };
  },
};
