import { parseArgs } from 'node:util';
import { runSchedules } from './run-schedules.ts';

/** `npm run test:crash [-- --schedules 500 --seed 1]`: prints how often the process died where. */
const { values } = parseArgs({
  options: {
    schedules: { type: 'string', default: '500' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    verbose: { type: 'boolean', default: false },
  },
});
// Piped into a reader that leaves early.
process.stdout.on('error', () => process.exit(0));
const seed = Number(values.seed);
console.log(`seed ${seed}`);
const report = await runSchedules({
  seed,
  schedules: Number(values.schedules),
  ...(values.verbose ? { log: (line: string) => console.log(line) } : {}),
});
const lines = [
  `${report.schedules} schedules in ${report.seconds.toFixed(0)} s, ${report.rented} contracts made; ledger and marketplaces agreed after each`,
  'died',
  ...Object.entries(report.stages).map(([stage, count]) => `  ${String(count).padStart(4)}  ${stage}`),
  `  ${String(report.survived).padStart(4)}  after all was done`,
  'at',
  ...Object.entries(report.points)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([point, count]) => `  ${String(count).padStart(4)}  ${point}`),
];
console.log(lines.join('\n'));
// Node's own teardown waits for ever, spinning, for handles of children that were killed.
process.exit(0);
