import type { ProviderName } from '../core/domain.ts';
import type { LoadTable } from '../core/load-table.ts';
import { counted } from '../core/words.ts';
import type { Provider } from '../providers/provider.ts';
import type { EventLog } from './events.ts';
import { failureOf } from './failure.ts';
import type { Rental } from './ledger/rows.ts';
import type { FleetRecord, FleetRecords } from './records.ts';
import type { Clock, Timing } from './timing.ts';

/**
 * Destroys what the ledger says is to be destroyed: waits for open requests until a deadline, then asks the provider
 * until it confirms. The state is in the ledger, so a restart goes on where a crash stopped it.
 */
export interface Destroyer {
  /** Commits the decision and begins. `drainMs` is how long open requests may finish; 0 cuts them. */
  request(record: FleetRecord, reason: string, drainMs: number): void;
  /** Makes sure that work on a row in state `destroying` goes on. */
  resume(record: FleetRecord): void;
  /** True when the provider confirmed within `ms`. */
  settled(record: FleetRecord, ms: number): Promise<boolean>;
  stop(): Promise<void>;
}

type Job = {
  record: FleetRecord;
  /** Monotonic time until which open requests may finish. */
  drainUntil: number;
  attempt: number;
  hurry: (() => void) | null;
  done: Promise<void>;
};

/** What prepaid time is lost with it. Whether any of it is paid back, the provider's API does not say. */
function unusedText(rental: Rental, now: number): string {
  if (!rental.prepaid || rental.expiresAt === null || rental.expiresAt <= now) return '';
  const usd = ((rental.expiresAt - now) / 3_600_000) * rental.usdPerHour;
  return `; $${usd.toFixed(2)} of its prepaid time was not used and stays booked: ${rental.provider} does not say what it gives back`;
}

export function createDestroyer(parts: {
  providers: ReadonlyMap<ProviderName, Provider>;
  records: FleetRecords;
  table: LoadTable;
  events: EventLog;
  clock: Clock;
  timing: Timing;
  /** Observes each step, see CreateAppOptions. */
  step: (name: string) => void;
}): Destroyer {
  const { providers, records, table, events, clock, timing, step } = parts;
  const jobs = new Map<string, Job>();
  const abort = new AbortController();

  const pause = (job: Job, ms: number) =>
    new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        abort.signal.removeEventListener('abort', end);
        job.hurry = null;
        resolve();
      };
      const timer = setTimeout(end, ms);
      abort.signal.addEventListener('abort', end, { once: true });
      job.hurry = end;
      if (abort.signal.aborted) end();
    });

  const open = (record: FleetRecord): number => (record.ref === null ? 0 : (table.read(record.ref)?.active ?? 0));

  const work = async (job: Job) => {
    const { record } = job;
    while (open(record) > 0 && clock.monotonic() < job.drainUntil && !abort.signal.aborted) {
      records.destroyDetail(record, `finishing ${counted(open(record), 'open request')}`);
      await pause(job, Math.min(200, job.drainUntil - clock.monotonic()));
    }
    const late = open(record);
    if (late > 0 && !abort.signal.aborted) {
      records.cut(record);
      events.emit({
        level: 'warn',
        kind: 'drain',
        subject: record.id,
        message: `${record.id}: ${counted(late, 'open request was', 'open requests were')} cut before it is destroyed`,
      });
    }
    while (!abort.signal.aborted) {
      const rental = record.rental;
      // Reconcile may have found out meanwhile that it is gone.
      if (rental === null || rental.state !== 'destroying') return;
      if (rental.contract === null) return;
      const provider = providers.get(record.provider);
      try {
        if (provider === undefined) throw new Error(`${record.provider} is not configured`);
        step('destroy');
        await provider.destroy(
          rental.contract,
          AbortSignal.any([AbortSignal.timeout(timing.destroyTimeoutMs), abort.signal]),
        );
        step('destroyed');
        if (record.rental?.state !== 'destroying') return;
        records.ended(record, rental.reason ?? 'destroyed');
        events.emit({
          level: 'info',
          kind: 'destroy',
          subject: record.id,
          message: `${record.id} destroyed (${rental.reason ?? 'by command'})${unusedText(rental, clock.now())}`,
        });
        return;
      } catch (error) {
        if (abort.signal.aborted) return;
        const failure =
          provider === undefined
            ? { message: `${record.provider} is not configured: set its key`, retryAfterMs: null }
            : failureOf(error);
        job.attempt += 1;
        const wait = Math.max(
          failure.retryAfterMs ?? 0,
          Math.min(timing.destroyRetryMaxMs, timing.destroyRetryMs * 2 ** Math.min(10, job.attempt - 1)),
        );
        records.destroyDetail(record, `${failure.message}; next attempt in ${Math.max(1, Math.round(wait / 1000))} s`);
        if (job.attempt === 1 || job.attempt % 10 === 0) {
          events.emit({
            level: 'error',
            kind: 'destroy',
            subject: record.id,
            message: `${record.id} could not be destroyed yet (attempt ${job.attempt}): ${failure.message}; it is retried until ${record.provider} confirms`,
          });
        }
        await pause(job, wait);
      }
    }
  };

  const begin = (record: FleetRecord, drainMs: number): Job => {
    const drainUntil = clock.monotonic() + drainMs;
    const known = jobs.get(record.id);
    if (known !== undefined) {
      // A second request can only shorten the wait.
      if (drainUntil < known.drainUntil) {
        known.drainUntil = drainUntil;
        known.hurry?.();
      }
      return known;
    }
    const job: Job = { record, drainUntil, attempt: 0, hurry: null, done: Promise.resolve() };
    jobs.set(record.id, job);
    job.done = work(job).finally(() => jobs.delete(record.id));
    return job;
  };

  return {
    request(record, reason, drainMs) {
      if (record.rental === null || record.lifecycle.phase === 'ended') return;
      if (record.rental.state !== 'destroying') records.destroying(record, reason);
      begin(record, drainMs);
    },
    resume(record) {
      if (record.rental?.state === 'destroying' && !jobs.has(record.id)) begin(record, 0);
    },
    async settled(record, ms) {
      const job = jobs.get(record.id);
      if (job !== undefined) {
        const timer = Promise.withResolvers<void>();
        const handle = setTimeout(timer.resolve, ms);
        await Promise.race([job.done, timer.promise]);
        clearTimeout(handle);
      }
      return record.lifecycle.phase === 'ended';
    },
    async stop() {
      abort.abort();
      await Promise.allSettled([...jobs.values()].map((job) => job.done));
    },
  };
}
