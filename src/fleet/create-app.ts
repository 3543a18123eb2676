import { type Config, healthSettingsOf } from '../config.ts';
import { type Balancer, createBalancer } from '../core/balancer.ts';
import { isBaseUrl } from '../core/base-url.ts';
import { type ProviderName, type StrategyName, strategyNames } from '../core/domain.ts';
import { LoadTable } from '../core/load-table.ts';
import { type Decision, keptDecisions } from '../core/report.ts';
import { counted } from '../core/words.ts';
import type { Provider } from '../providers/provider.ts';
import { AppError, type FleetEvent, invalidField, type LocalApp, type Snapshot, type UpstreamView } from './app.ts';
import { createAvailability } from './availability.ts';
import { createDestroyer } from './destroyer.ts';
import { createEventLog } from './events.ts';
import { createExtender } from './extender.ts';
import { appErrorOf, failureOf } from './failure.ts';
import { unusedInstanceId } from './instance-id.ts';
import { createKeys } from './keys.ts';
import { openLedger } from './ledger/ledger.ts';
import type { Rental } from './ledger/rows.ts';
import { createProber } from './prober.ts';
import { createReconciler } from './reconciler.ts';
import { createRecords, type FleetRecord } from './records.ts';
import { createReserver } from './reserve.ts';
import { searchLeftMs } from './search-text.ts';
import { createSnapshotStore, createUpstreamViews, healthChange, providerView } from './snapshot.ts';
import { createSpend } from './spend.ts';
import { type Clock, systemClock, type Timing, timingOf } from './timing.ts';
import { countsOf, createMeter, createReports, type Meter, poolCounts, round, trafficOf } from './traffic.ts';

export type CreateAppOptions = Readonly<{
  config: Config;
  /** The marketplaces that are on, in fleet order. Whoever made them closes them, after the app. */
  providers: readonly Provider[];
  /** Folder of the ledger; made when missing, held by one process at a time. */
  dataDir: string;
  /** LB_STRATEGY when it is set; default: what the configuration says. */
  strategySetting?: StrategyName | null;
  /** True when the providers are the local simulator. */
  simulated?: boolean;
  /** One line for people about the mode. */
  banner?: string | null;
  urls?: Readonly<{ apiUrl: string | null; proxyUrl: string | null }>;
  clock?: Clock;
  timing?: Partial<Timing>;
  /** From 0 to 1; for jitter alone. */
  random?: () => number;
  /**
   * Called at each step of renting and destroying, before it happens (`before-intent`, `after-intent`, `call`,
   * `answered`, `before-outcome`, `after-outcome`, `before-rollback`, `rollback`, `before-answer`, `answer`, `destroy`,
   * `destroyed`, `extend`, `extended`). The crash test dies here; nothing else uses it.
   */
  onStep?: (name: string) => void;
}>;

const shutdownGraceMs = 10_000;
const tickMs = 1000;
const shownReservations = 50;

