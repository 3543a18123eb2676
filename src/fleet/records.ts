import type { DirectoryEntry } from '../core/directory.ts';
import type { Admin, Lifecycle, ProviderInstance, ProviderName } from '../core/domain.ts';
import type { LoadTable, RowRef } from '../core/load-table.ts';
import { weightOf } from '../core/weight.ts';
import type { EventLog } from './events.ts';
import type { Ledger } from './ledger/ledger.ts';
import type { OperatorChoice, Rental, StaticUpstream } from './ledger/rows.ts';
import { type Spend, usdPerHourNow } from './spend.ts';
import type { Clock, Timing } from './timing.ts';

/** One rented or static upstream as the fleet knows it. Changed only by the functions of `FleetRecords`. */
export type FleetRecord = {
  readonly id: string;
  readonly provider: ProviderName;
  /** The ledger's row; null for a static upstream. */
  rental: Rental | null;
  lifecycle: Lifecycle;
  admin: Admin;
  /** Base URL while it is known. */
  origin: string | null;
  models: readonly string[] | null;
  weight: number;
  weightSource: 'formula' | 'operator';
  /** Its row in the load table; null before the contract is known and after the end. */
  ref: RowRef | null;
  /** True when it is in UPSTREAMS, where a removal would not last. */
  readonly configured: boolean;
  /** Wall time of the last list in which it was there and did not run; null when that is not known. */
  idleAt: number | null;
};

/** Owner of all upstream records: each change goes to the ledger first, then to the load table and the directory. */
export interface FleetRecords {
  /** In fleet order: the order of joining. */
  all(): readonly FleetRecord[];
  get(id: string): FleetRecord | undefined;
  byLabel(label: string): FleetRecord | undefined;
  byContract(provider: ProviderName, contract: string): FleetRecord | undefined;
  /** Called before the paid call, with the row that was just committed. */
  intended(rental: Rental): FleetRecord;
  /** The contract is known: the instance is tracked from here on. `usdPerHour`: the price it was bought at, when known. */
  rented(record: FleetRecord, contract: string, usdPerHour?: number): void;
  /** It had ended by itself, and the provider lists it as alive again. */
  revived(record: FleetRecord, instance: ProviderInstance): void;
  /** Commits a change of the ledger row that touches neither contract nor billing. */
  patch(
    record: FleetRecord,
    change: Partial<Omit<Rental, 'label' | 'contract' | 'billedFrom' | 'diskFrom' | 'endedAt'>>,
  ): void;
  /** The provider's present word on an instance of ours. */
  observed(record: FleetRecord, instance: ProviderInstance): void;
  /** Takes it out of rotation for good; `contract` when only now known. */
  destroying(record: FleetRecord, reason: string, contract?: string): void;
  /** Ends what is still open on it: every data-plane thread sees it leave and, with fresh connections, come back. */
  cut(record: FleetRecord): void;
  /** The detail shown while destroying is retried. */
  destroyDetail(record: FleetRecord, detail: string): void;
  /** It exists no more. */
  ended(record: FleetRecord, reason: string): void;
  /** The paid call came to nothing: the intent is closed and the record leaves the picture. */
  refused(record: FleetRecord, reason: string): void;
  addStatic(upstream: StaticUpstream, configured: boolean): FleetRecord;
  removeStatic(record: FleetRecord): void;
  /** Another URL under the same name; requests that are open end where they began. */
  moveStatic(record: FleetRecord, url: string): void;
  setAdmin(record: FleetRecord, admin: Admin): void;
  setWeight(record: FleetRecord, weight: number | null): void;
  setModels(record: FleetRecord, models: readonly string[] | null): void;
  /** Drops what ended long ago from the picture. */
  forgetEnded(): void;
  /** USD per hour of what exists now. */
  usdPerHour(provider?: ProviderName): number;
  directory(): readonly DirectoryEntry[];
  onDirectory(listener: (entries: readonly DirectoryEntry[]) => void): () => void;
  /** Called when an upstream starts running at an origin, or gets another one. */
  onRunning(listener: (record: FleetRecord) => void): () => void;
}

