/**
 * One monotonic clock for all threads of the process, in milliseconds with fraction.
 * `performance.now()` starts at zero in each thread, so each thread adds its own offset to the system's monotonic time.
 */
const offsetMs = Number(process.hrtime.bigint() / 1000n) / 1000 - performance.now();

export function monotonicMs(): number {
  return performance.now() + offsetMs;
}
