import { expect, test } from 'vitest';
import { runSchedules } from '../crash/run-schedules.ts';

// `npm run test:crash` runs 500 of these from a new seed; a seed that fails there fails here in the same way.
test.concurrent.each([1, 2])(
  'killed at 25 points of renting, rolling back and destroying (seed %i), ledger and marketplaces agree after each restart',
  { timeout: 120_000 },
  async (seed) => {
    const report = await runSchedules({ seed, schedules: 25 });
    expect(Object.keys(report.deaths).length).toBeGreaterThan(5);
    expect(report.rented).toBeGreaterThan(10);
  },
);
