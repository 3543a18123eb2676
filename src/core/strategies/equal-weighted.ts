import type { Strategy } from './strategy.ts';

/** Fewest picks ever, counted from a level start; ties by fewest active, then longest since served. */
export const equalWeighted: Strategy = {
  name: 'equal_weighted',
  title: 'Equal Weighted',
  summary: 'Distributes requests based on total connection count, favoring GPUs with fewer total connections',
  useCases: [
    'Balancing long-running workloads',
    'Preventing overutilization of specific GPUs',
    'Fair distribution over time',
  ],
  create({ table, scores }) {
    const { total, offset, active, lastPick } = table.columns;
    return (rows, count) => {
      let best = -1;
      let least = Number.POSITIVE_INFINITY;
      for (let i = 0; i < count; i++) {
        const row = rows[i] as number;
        const key = (total[row] as number) + (offset[row] as number);
        scores[row] = key;
        if (key > least) continue;
        if (key === least) {
          const more = (active[row] as number) - (active[best] as number);
          if (more > 0 || (more === 0 && (lastPick[row] as number) > (lastPick[best] as number))) continue;
        }
        best = row;
        least = key;
      }
      return best;
    };
  },
};