export type RecordParts = Readonly<{
  ledger: Ledger;
  table: LoadTable;
  events: EventLog;
  spend: Spend;
  clock: Clock;
  timing: Timing;
  /** Ceiling of in-flight requests of each upstream; 0 is none. */
  ceiling: number;
  /** Something visible changed. */
  changed: () => void;
}>;

export function createRecords(parts: RecordParts): FleetRecords {
  const { ledger, table, events, spend, clock, timing, changed } = parts;
  const records = new Map<string, FleetRecord>();
  const directoryListeners = new Set<(entries: readonly DirectoryEntry[]) => void>();
  const runningListeners = new Set<(record: FleetRecord) => void>();
  let directory: readonly DirectoryEntry[] = [];

  const publish = (without: FleetRecord | null = null) => {
    directory = [...records.values()].flatMap((record) =>
      // One that is being destroyed stays until it has drained: its open requests still use the origin.
      record === without ||
      record.ref === null ||
      record.origin === null ||
      !['running', 'destroying'].includes(record.lifecycle.phase)
        ? []
        : [
            {
              row: record.ref.row,
              generation: record.ref.generation,
              id: record.id,
              provider: record.provider,
              origin: record.origin,
              models: record.models,
            },
          ],
    );
    for (const listener of directoryListeners) listener(directory);
  };

  const formulaWeight = (rental: Rental | null): number => (rental === null ? 1 : weightOf(rental));

  const join = (record: FleetRecord) => {
    if (record.ref !== null) return;
    const now = clock.monotonic();
    record.ref = table.join({ weight: record.weight, ceiling: parts.ceiling, now });
    if (record.admin.mode === 'drain') table.setDraining(record.ref, true, now);
  };
  const leave = (record: FleetRecord) => {
    if (record.ref === null) return;
    // The directory goes first, so that no thread resolves a row that is being recycled.
    const ref = record.ref;
    record.ref = null;
    publish();
    table.leave(ref);
  };
  const run = (record: FleetRecord, origin: string) => {
    const fresh = record.lifecycle.phase !== 'running' || record.origin !== origin;
    if (!fresh) return;
    record.origin = origin;
    record.lifecycle = { phase: 'running', at: clock.now(), origin };
    if (record.ref !== null) table.setRunning(record.ref, true, clock.monotonic());
    publish();
    for (const listener of runningListeners) listener(record);
  };
  const halt = (record: FleetRecord) => {
    if (record.ref !== null) table.setRunning(record.ref, false, clock.monotonic());
    publish();
  };

  const choice = (record: FleetRecord): OperatorChoice => ({
    instanceId: record.id,
    draining: record.admin.mode === 'drain',
    drainDeadlineAt: record.admin.mode === 'drain' ? record.admin.deadlineAt : null,
    weight: record.weightSource === 'operator' ? record.weight : null,
  });
  const create = (id: string, provider: ProviderName, rental: Rental | null, configured: boolean): FleetRecord => {
    const saved = ledger.operator.get(id);
    const record: FleetRecord = {
      id,
      provider,
      rental,
      lifecycle: { phase: 'reserving', at: rental?.createdAt ?? clock.now() },
      admin: saved?.draining ? { mode: 'drain', deadlineAt: saved.drainDeadlineAt } : { mode: 'ready' },
      origin: null,
      models: null,
      weight: saved?.weight ?? formulaWeight(rental),
      weightSource: saved?.weight == null ? 'formula' : 'operator',
      ref: null,
      configured,
      idleAt: null,
    };
    records.set(id, record);
    return record;
  };
  const rentalOf = (record: FleetRecord): Rental => {
    if (record.rental === null) throw new Error(`${record.id} is not rented`);
    return record.rental;
  };
  /** Commits a row change together with the charge of a billing interval that ends with it. */
  const commit = (record: FleetRecord, change: Partial<Omit<Rental, 'label'>>) => {
    const rental = rentalOf(record);
    record.rental = ledger.transaction(() => {
      const closes =
        (change.billedFrom !== undefined && change.billedFrom !== rental.billedFrom) ||
        (change.diskFrom !== undefined && change.diskFrom !== rental.diskFrom);
      if (closes) spend.close(rental, change.endedAt ?? change.billedFrom ?? change.diskFrom ?? clock.now());
      return ledger.rentals.update(rental.label, change);
    });
  };

  const self: FleetRecords = {
    all: () => [...records.values()],
    get: (id) => records.get(id),
    byLabel(label) {
      for (const record of records.values()) if (record.rental?.label === label) return record;
      return undefined;
    },
    byContract(provider, contract) {
      for (const record of records.values()) {
        if (record.provider === provider && record.rental?.contract === contract) return record;
      }
      return undefined;
    },
    intended(rental) {
      const record = create(rental.instanceId, rental.provider, rental, false);
      changed();
      return record;
    },
    rented(record, contract, usdPerHour) {
      const rental = rentalOf(record);
      const now = clock.now();
      record.rental = ledger.transaction(() => {
        if (rental.prepaid && rental.contract === null) {
          spend.prepaid(rental.label, (usdPerHour ?? rental.usdPerHour) * (rental.prepaidHours ?? 0), now);
        }
        return ledger.rentals.update(rental.label, {
          state: 'rented',
          contract,
          usdPerHour: usdPerHour ?? rental.usdPerHour,
          // A price that the answer names was judged before the call.
          priceSeen: rental.priceSeen || usdPerHour !== undefined,
          settledAt: now,
          reason: null,
          ...diskFromStart(rental),
        });
      });
      record.lifecycle = { phase: 'booting', at: now, detail: null };
      join(record);
      changed();
    },
    revived(record, instance) {
      const rental = rentalOf(record);
      // Nobody destroyed it, so the provider has billed it all along.
      const from = rental.prepaid ? null : rental.endedAt;
      const ran = rental.ran && (instance.phase === 'running' || instance.phase === 'booting');
      commit(record, {
        state: 'rented',
        endedAt: null,
        reason: null,
        billedFrom: ran ? from : null,
        diskFrom: ran ? null : from,
      });
      record.lifecycle = { phase: 'booting', at: clock.now(), detail: 'listed again' };
      join(record);
      changed();
    },
    patch(record, change) {
      commit(record, change);
      changed();
    },
    observed(record, instance) {
      const rental = rentalOf(record);
      const now = clock.now();
      const change: Partial<Omit<Rental, 'label'>> = {};
      if (instance.origin !== null && instance.origin !== rental.origin) change.origin = instance.origin;
      if (instance.expiresAt !== rental.expiresAt) change.expiresAt = instance.expiresAt;
      // Zero is how a provider says "I do not know yet" while an instance boots.
      const dearer = instance.usdPerHour > 0 ? instance.usdPerHour - rental.usdPerHour : 0;
      const prepaidMore = rental.prepaid ? dearer * (rental.prepaidHours ?? 0) : 0;
      if (rental.prepaid ? Math.abs(prepaidMore) >= 0.005 : Math.abs(dearer) > 1e-6) {
        change.usdPerHour = instance.usdPerHour;
        if (dearer > 0) {
          events.emit({
            level: 'warn',
            kind: 'rental',
            subject: record.id,
            message: `${record.id} costs $${instance.usdPerHour.toFixed(3)}/h, not $${rental.usdPerHour.toFixed(3)}/h as before`,
          });
        }
      }
      const runs = instance.phase === 'running';
      if (runs && !rental.ran) change.ran = true;
      if (!rental.prepaid) {
        const { diskUsdPerHour } = instance;
        if (diskUsdPerHour !== null && Math.abs(diskUsdPerHour - rental.diskUsdPerHour) > 1e-6) {
          change.diskUsdPerHour = diskUsdPerHour;
        }
        if (runs && rental.billedFrom === null) {
          // Between the last list that said otherwise and now; unknown, the provider's own start while that can be true.
          const from = record.idleAt ?? (rental.ran ? now : (instance.startedAt ?? now));
          change.billedFrom = Math.min(now, Math.max(rental.diskFrom ?? rental.createdAt, from));
          change.diskFrom = null;
        } else if (!runs && instance.phase !== 'booting' && rental.billedFrom !== null) {
          change.billedFrom = null;
          change.diskFrom = now;
        } else if (rental.billedFrom === null) {
          // A new price starts a new interval, so that the time before is charged at the old one.
          if (rental.diskFrom === null || change.diskUsdPerHour !== undefined) change.diskFrom = now;
        } else if (change.usdPerHour !== undefined) change.billedFrom = now;
      }
      record.idleAt = runs ? null : now;
      if (Object.keys(change).length > 0) {
        ledger.transaction(() => {
          // What was booked when the time was bought was another price than the one that was paid.
          if (rental.prepaid && change.usdPerHour !== undefined) spend.prepaid(rental.label, prepaidMore, now);
          commit(record, change);
        });
        changed();
      }
      if (record.weightSource === 'formula' && change.usdPerHour !== undefined) {
        record.weight = formulaWeight(record.rental);
        if (record.ref !== null) table.setWeight(record.ref, record.weight);
      }
      if (record.rental?.state !== 'rented') return;
      if (runs && instance.origin !== null) {
        if (record.lifecycle.phase === 'halted') {
          const message = `${record.id} runs again at ${record.provider}`;
          events.emit({ level: 'info', kind: 'rental', subject: record.id, message });
        }
        if (record.lifecycle.phase !== 'running' || record.origin !== instance.origin) {
          run(record, instance.origin);
          changed();
        }
        return;
      }
      const before = record.lifecycle;
      const next = notRunning(instance, now);
      const same = before.phase === next.phase && causeOf(before) === causeOf(next);
      if (same && 'detail' in before && before.detail === next.detail) return;
      record.lifecycle = same ? { ...next, at: before.at } : next;
      if (before.phase === 'running') halt(record);
      changed();
      const event = same ? null : changeOf(record, before, next);
      if (event !== null) events.emit({ ...event, kind: 'rental', subject: record.id });
    },
    destroying(record, reason, contract) {
      const rental = rentalOf(record);
      ledger.transaction(() => {
        // Whatever exists was paid for, also when nobody is to get it.
        if (contract !== undefined && rental.contract === null && rental.prepaid) {
          spend.prepaid(rental.label, rental.usdPerHour * (rental.prepaidHours ?? 0), clock.now());
        }
        commit(record, {
          state: 'destroying',
          wanted: false,
          reason,
          settledAt: rental.settledAt ?? clock.now(),
          endedAt: null,
          ...(contract === undefined ? {} : { contract, ...diskFromStart(rental) }),
        });
      });
      record.lifecycle = { phase: 'destroying', at: clock.now(), detail: reason };
      if (record.ref !== null) {
        table.setDraining(record.ref, true, clock.monotonic());
      }
      publish();
      changed();
    },
    cut(record) {
      publish(record);
      publish();
    },
    destroyDetail(record, detail) {
      if (record.lifecycle.phase !== 'destroying' || record.lifecycle.detail === detail) return;
      record.lifecycle = { ...record.lifecycle, detail };
      changed();
    },
    ended(record, reason) {
      const at = clock.now();
      // `wanted` stays: what nobody asked to destroy is taken back should it turn out to live.
      commit(record, { state: 'ended', endedAt: at, billedFrom: null, diskFrom: null, reason });
      ledger.operator.remove(record.id);
      record.lifecycle = { phase: 'ended', at, reason };
      record.origin = null;
      leave(record);
      publish();
      changed();
    },
    refused(record, reason) {
      commit(record, { state: 'refused', wanted: false, endedAt: clock.now(), reason });
      leave(record);
      records.delete(record.id);
      changed();
    },
    addStatic(upstream, configured) {
      const record = create(`static-${upstream.name}`, 'static', null, configured);
      join(record);
      run(record, upstream.url);
      changed();
      return record;
    },
    moveStatic(record, url) {
      if (record.origin === url) return;
      // What was known of the old place says nothing about the new one.
      if (record.ref !== null) table.setRunning(record.ref, false, clock.monotonic());
      run(record, url);
      changed();
    },
    removeStatic(record) {
      ledger.operator.remove(record.id);
      record.lifecycle = { phase: 'ended', at: clock.now(), reason: 'removed' };
      records.delete(record.id);
      leave(record);
      publish();
      changed();
    },
    setAdmin(record, admin) {
      record.admin = admin;
      ledger.operator.set(choice(record));
      if (record.ref !== null) table.setDraining(record.ref, admin.mode === 'drain', clock.monotonic());
      changed();
    },
    setWeight(record, weight) {
      record.weight = weight ?? formulaWeight(record.rental);
      record.weightSource = weight === null ? 'formula' : 'operator';
      ledger.operator.set(choice(record));
      if (record.ref !== null) table.setWeight(record.ref, record.weight);
      changed();
    },
    setModels(record, models) {
      if (sameList(record.models, models)) return;
      record.models = models;
      publish();
      changed();
    },
    forgetEnded() {
      const before = clock.now() - timing.endedShownMs;
      for (const record of records.values()) {
        if (record.lifecycle.phase === 'ended' && record.lifecycle.at < before) {
          records.delete(record.id);
          changed();
        }
      }
    },
    usdPerHour(provider) {
      let sum = 0;
      for (const record of records.values()) {
        if (record.rental === null || record.lifecycle.phase === 'ended' || record.rental.contract === null) continue;
        if (provider === undefined || record.provider === provider) {
          sum += usdPerHourNow(record.rental, record.lifecycle.phase);
        }
      }
      return sum;
    },
    directory: () => directory,
    onDirectory(listener) {
      directoryListeners.add(listener);
      return () => void directoryListeners.delete(listener);
    },
    onRunning(listener) {
      runningListeners.add(listener);
      return () => void runningListeners.delete(listener);
    },
  };

  for (const rental of ledger.rentals.endedSince(clock.now() - timing.endedShownMs)) {
    const record = create(rental.instanceId, rental.provider, rental, false);
    record.lifecycle = { phase: 'ended', at: rental.endedAt ?? clock.now(), reason: rental.reason ?? 'ended' };
  }
  for (const rental of ledger.rentals.open()) {
    const record = create(rental.instanceId, rental.provider, rental, false);
    if (rental.state === 'rented') {
      record.lifecycle = { phase: 'booting', at: rental.settledAt ?? rental.createdAt, detail: 'asking the provider' };
      join(record);
      // The last known origin is good until the provider says otherwise: probes decide whether it takes traffic.
      if (rental.ran && rental.origin !== null && rental.billedFrom !== null) run(record, rental.origin);
    } else if (rental.state === 'destroying') {
      record.lifecycle = { phase: 'destroying', at: rental.settledAt ?? rental.createdAt, detail: rental.reason };
    }
  }
  return self;
}

