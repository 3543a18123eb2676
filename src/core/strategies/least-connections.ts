import type { Strategy } from './strategy.ts';

/** Fewest open requests; ties by longest since served, never first in the list. */
export const leastConnections: Strategy = {
  name: 'least_connections',
  title: 'Least Connections',
  summary: 'Routes requests to the GPU with the fewest active connections',
  useCases: ['Real-time workloads', 'Variable request duration', 'Maximizing throughput'],
  create({ table, scores }) {
    const { active, lastPick } = table.columns;
    return (rows, count) => {
      let best = -1;
      let least = Number.POSITIVE_INFINITY;
      for (let i = 0; i < count; i++) {
        const row = rows[i] as number;
        const open = active[row] as number;
        scores[row] = open;
        if (open < least || (open === least && (lastPick[row] as number) < (lastPick[best] as number))) {
          best = row;
          least = open;
        }
      }
      return best;
    };
  },
};
