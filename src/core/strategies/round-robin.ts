import type { Strategy } from './strategy.ts';

/** Whoever was served longest ago. No index into a list, so no change of membership can skew it. */
export const roundRobin: Strategy = {
  name: 'round_robin',
  title: 'Round Robin',
  summary: 'Distributes requests evenly across all available GPUs in a circular fashion',
  useCases: ['Equal distribution of workload', 'Simple setup with predictable patterns', 'Testing and development'],
  create({ table, scores }) {
    const { lastPick } = table.columns;
    return (rows, count) => {
      let best = -1;
      let oldest = Number.POSITIVE_INFINITY;
      for (let i = 0; i < count; i++) {
        const row = rows[i] as number;
        const last = lastPick[row] as number;
        scores[row] = last;
        if (last < oldest) {
          oldest = last;
          best = row;
        }
      }
      return best;
    };
  },
};