/** The disk is billed from the contract on, whether it runs or not. */
function diskFromStart(rental: Rental): { diskFrom?: number } {
  return rental.prepaid || rental.billedFrom !== null || rental.diskFrom !== null ? {} : { diskFrom: rental.createdAt };
}

type NotRunning = Extract<Lifecycle, { phase: 'booting' | 'halted' }>;

const outbidHope = 'it runs again by itself when its bid wins; until then its disk alone is billed';

function notRunning({ phase, outbid, detail }: ProviderInstance, at: number): NotRunning {
  if (phase !== 'stopped' && phase !== 'failed') return { phase: 'booting', at, detail };
  if (outbid) return { phase: 'halted', at, cause: 'outbid', detail: `somebody bids more; ${outbidHope}` };
  const words = detail === null ? '' : `: ${detail}`;
  return { phase: 'halted', at, cause: phase, detail: `${phase} at the provider${words}` };
}

function causeOf(lifecycle: Lifecycle): string | null {
  return lifecycle.phase === 'halted' ? lifecycle.cause : null;
}

/** What is told when an instance stops running, or starts again; null when nobody needs to know. */
function changeOf(
  { id, provider }: FleetRecord,
  before: Lifecycle,
  next: NotRunning,
): { level: 'info' | 'warn'; message: string } | null {
  const ran = before.phase === 'running';
  if (next.phase === 'booting') {
    if (ran) return { level: 'warn', message: `${id} no longer runs: ${next.detail ?? 'it boots again'}` };
    return before.phase === 'halted' ? { level: 'info', message: `${id} starts again at ${provider}` } : null;
  }
  if (next.cause === 'outbid') return { level: 'warn', message: `${id} was outbid at ${provider}: ${outbidHope}` };
  // A failure before it ran is told by whoever decides what becomes of it.
  if (next.cause === 'failed' && !ran) return null;
  return { level: 'warn', message: `${id} ${ran ? 'no longer runs' : 'does not run'}: ${next.detail ?? next.cause}` };
}

function sameList(a: readonly string[] | null, b: readonly string[] | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((value, index) => value === b[index]);
}
