import type { Strategy } from './strategy.ts';

/** Fewest open requests; ties by longest since served, never first in the list. */
export const leastConnections: Strategy = {
  name: 'least_connections',
  title: 'Least Connections',
  summary: 'Routes requests to the GPU with the fewest active connections',
  useCases: ['Real-time workloads', 'Variable request duration', 'Maximizing throughput'],
  create({ table }) {
    const { active, lastPick } = table.columns;
    return {
      pick(rows, count) {
        let best = rows[0] as number;
        for (let i = 1; i < count; i++) {
          const row = rows[i] as number;
          const more = (active[row] as number) - (active[best] as number);
          if (more < 0 || (more === 0 && (lastPick[row] as number) < (lastPick[best] as number))) best = row;
        }
        return best;
      },
      score: (row) => active[row] as number,
    };
  },
};
