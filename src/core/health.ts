import { type Ending, endings } from './domain.ts';
import { header, health, type LoadTable, serving, whyProbe } from './load-table.ts';

/**
 * What traffic and probes say of an upstream: unknown → up → ejected (doubling) → probation, and back-off beside it.
 * All functions run under the table's lock.
 */
export type HealthSettings = Readonly<{
  /** Failures in a row that eject. */
  ejectAfterFailures: number;
  ejectBaseMs: number;
  ejectMaxMs: number;
  /** Part of the fleet that may be out at once. */
  maxEjectedFraction: number;
  slowStartMs: number;
}>;

/** What an ending says about the upstream that it ended at. */
export type Verdict = 'success' | 'failure' | 'backoff' | 'neutral';
export const verdicts: Readonly<Record<Ending, Verdict>> = {
  complete: 'success',
  client_error: 'neutral',
  server_error: 'failure',
  refused: 'failure',
  first_byte_timeout: 'failure',
  backoff: 'backoff',
  truncated: 'failure',
  idle_timeout: 'failure',
  client_gone: 'neutral',
  drained: 'neutral',
};

/** Back-off when the upstream names no time. */
const defaultBackoffMs = 1000;

function goUp(table: LoadTable, row: number, now: number, slowStartMs: number): void {
  const c = table.columns;
  table.enter(row, health.up);
  c.failures[row] = 0;
  c.upSince[row] = now;
  if (slowStartMs > 0) {
    c.rampFrom[row] = now;
    c.rampMs[row] = slowStartMs;
    const numbers = table.numbers;
    numbers[header.slowUntil] = Math.max(numbers[header.slowUntil] as number, now + slowStartMs);
  }
  table.level(row);
}

/** Running upstreams that have been up, and how many of them are out (ejected or on probation) besides `except`. */
function fleetSize(table: LoadTable): number {
  const c = table.columns;
  let size = 0;
  for (let i = 0; i < table.high; i++) {
    if (c.serving[i] !== serving.no && c.health[i] !== health.unknown) size++;
  }
  return size;
}

function outCount(table: LoadTable, except: number): number {
  const c = table.columns;
  let out = 0;
  for (let i = 0; i < table.high; i++) {
    if (i === except || c.serving[i] === serving.no) continue;
    if (c.health[i] === health.ejected || c.health[i] === health.probation) out++;
  }
  return out;
}

function eject(table: LoadTable, row: number, now: number, settings: HealthSettings, why: number): void {
  const c = table.columns;
  const times = c.ejections[row] as number;
  // The exponent is bounded because 2 ** 1100 is Infinity, which times 0 is NaN.
  const ms = Math.min(settings.ejectMaxMs, settings.ejectBaseMs * 2 ** Math.min(times, 30));
  table.enter(row, health.ejected);
  c.ejections[row] = times + 1;
  c.healthUntil[row] = now + ms;
  c.why[row] = why;
  c.whyCount[row] = why === whyProbe ? (c.probeFailures[row] as number) : (c.failures[row] as number);
}

/** Moves a row whose ejection or back-off is over. A row whose probes fail stays out: it is known dead. */
export function expire(table: LoadTable, row: number, now: number): void {
  const c = table.columns;
  if (now < (c.healthUntil[row] as number)) return;
  const state = c.health[row] as number;
  if (state === health.ejected) {
    if ((c.probeFailures[row] as number) > 0) return;
    table.enter(row, health.probation);
    // Its old response times belong to its old self; without a sample it gets one request at a time, and soon.
    Atomics.store(c.costUs, row, -1);
  } else if (state === health.backoff) {
    const next = c.afterBackoff[row] as number;
    table.enter(row, next);
    c.why[row] = 0;
    if (next === health.up) table.level(row);
  }
}

/** True when more of the fleet is out than may be: then whoever is not known dead gets requests. */
export function panics(out: number, size: number, settings: HealthSettings): boolean {
  return out > 0 && out > settings.maxEjectedFraction * size;
}

/** Judges one ended attempt that began in the row's present state; one that ended in a back-off whenever it began. */
export function judge(
  table: LoadTable,
  row: number,
  ending: number,
  now: number,
  settings: HealthSettings,
  retryAfterMs: number | undefined,
): void {
  const c = table.columns;
  const state = c.health[row] as number;
  switch (verdicts[endings[ending] as Ending]) {
    case 'success':
      c.failures[row] = 0;
      if (state === health.probation || state === health.ejected) {
        goUp(table, row, now, settings.slowStartMs);
        c.why[row] = 0;
      } else if (state === health.up && (c.ejections[row] as number) > 0) {
        // Ejections count as "in a row" until it has been up for as long as the last one lasted.
        const last = Math.min(
          settings.ejectMaxMs,
          settings.ejectBaseMs * 2 ** Math.min((c.ejections[row] as number) - 1, 30),
        );
        if (now - (c.upSince[row] as number) >= last) c.ejections[row] = 0;
      }
      return;
    case 'failure': {
      c.failures[row] = Math.min(1_000_000, (c.failures[row] as number) + 1);
      if (state === health.probation) {
        eject(table, row, now, settings, ending + 1);
        return;
      }
      if (state !== health.up || (c.failures[row] as number) < settings.ejectAfterFailures) return;
      // Beyond its share of the fleet nobody is ejected on the word of traffic: half a fleet beats none.
      if (outCount(table, row) + 1 > settings.maxEjectedFraction * fleetSize(table)) return;
      eject(table, row, now, settings, ending + 1);
      return;
    }
    case 'backoff': {
      if (state !== health.up && state !== health.probation && state !== health.backoff) return;
      const asked = retryAfterMs !== undefined && retryAfterMs >= 0 ? retryAfterMs : defaultBackoffMs;
      const until = now + Math.min(asked, settings.ejectMaxMs);
      if (state === health.backoff) {
        c.healthUntil[row] = Math.max(c.healthUntil[row] as number, until);
        return;
      }
      c.afterBackoff[row] = state;
      table.enter(row, health.backoff);
      c.healthUntil[row] = until;
      c.why[row] = ending + 1;
      return;
    }
    default:
      return;
  }
}

/** Takes the result of an active probe. Success does not excuse failures of traffic: a server may answer only probes. */
export function judgeProbe(table: LoadTable, row: number, ok: boolean, now: number, settings: HealthSettings): void {
  const c = table.columns;
  const state = c.health[row] as number;
  if (ok) {
    c.probeFailures[row] = 0;
    if (state === health.unknown) {
      goUp(table, row, now, settings.slowStartMs);
      c.why[row] = 0;
    } else if (state === health.ejected) expire(table, row, now);
    return;
  }
  c.probeFailures[row] = Math.min(1_000_000, (c.probeFailures[row] as number) + 1);
  if (state === health.unknown) c.why[row] = whyProbe;
  // No share of the fleet is kept here: an upstream whose probes fail is known dead.
  else if (
    (state === health.up || state === health.probation || state === health.backoff) &&
    (c.probeFailures[row] as number) >= settings.ejectAfterFailures
  ) {
    eject(table, row, now, settings, whyProbe);
  }
}
