import type { ProviderInstance, ProviderName } from '../core/domain.ts';
import type { Provider } from '../providers/provider.ts';
import type { ForeignInstance } from './app.ts';
import type { EventLog } from './events.ts';
import { type Failure, failureOf } from './failure.ts';
import { unusedInstanceId } from './instance-id.ts';
import type { Ledger } from './ledger/ledger.ts';
import type { Rental } from './ledger/rows.ts';
import type { FleetRecord, FleetRecords } from './records.ts';
import type { Clock, Timing } from './timing.ts';

/** A label of ours looked up at the provider. */
export type Sought =
  | Readonly<{ found: ProviderInstance }>
  | Readonly<{ found: null; failure: null }>
  | Readonly<{ found: null; failure: Failure }>;

/**
 * The ledger against the providers' lists, by label. Repairs what a crash or a lost answer left open; instances that
 * carry no label of ours are foreign and never touched.
 */
export interface Reconciler {
  /** Lists one provider, or all, now and applies what it says. Rejects when a list could not be had. */
  run(provider?: ProviderName): Promise<void>;
  /** One list call that looks for a label; applies nothing. */
  seek(provider: ProviderName, label: string): Promise<Sought>;
  foreign(): readonly ForeignInstance[];
  /** The provider's last row about a foreign instance. */
  foreignInstance(provider: ProviderName, contract: string): ProviderInstance | undefined;
  start(): void;
  /** Next round soon: something booted, was lost or is to be destroyed. */
  nudge(provider: ProviderName): void;
  stop(): void;
}

type State = {
  readonly provider: Provider;
  timer: NodeJS.Timeout | null;
  /** Monotonic time the timer fires. */
  dueAt: number;
  busy: Promise<void> | null;
  failures: number;
  foreign: ReadonlyMap<string, ProviderInstance>;
};