/** The application: opens the ledger, takes up what the last process left, and starts the background work. */
export async function createApp(options: CreateAppOptions): Promise<LocalApp> {
  let { config } = options;
  const clock = options.clock ?? systemClock;
  const random = options.random ?? Math.random;
  const step = options.onStep ?? (() => {});
  // Changed in place by `reconfigure`: every part reads it when it needs it.
  const timing: Timing = { ...timingOf(config), ...options.timing };
  let wallOffsetMs = clock.now() - clock.monotonic();
  const startedAt = clock.now();
  const providers = new Map<ProviderName, Provider>(options.providers.map((provider) => [provider.name, provider]));

  const ledger = openLedger(options.dataDir);
  const events = createEventLog(ledger, clock.now);
  const keys = createKeys(ledger, clock.now);
  const spend = createSpend(ledger);
  const table = LoadTable.create();
  const balancer: Balancer = createBalancer(table, healthSettingsOf(config));

  // --- strategy: the variable wins, then the last choice, then the default ---
  const saved = ledger.settings.get('strategy');
  const setting = options.strategySetting === undefined ? (config.LB_STRATEGY ?? null) : options.strategySetting;
  const resumed = strategyNames.find((name) => name === saved);
  let strategy: Snapshot['strategy'] = {
    name: setting ?? resumed ?? 'round_robin',
    source: setting !== null ? 'LB_STRATEGY' : resumed !== undefined ? 'saved' : 'default',
    since: clock.now(),
  };
  table.strategy = strategy.name;
  table.balancing = config.LB_ENABLED;

  // --- parts ---
  let dirty = true;
  const changed = () => {
    dirty = true;
  };
  let soon: NodeJS.Timeout | null = null;
  /** What a person waits for is shown before the next tick: an order, a state of an instance, an answer of a market. */
  const changedVisibly = () => {
    changed();
    if (soon !== null) return;
    soon = setTimeout(() => {
      soon = null;
      if (!disposed) flush();
    }, timing.snapshotSoonMs).unref();
  };
  const records = createRecords({
    ledger,
    table,
    events,
    spend,
    clock,
    timing,
    get ceiling() {
      return config.UPSTREAM_MAX_IN_FLIGHT;
    },
    changed: changedVisibly,
  });
  const availability = createAvailability({
    providers: options.providers,
    clock,
    timing,
    events,
    random,
    changed: changedVisibly,
  });
  const destroyer = createDestroyer({ providers, records, table, events, clock, timing, step });
  const reconciler = createReconciler({
    providers: options.providers,
    ledger,
    records,
    events,
    clock,
    timing,
    changed,
    underWay: (label) => reserver.underWay(label),
    tooDear: (record, instance) => reserver.tooDear(record, instance),
    seen: (record, instance, askedAt) => extender.seen(record, instance, askedAt),
    destroy: (record) => destroyer.resume(record),
  });
  const extender = createExtender({
    ledger,
    records,
    spend,
    events,
    clock,
    timing,
    nudge: (provider) => reconciler.nudge(provider),
    step,
  });
  const reserver = createReserver({
    providers,
    ledger,
    records,
    table,
    availability,
    reconciler,
    destroyer,
    events,
    clock,
    timing,
    get maxUsdPerHour() {
      return config.MAX_USD_PER_HOUR ?? null;
    },
    get defaults() {
      return { image: config.DEFAULT_IMAGE, diskGb: config.DEFAULT_DISK_GB, instancePort: config.INSTANCE_PORT };
    },
    changed,
    step,
  });
  const prober = createProber({
    records,
    balancer,
    clock,
    timing,
    get healthPath() {
      return config.HEALTH_PATH;
    },
    get upstreamKey() {
      return config.UPSTREAM_API_KEY ?? null;
    },
    random,
    changed,
  });
  const reports = createReports();
  let accessLogFault: string | null = null;
  /** Lines that are lost are told once, and once that it is over: the threads share the file. */
  function tellAccessLog(): void {
    const fault = reports.latest().find((report) => report.accessLogFault !== undefined)?.accessLogFault ?? null;
    if (fault === accessLogFault) return;
    accessLogFault = fault;
    const message = fault === null ? 'the access log is written again' : `access log: ${fault}`;
    events.emit({ level: fault === null ? 'info' : 'warn', kind: 'access_log', message });
  }
  const poolMeter = createMeter();
  const meters = new Map<string, Meter>();

  // --- the picture ---
  let urls = options.urls ?? { apiUrl: null, proxyUrl: null };
  let fleetIsNew = { at: Number.NaN, value: false };
  const rowOf = (record: FleetRecord) => {
    if (record.ref === null) return null;
    const now = clock.monotonic();
    // One look at the whole fleet serves all rows that are read in one go.
    if (!(now - fleetIsNew.at < 20)) fleetIsNew = { at: now, value: table.allNew(now) };
    return table.read(record.ref, now, fleetIsNew.value);
  };

  const upstreamView = createUpstreamViews();
  const viewAt = (record: FleetRecord, now: number, recent: number): UpstreamView =>
    upstreamView({
      record,
      row: rowOf(record),
      meter: meters.get(record.id),
      poolRecent: recent,
      spentUsd: record.rental === null ? 0 : spend.of(record.rental, now),
      searchLeftMs: record.rental?.state === 'unknown' ? searchLeftMs(record.rental, now, timing) : null,
      wallOffsetMs,
    });
  const viewOf = (record: FleetRecord): UpstreamView => viewAt(record, clock.now(), poolRecent());
  const poolRecent = () => {
    let sum = 0;
    for (const record of records.all()) sum += meters.get(record.id)?.rates().recent ?? 0;
    return sum;
  };
  let reservationsCache: { of: Snapshot['reservations']; dirtyAt: boolean } = { of: [], dirtyAt: true };
  const build = (): Omit<Snapshot, 'version' | 'at'> => {
    const now = clock.now();
    const all = records.all();
    const recent = poolRecent();
    if (dirty || reservationsCache.dirtyAt) {
      reservationsCache = {
        of: ledger.reservations.shown(shownReservations).map((reservation) => reserver.view(reservation)),
        dirtyAt: false,
      };
    }
    const totals = spend.totals(
      all.flatMap((record) => record.rental ?? []),
      now,
    );
    return {
      startedAt,
      mode: {
        simulated: options.simulated ?? false,
        banner: options.banner ?? null,
        balancing: table.balancing,
        proxyUrl: urls.proxyUrl,
        apiUrl: urls.apiUrl,
      },
      strategy,
      upstreams: all.map((record) => viewAt(record, now, recent)),
      providers: options.providers.map(({ name }) =>
        providerView(
          name,
          availability.market(name),
          all.filter((record) => record.provider === name && record.ref !== null).length,
          round(records.usdPerHour(name), 4),
        ),
      ),
      reservations: reservationsCache.of,
      foreign: reconciler.foreign(),
      traffic: trafficOf(table.totals(), poolMeter, reports),
      cost: {
        usdPerHour: round(records.usdPerHour(), 4),
        spentUsd: round(totals.spentUsd, 3),
        spentTodayUsd: round(totals.spentTodayUsd, 3),
        maxUsdPerHour: config.MAX_USD_PER_HOUR ?? null,
      },
    };
  };
  reserver.recover();
  extender.recover();
  const store = createSnapshotStore(build, clock.now);
  const flush = () => {
    store.flush();
    dirty = false;
  };

  const lastRows = new Map<string, ReturnType<typeof rowOf>>();
  const watchHealth = () => {
    for (const record of records.all()) {
      const row = rowOf(record);
      if (row === null) {
        lastRows.delete(record.id);
        continue;
      }
      const change = healthChange(lastRows.get(record.id) ?? null, row);
      lastRows.set(record.id, row);
      if (change === null || record.lifecycle.phase !== 'running') continue;
      const [kind, level, message] =
        change.kind === 'ejected'
          ? (['ejected', 'warn', `${record.id} ejected: ${change.why}`] as const)
          : change.kind === 'recovered'
            ? (['recovered', 'ok', `${record.id} recovered`] as const)
            : (['upstream', 'ok', `${record.id} is in rotation`] as const);
      events.emit({ level, kind, subject: record.id, message });
    }
    for (const id of lastRows.keys()) if (records.get(id) === undefined) lastRows.delete(id);
  };
  let second = 0;
  const sample = () => {
    second += 1;
    const totals = table.totals();
    poolMeter.sample(second, poolCounts(totals, reports), totals.ttfbHistogram);
    for (const record of records.all()) {
      const row = rowOf(record);
      if (row === null) {
        meters.delete(record.id);
        continue;
      }
      let meter = meters.get(record.id);
      if (meter === undefined) {
        meter = createMeter();
        meters.set(record.id, meter);
      }
      meter.sample(second, countsOf(row), row.ttfbHistogram);
    }
    for (const id of meters.keys()) if (records.get(id) === undefined) meters.delete(id);
  };
  /** The monotonic clock stands still while the machine sleeps, and the wall clock can be set. */
  const followClock = () => {
    const offset = clock.now() - clock.monotonic();
    if (Math.abs(offset - wallOffsetMs) < 500) return;
    wallOffsetMs = offset;
    changed();
  };
  /** An operator's drain that has reached its deadline says so once, and what is still open is cut. */
  const drainDeadlines = () => {
    for (const record of records.all()) {
      const { admin } = record;
      if (admin.mode !== 'drain' || admin.deadlineAt === null || admin.deadlineAt > clock.now()) continue;
      const open = rowOf(record)?.active ?? 0;
      records.setAdmin(record, { mode: 'drain', deadlineAt: null });
      if (open > 0) records.cut(record);
      events.emit({
        level: open === 0 ? 'ok' : 'warn',
        kind: 'drain',
        subject: record.id,
        message:
          open === 0
            ? `${record.id} is drained`
            : `${record.id}: drain deadline reached, ${counted(open, 'open request was', 'open requests were')} cut`,
      });
    }
  };

  const timers = [
    setInterval(() => {
      watchHealth();
      drainDeadlines();
      flush();
    }, timing.snapshotMs),
    setInterval(() => {
      followClock();
      sample();
      reserver.tidy();
      extender.tidy();
      records.forgetEnded();
      retire();
    }, tickMs),
    setInterval(() => ledger.idempotency.removeOlderThan(clock.now() - timing.idempotencyMs), 3_600_000),
  ];
  for (const timer of timers) timer.unref();

  // --- static upstreams ---
  const addStatic = (name: string, url: string, configured: boolean): FleetRecord => {
    if (records.get(`static-${name}`) !== undefined) throw new AppError('conflict', `static-${name} exists already`);
    return records.addStatic({ name, url, addedAt: clock.now() }, configured);
  };
  /** Taken out, of UPSTREAMS or by hand: gone once what is open has ended, or at the deadline. */
  const retiring = new Map<FleetRecord, number>();
  const retire = () => {
    for (const [record, deadlineAt] of retiring) {
      if (clock.now() < deadlineAt && (rowOf(record)?.active ?? 0) > 0) continue;
      retiring.delete(record);
      if (records.get(record.id) !== record) continue;
      records.removeStatic(record);
      events.emit({ level: 'info', kind: 'upstream', subject: record.id, message: `${record.id} removed` });
    }
  };
  const takeOut = (record: FleetRecord, drainMs: number) => {
    const deadlineAt = clock.now() + drainMs;
    retiring.set(record, deadlineAt);
    records.setAdmin(record, { mode: 'drain', deadlineAt });
  };
  const changeStatics = (wanted: Config['UPSTREAMS']) => {
    for (const { name, url } of wanted) {
      const record = records.get(`static-${name}`);
      if (record === undefined) addStatic(name, url, true);
      else {
        if (retiring.delete(record)) records.setAdmin(record, { mode: 'ready' });
        records.moveStatic(record, url);
      }
    }
    const names = new Set(wanted.map(({ name }) => `static-${name}`));
    for (const record of records.all()) {
      if (!record.configured || names.has(record.id) || retiring.has(record)) continue;
      takeOut(record, config.DRAIN_SECONDS * 1000);
    }
    retire();
  };
  for (const upstream of config.UPSTREAMS) addStatic(upstream.name, upstream.url, true);
  for (const upstream of ledger.statics.all()) {
    // One that was added by hand and is configured now is the configured one.
    if (records.get(`static-${upstream.name}`) === undefined) records.addStatic(upstream, false);
  }

  ledger.idempotency.removeOlderThan(clock.now() - timing.idempotencyMs);
  prober.start();
  availability.start();
  reconciler.start();
  events.emit({
    level: 'info',
    kind: 'system',
    message: `started with ${strategy.name} (${strategy.source}) and ${counted(providers.size, 'marketplace')}`,
    keep: false,
  });
  flush();
  /** What a provider failed with when it was to list its instances is an event by now; anything else is a bug, and is thrown on. */
  const toldOf = (error: unknown) => void failureOf(error);
  // The first round at once, in the background: a provider that is down must not keep the rest from starting.
  for (const name of providers.keys()) {
    void reconciler.run(name).catch((error: unknown) => {
      if (!disposed) toldOf(error);
    });
  }

  // --- commands ---
  const recordOf = (id: string): FleetRecord => {
    const record = records.get(id);
    if (record !== undefined && record.lifecycle.phase !== 'ended') return record;
    const rental = ledger.rentals.byInstance(id);
    if (rental?.state !== 'ended') throw new AppError('not_found', `no instance is called ${id}`);
    const ago = rental.endedAt === null ? '' : ` at ${new Date(rental.endedAt).toISOString()}`;
    throw new AppError('conflict', `${id} has ended${ago}${rental.reason === null ? '' : `: ${rental.reason}`}`);
  };
  const providerOf = (name: ProviderName): Provider => {
    const provider = providers.get(name);
    if (provider === undefined) throw new AppError('unsupported', `${name} is not configured`);
    return provider;
  };
  const bounded = (signal?: AbortSignal) =>
    AbortSignal.any([AbortSignal.timeout(timing.callTimeoutMs), ...(signal ? [signal] : [])]);
  const command = <T>(work: () => T): T => {
    const result = work();
    flush();
    return result;
  };
  const settle = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } finally {
      if (!disposed) flush();
    }
  };
  const drainMs = (asked: { now?: boolean; deadlineMs?: number } | undefined): number =>
    asked?.now ? 0 : (asked?.deadlineMs ?? config.DRAIN_SECONDS * 1000);

  const switchStrategy = (name: StrategyName, source: Snapshot['strategy']['source'], by: string): StrategyName => {
    const previous = table.strategy;
    table.strategy = name;
    if (previous !== name) {
      strategy = { name, source, since: clock.now() };
      const until =
        setting === null || setting === name ? '' : `; LB_STRATEGY brings ${setting} back at the next start`;
      events.emit({ level: 'info', kind: 'strategy', message: `strategy ${previous} -> ${name} by ${by}${until}` });
    }
    return previous;
  };

  let disposed = false;
  const dispose = async () => {
    if (disposed) return;
    disposed = true;
    for (const timer of timers) clearInterval(timer);
    await reserver.stop(shutdownGraceMs);
    await destroyer.stop();
    availability.stop();
    reconciler.stop();
    await prober.stop();
    // The last picture is true: whoever ends the program says from it what goes on costing money.
    flush();
    ledger.close();
  };

  let askDecisions = async (): Promise<readonly Decision[]> => [];
  const app: LocalApp = {
    state: { get: store.get, subscribe: store.subscribe },
    events: { recent: events.recent, subscribe: (listener: (event: FleetEvent) => void) => events.subscribe(listener) },
    keys,
    dataPlane: {
      table,
      directory: records.directory,
      onDirectory: records.onDirectory,
      report(report) {
        reports.take(report);
        tellAccessLog();
      },
      traceFrom(decisions) {
        askDecisions = decisions;
      },
      reports: reports.latest,
    },
    stopRenting: () => reserver.stop(shutdownGraceMs),
    reconfigure(next) {
      const before = config;
      config = next;
      Object.assign(timing, timingOf(next), options.timing);
      balancer.configure(healthSettingsOf(next));
      table.balancing = next.LB_ENABLED;
      if (next.UPSTREAM_MAX_IN_FLIGHT !== before.UPSTREAM_MAX_IN_FLIGHT) {
        for (const { ref } of records.all()) if (ref !== null) table.setCeiling(ref, next.UPSTREAM_MAX_IN_FLIGHT);
      }
      // Only a variable that changed outranks what was chosen meanwhile.
      const name = next.LB_STRATEGY;
      if (name !== undefined && name !== before.LB_STRATEGY) switchStrategy(name, 'LB_STRATEGY', 'LB_STRATEGY');
      changeStatics(next.UPSTREAMS);
      command(() => changed());
    },
    announce(next) {
      urls = next;
      command(() => changed());
    },

    async setStrategy(name, by) {
      if (!strategyNames.includes(name)) {
        throw invalidField('strategy', `got ${name}, accepts one of ${strategyNames.join(', ')}`);
      }
      return command(() => {
        ledger.settings.set('strategy', name);
        return { strategy: name, previous: switchStrategy(name, 'saved', by) };
      });
    },

    offers: (filter, signal) => availability.offers(filter, signal),
    plan: (request, signal) => reserver.plan(request, signal),
    planBatch: (request, signal) => reserver.planBatch(request, signal),
    reserve: (request, reserveOptions) => settle(reserver.reserve(request, reserveOptions)),
    batch: (request, batchOptions) => settle(reserver.batch(request, batchOptions)),
    async rentOffer(provider, offerId, instanceConfig, rentOptions) {
      providerOf(provider);
      return settle(reserver.rentOffer(provider, offerId, instanceConfig, rentOptions));
    },
    async reservationOf(idempotencyKey) {
      const reservation = reserver.byKey(idempotencyKey);
      return reservation === undefined ? null : reserver.view(reservation);
    },
    cancel: (idempotencyKey, cancelOptions) => settle(reserver.cancel(idempotencyKey, cancelOptions?.keep ?? false)),
    releaseReservation: (id, releaseOptions) => settle(reserver.release(id, drainMs(releaseOptions))),

    async destroy(id, destroyOptions) {
      const record = records.get(id);
      if (record === undefined || record.lifecycle.phase === 'ended') {
        const rental = ledger.rentals.byInstance(id);
        if (rental?.state === 'ended') {
          // Should the provider list it again, it is not taken back.
          if (record !== undefined && rental.wanted) records.patch(record, { wanted: false });
          else if (rental.wanted) ledger.rentals.update(rental.label, { wanted: false });
          return { id, status: 'gone' };
        }
        throw new AppError('not_found', `no instance is called ${id}`);
      }
      if (record.rental === null) {
        throw new AppError('unsupported', `${id} is not rented: remove it as an upstream instead`);
      }
      if (record.rental.contract === null && record.rental.state !== 'destroying') {
        if (reserver.underWay(record.rental.label)) {
          throw new AppError('conflict', `${id} is still being rented; try again in a moment`);
        }
        // Its outcome is unknown: should it turn up, it is destroyed.
        records.patch(record, { wanted: false, reason: 'destroyed by command before its contract was known' });
        flush();
        return { id, status: 'destroying' };
      }
      const ms = drainMs(destroyOptions);
      const before = record.rental.state;
      destroyer.request(record, 'by command', ms);
      if (before !== 'destroying') {
        events.emit({ level: 'info', kind: 'destroy', subject: id, message: `${id} is to be destroyed` });
      }
      flush();
      const confirmed = await settle(destroyer.settled(record, timing.destroyWaitMs));
      return { id, status: confirmed ? 'destroyed' : 'destroying' };
    },

    async drain(id, drainOptions) {
      const record = recordOf(id);
      if (record.lifecycle.phase === 'destroying') throw new AppError('conflict', `${id} is being destroyed`);
      const deadlineAt = clock.now() + (drainOptions?.deadlineMs ?? config.DRAIN_SECONDS * 1000);
      return command(() => {
        if (record.admin.mode !== 'drain') {
          events.emit({ level: 'info', kind: 'drain', subject: id, message: `${id} drains: nothing new goes to it` });
        }
        records.setAdmin(record, { mode: 'drain', deadlineAt });
        return viewOf(record);
      });
    },
    async resume(id) {
      const record = recordOf(id);
      if (retiring.has(record)) throw new AppError('conflict', `${id} is being removed`);
      if (record.lifecycle.phase === 'destroying') throw new AppError('conflict', `${id} is being destroyed`);
      return command(() => {
        if (record.admin.mode !== 'ready') {
          records.setAdmin(record, { mode: 'ready' });
          events.emit({ level: 'info', kind: 'drain', subject: id, message: `${id} takes requests again` });
        }
        return viewOf(record);
      });
    },
    async setWeight(id, weight) {
      const record = recordOf(id);
      if (weight !== null && !(Number.isFinite(weight) && weight >= 0 && weight <= 1000)) {
        throw invalidField('weight', `got ${weight}, accepts a number from 0 to 1000`);
      }
      return command(() => {
        records.setWeight(record, weight);
        events.emit({
          level: 'info',
          kind: 'upstream',
          subject: id,
          message: `${id}: weight ${record.weight} (${record.weightSource})`,
        });
        return viewOf(record);
      });
    },
    async extend(id, hours) {
      const record = recordOf(id);
      if (record.rental === null) throw new AppError('unsupported', `${id} is not rented`);
      if (!Number.isInteger(hours) || hours < 1 || hours > 8760) {
        throw invalidField('hours', `got ${hours}, accepts a whole number from 1 to 8760`);
      }
      await settle(extender.extend(record, providerOf(record.provider), hours));
      await reconciler.run(record.provider).catch(toldOf);
      return command(() => viewOf(record));
    },
    async logs(id, logsOptions, signal) {
      const record = recordOf(id);
      const contract = record.rental?.contract;
      if (contract == null) throw new AppError('unsupported', `${id} has no logs that could be read from here`);
      const provider = providerOf(record.provider);
      if (provider.logs === undefined) throw new AppError('unsupported', `${record.provider} gives no logs`);
      try {
        return await provider.logs(contract, { tail: logsOptions?.tail ?? 100 }, bounded(signal));
      } catch (error) {
        if (signal?.aborted) throw error;
        throw appErrorOf(record.provider, error);
      }
    },
    async adopt(providerName, contract) {
      const provider = providerOf(providerName);
      const free = () => {
        const ours = ledger.rentals.byContract(providerName, contract);
        if (ours === undefined) return;
        throw new AppError('conflict', `contract ${contract} is ours already (${ours.instanceId})`);
      };
      free();
      try {
        await reconciler.run(providerName);
      } catch (error) {
        throw appErrorOf(providerName, error);
      }
      free();
      const instance = reconciler.foreignInstance(providerName, contract);
      if (instance === undefined) throw new AppError('not_found', `${providerName} lists no contract ${contract}`);
      const rental: Rental = {
        label: `adopted:${providerName}:${contract}`,
        reservation: null,
        instanceId: unusedInstanceId(ledger, `${provider.prefix}-${contract}`),
        provider: providerName,
        offerId: '',
        contract,
        state: 'rented',
        wanted: true,
        gpuModel: instance.gpuModel,
        gpuCount: instance.gpuCount,
        vramGb: instance.vramGb,
        usdPerHour: instance.usdPerHour,
        limitUsdPerHour: null,
        priceSeen: true,
        diskUsdPerHour: instance.diskUsdPerHour ?? 0,
        prepaid: instance.expiresAt !== null,
        prepaidHours: null,
        location: instance.location,
        interruptible: instance.interruptible,
        origin: null,
        createdAt: clock.now(),
        settledAt: clock.now(),
        ran: false,
        billedFrom: null,
        diskFrom: null,
        expiresAt: instance.expiresAt,
        endedAt: null,
        reason: null,
      };
      ledger.rentals.insert(rental);
      const record = records.intended(rental);
      records.rented(record, contract);
      records.observed(record, instance);
      events.emit({
        level: 'ok',
        kind: 'rental',
        subject: record.id,
        message: `${record.id} adopted: contract ${contract} of ${providerName} is ours from now on`,
      });
      await reconciler.run(providerName).catch(toldOf);
      return command(() => viewOf(record));
    },
    async addUpstream(input) {
      if (!isBaseUrl(input.url)) {
        throw invalidField('url', 'accepts an http:// or https:// URL without user, password, query and fragment');
      }
      const url = input.url.replace(/\/+$/, '');
      const name = input.name ?? new URL(url).host.replace(/[^A-Za-z0-9.-]/g, '-');
      if (!/^[A-Za-z0-9._-]{1,64}$/.test(name)) {
        throw invalidField('name', 'accepts up to 64 letters, digits, dots, dashes and underscores');
      }
      return command(() => {
        const record = addStatic(name, url, false);
        ledger.statics.insert({ name, url, addedAt: clock.now() });
        events.emit({ level: 'info', kind: 'upstream', subject: record.id, message: `${record.id} added` });
        return viewOf(record);
      });
    },
    async removeUpstream(id, removeOptions) {
      const record = recordOf(id);
      if (record.rental !== null) throw new AppError('unsupported', `${id} is rented: destroy it instead`);
      if (record.configured) {
        throw new AppError('conflict', `${id} comes from UPSTREAMS: take it out there, or drain it`);
      }
      command(() => {
        ledger.statics.remove(id.slice('static-'.length));
        takeOut(record, removeOptions?.now === true ? 0 : config.DRAIN_SECONDS * 1000);
        retire();
      });
    },
    async decisions({ instance, limit = 100 } = {}) {
      const names = (decision: Decision) =>
        decision.winner === instance || decision.candidates.some((candidate) => candidate.id === instance);
      const all = (await askDecisions()).slice(0, keptDecisions);
      return (instance === undefined ? all : all.filter(names)).slice(0, limit);
    },
    requests: async (query = {}) => reports.requests(query),
    async refresh() {
      await settle(
        Promise.all([
          availability.refresh(),
          ...[...providers.keys()].map((name) => reconciler.run(name).catch(toldOf)),
        ]),
      );
    },
    [Symbol.asyncDispose]: dispose,
  };
  return app;
}