export function createReconciler(parts: {
  providers: readonly Provider[];
  ledger: Ledger;
  records: FleetRecords;
  events: EventLog;
  clock: Clock;
  timing: Timing;
  changed: () => void;
  /** True while a reservation in this process is working on the label: its intent is not an orphan. */
  underWay: (label: string) => boolean;
  /** Told of every live instance of ours in a list that was asked for at `askedAt`. */
  seen: (record: FleetRecord, instance: ProviderInstance, askedAt: number) => void;
  /** Judges the price of an instance of which it was not known; a reason means that it is given back. */
  tooDear: (record: FleetRecord, instance: ProviderInstance) => string | null;
  /** Hands a row in state `destroying` to the one who destroys. */
  destroy: (record: FleetRecord) => void;
}): Reconciler {
  const { ledger, records, events, clock, timing, changed, underWay, seen, tooDear, destroy } = parts;
  const abort = new AbortController();
  let running = false;
  const states = new Map<ProviderName, State>(
    parts.providers.map((provider) => [
      provider.name,
      { provider, timer: null, dueAt: 0, busy: null, failures: 0, foreign: new Map() },
    ]),
  );
  /** Lists in a row without the instance, and the wall time of the first of them. */
  const absences = new Map<string, { lists: number; since: number }>();
  const failedSince = new Map<string, number>();
  const warnedOfExpiry = new Set<string>();

  const list = (state: State) =>
    state.provider.list(AbortSignal.any([AbortSignal.timeout(timing.callTimeoutMs), abort.signal]));

  /** The row of the list that belongs to a record: by contract, and by label while no contract is known. */
  const rowOf = (record: FleetRecord, rows: readonly ProviderInstance[]): ProviderInstance | undefined => {
    const rental = record.rental;
    if (rental === null) return undefined;
    if (rental.contract !== null) return rows.find((row) => row.contract === rental.contract);
    const mine = rows.filter((row) => row.label === rental.label);
    // One that has ended meanwhile was paid for as well.
    return mine.find((row) => row.phase !== 'ended') ?? mine[0];
  };

  /** `askedAt` is the wall time at which the list was asked for: it proves nothing about what happened later. */
  const apply = (state: State, rows: readonly ProviderInstance[], askedAt: number) => {
    const name = state.provider.name;
    for (const record of records.all()) {
      const rental = record.rental;
      if (rental === null || record.provider !== name || record.lifecycle.phase === 'ended') continue;
      if (underWay(rental.label)) continue;
      const row = rowOf(record, rows);
      if (row === undefined) absent(record, askedAt);
      else {
        absences.delete(rental.label);
        present(record, row, askedAt);
      }
    }
    const foreign = new Map<string, ProviderInstance>();
    for (const row of rows) {
      const known =
        ledger.rentals.byContract(name, row.contract) ??
        (row.label === null ? undefined : ledger.rentals.get(row.label));
      if (known === undefined) {
        if (row.phase !== 'ended') foreign.set(row.contract, row);
      } else if (known.contract !== null && known.contract !== row.contract) {
        if (row.phase !== 'ended') double(known, row);
      } else if (known.state === 'ended' || known.state === 'refused') resurrect(known, row, askedAt);
    }
    if (!sameForeign(foreign, state.foreign)) {
      state.foreign = foreign;
      changed();
    }
  };

  const present = (record: FleetRecord, row: ProviderInstance, askedAt: number) => {
    const rental = record.rental;
    if (rental === null) return;
    if (rental.state === 'intended' || rental.state === 'unknown') {
      if (rental.wanted || row.phase === 'ended') {
        records.rented(record, row.contract);
        events.emit({
          level: 'ok',
          kind: 'rental',
          subject: record.id,
          message: `${record.id} found by its label at ${record.provider}: adopted (contract ${row.contract})`,
        });
      } else {
        // It is paid for from here on: the contract is booked before it is given back.
        records.rented(record, row.contract);
        records.destroying(record, 'turned up after it was given up');
        destroy(record);
        return;
      }
    }
    if (record.rental?.state === 'destroying') {
      if (record.rental.contract === null) records.destroying(record, record.rental.reason ?? 'given up', row.contract);
      if (row.phase === 'ended') records.ended(record, record.rental.reason ?? 'destroyed');
      else {
        records.observed(record, row);
        destroy(record);
      }
      return;
    }
    if (row.phase === 'ended') {
      const over = rental.expiresAt !== null && rental.expiresAt <= clock.now() + 60_000;
      end(
        record,
        over ? 'its prepaid time is over' : `ended at ${record.provider}${row.detail ? `: ${row.detail}` : ''}`,
      );
      return;
    }
    if (tooDear(record, row) !== null) return;
    records.observed(record, row);
    seen(record, row, askedAt);
    if (row.phase === 'failed') failed(record, row);
    else failedSince.delete(rental.label);
    expiry(record, row);
  };

  const failed = (record: FleetRecord, row: ProviderInstance) => {
    const rental = record.rental;
    if (rental === null) return;
    const since = failedSince.get(rental.label);
    const why = row.detail ?? 'no reason given';
    if (since === undefined) {
      failedSince.set(rental.label, clock.now());
      events.emit({
        level: 'error',
        kind: 'rental',
        subject: record.id,
        message: `${record.id} failed at ${record.provider}: ${why}${rental.ran ? '; it is still billed, destroy it when its disk is not needed' : ''}`,
      });
      return;
    }
    // What never ran has nothing on its disk to lose, and costs money as long as it exists.
    if (!rental.ran && clock.now() - since >= timing.failedGraceMs) {
      records.destroying(record, `failed before it ran: ${why}`);
      destroy(record);
    }
  };

  const expiry = (record: FleetRecord, row: ProviderInstance) => {
    if (row.expiresAt === null) return;
    const left = row.expiresAt - clock.now();
    // Once, and once more after it was extended.
    if (left > timing.expiryWarningMs) warnedOfExpiry.delete(record.id);
    if (left > timing.expiryWarningMs || left <= 0 || warnedOfExpiry.has(record.id)) return;
    warnedOfExpiry.add(record.id);
    events.emit({
      level: 'warn',
      kind: 'rental',
      subject: record.id,
      message: `${record.id}: prepaid time ends in ${Math.max(1, Math.round(left / 60_000))} min; extend it to keep it`,
    });
  };

  const absent = (record: FleetRecord, askedAt: number) => {
    const rental = record.rental;
    if (rental === null) return;
    const seen = absences.get(rental.label) ?? { lists: 0, since: askedAt };
    const absence = { lists: seen.lists + 1, since: seen.since };
    absences.set(rental.label, absence);
    if (rental.state === 'intended' || rental.state === 'unknown') {
      const lostAt = rental.settledAt ?? rental.createdAt;
      if (askedAt - lostAt >= timing.unknownGraceMs && absence.lists >= 2) {
        absences.delete(rental.label);
        records.refused(record, 'its label was never seen at the provider');
        events.emit({
          level: 'info',
          kind: 'rental',
          subject: record.id,
          message: `${record.id} was never rented: ${record.provider} does not know its label`,
        });
      }
      return;
    }
    if (rental.state === 'destroying' && rental.contract === null) {
      // Given up while its call was under way: the same proof is needed as for any unknown outcome.
      if (askedAt - (rental.settledAt ?? rental.createdAt) >= timing.unknownGraceMs) {
        records.refused(record, 'its label was never seen at the provider');
      }
      return;
    }
    // A list that leaves out one row may be a glitch, and a new contract takes a moment to appear.
    const young = askedAt - (rental.settledAt ?? rental.createdAt) < timing.absentGraceMs;
    if (absence.lists < 2 || young) return;
    absences.delete(rental.label);
    if (rental.state === 'destroying') {
      records.ended(record, rental.reason ?? 'destroyed');
      return;
    }
    const over = rental.expiresAt !== null && rental.expiresAt <= clock.now() + 60_000;
    end(record, over ? 'its prepaid time is over' : `gone at ${record.provider}: the account no longer lists it`);
  };

  const end = (record: FleetRecord, reason: string) => {
    records.ended(record, reason);
    events.emit({ level: 'warn', kind: 'rental', subject: record.id, message: `${record.id} ended: ${reason}` });
  };

  /**
   * Something closed in the ledger is alive at the provider: a list that left it out for a while, a destroy that did not
   * last, or a call that was very late.
   */
  const resurrect = (rental: Rental, row: ProviderInstance, askedAt: number) => {
    if (row.phase === 'ended') return;
    if (rental.state === 'ended' && rental.wanted) {
      if (askedAt <= (rental.endedAt ?? 0)) return;
      const record = records.get(rental.instanceId) ?? records.intended(rental);
      records.revived(record, row);
      events.emit({
        level: 'warn',
        kind: 'rental',
        subject: record.id,
        message: `${record.id} is listed by ${record.provider} again: taken back`,
      });
      records.observed(record, row);
      return;
    }
    const grace = rental.state === 'ended' ? timing.lingerGraceMs : 0;
    if (clock.now() - (rental.endedAt ?? 0) < grace) return;
    destroyStray(rental, row, `${rental.instanceId} is still alive at ${rental.provider}: destroying it again`);
  };

  /** A second instance under one of our labels: a paid call that something on the way sent twice. */
  const double = (rental: Rental, row: ProviderInstance) => {
    const stray: Rental = {
      ...rental,
      label: `${rental.label}#${row.contract}`,
      reservation: null,
      instanceId: unusedInstanceId(ledger, `${rental.instanceId}-double`),
      contract: null,
      state: 'unknown',
      wanted: false,
      createdAt: clock.now(),
      settledAt: clock.now(),
      ran: false,
      billedFrom: null,
      diskFrom: null,
      expiresAt: null,
      endedAt: null,
      reason: null,
    };
    ledger.rentals.insert(stray);
    destroyStray(
      stray,
      row,
      `${rental.provider} runs a second instance labelled ${rental.label} (contract ${row.contract}): destroying it`,
    );
  };

  const destroyStray = (rental: Rental, row: ProviderInstance, message: string) => {
    events.emit({ level: 'warn', kind: 'rental', subject: rental.instanceId, message });
    const record = records.get(rental.instanceId) ?? records.intended(rental);
    records.destroying(record, 'nobody is to have it', row.contract);
    destroy(record);
  };

  /** Told once, however often it is asked again: until it is over nobody knows what has become of the instances. */
  const unlisted = (state: State, failure: Failure) => {
    const { name } = state.provider;
    if (state.failures === 0) {
      events.emit({
        level: 'error',
        kind: 'provider',
        subject: name,
        message: `${name}: the list of instances could not be had: ${failure.message}`,
      });
    }
    state.failures += 1;
  };

  const cycle = (state: State): Promise<void> => {
    const work = async () => {
      const askedAt = clock.now();
      let rows: readonly ProviderInstance[];
      try {
        rows = await list(state);
      } catch (error) {
        if (!abort.signal.aborted) unlisted(state, failureOf(error));
        throw error;
      }
      if (state.failures > 0) {
        events.emit({
          level: 'ok',
          kind: 'provider',
          subject: state.provider.name,
          message: `${state.provider.name} lists its instances again`,
        });
      }
      state.failures = 0;
      apply(state, rows, askedAt);
    };
    // A round that is under way may have asked too early for this caller: wait for it, then ask again.
    const turn = (state.busy ?? Promise.resolve()).catch(() => undefined).then(work);
    const settled = turn.then(
      () => undefined,
      () => undefined,
    );
    state.busy = settled;
    void settled.then(() => {
      if (state.busy === settled) state.busy = null;
    });
    return turn;
  };

  const unsettled = (provider: ProviderName): boolean =>
    records.all().some(
      (record) =>
        record.provider === provider &&
        record.rental !== null &&
        (record.lifecycle.phase === 'booting' ||
          // One that failed before it ran is given back soon.
          (record.lifecycle.phase === 'halted' && record.lifecycle.cause === 'failed' && !record.rental.ran) ||
          record.lifecycle.phase === 'reserving' ||
          record.lifecycle.phase === 'destroying'),
    );

  const schedule = (state: State) => {
    if (!running) return;
    if (state.timer !== null) clearTimeout(state.timer);
    const base = unsettled(state.provider.name) ? timing.reconcileBusyMs : timing.reconcileMs;
    const pause = Math.min(timing.reconcileMs, base * 2 ** Math.min(6, state.failures));
    state.dueAt = clock.monotonic() + pause;
    state.timer = setTimeout(() => {
      void cycle(state)
        .catch((error: unknown) => {
          // What the provider failed with has been told; anything else is a bug, and is thrown on.
          if (!abort.signal.aborted) failureOf(error);
        })
        .finally(() => schedule(state));
    }, pause);
    state.timer.unref();
  };

  return {
    async run(provider) {
      const chosen = [...states.values()].filter((state) => provider === undefined || state.provider.name === provider);
      const results = await Promise.allSettled(chosen.map(cycle));
      for (const state of chosen) schedule(state);
      const failure = results.find((result) => result.status === 'rejected');
      if (failure !== undefined) throw failure.reason;
    },
    async seek(provider, label) {
      const state = states.get(provider);
      if (state === undefined) throw new Error(`${provider} is not configured`);
      try {
        const rows = await list(state);
        const row = rows.find((candidate) => candidate.label === label && candidate.phase !== 'ended');
        return row === undefined ? { found: null, failure: null } : { found: row };
      } catch (error) {
        return { found: null, failure: failureOf(error) };
      }
    },
    foreign: () =>
      [...states.values()].flatMap((state) =>
        [...state.foreign.values()].map((row) => ({
          provider: state.provider.name,
          contract: row.contract,
          label: row.label,
          phase: row.phase,
          gpuModel: row.gpuModel,
          gpuCount: row.gpuCount,
          usdPerHour: row.usdPerHour,
        })),
      ),
    foreignInstance: (provider, contract) => states.get(provider)?.foreign.get(contract),
    start() {
      running = true;
      for (const state of states.values()) schedule(state);
    },
    nudge(provider) {
      const state = states.get(provider);
      if (state === undefined || !running) return;
      if (state.dueAt - clock.monotonic() > timing.reconcileBusyMs) schedule(state);
    },
    stop() {
      running = false;
      abort.abort();
      for (const state of states.values()) if (state.timer !== null) clearTimeout(state.timer);
    },
  };
}

function sameForeign(a: ReadonlyMap<string, ProviderInstance>, b: ReadonlyMap<string, ProviderInstance>): boolean {
  if (a.size !== b.size) return false;
  for (const [contract, row] of a) {
    const other = b.get(contract);
    if (other === undefined || other.phase !== row.phase || other.usdPerHour !== row.usdPerHour) return false;
  }
  return true;
}
