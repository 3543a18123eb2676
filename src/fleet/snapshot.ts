import type { Health, ProviderName } from '../core/domain.ts';
import { endings } from '../core/domain.ts';
import type { LoadRow } from '../core/load-table.ts';
import { ttfbBoundsMs } from '../core/load-table.ts';
import { counted } from '../core/words.ts';
import type { ProviderView, Snapshot, UpstreamView } from './app.ts';
import type { Market } from './availability.ts';
import type { FleetRecord } from './records.ts';
import { searchText } from './search-text.ts';
import { usdPerHourNow } from './spend.ts';
import { createMeter, type Meter, round } from './traffic.ts';

const noEndings = Object.fromEntries(endings.map((ending) => [ending, 0])) as UpstreamView['endings'];
const noHistogram: readonly number[] = Array.from({ length: ttfbBoundsMs.length + 1 }, () => 0);
const noMeter = createMeter();

type ViewParts = {
  record: FleetRecord;
  row: LoadRow | null;
  meter: Meter | undefined;
  /** Picks of the pool in the last minute. */
  poolRecent: number;
  spentUsd: number;
  /** While nobody knows whether it was rented: until it counts as never rented; else null. */
  searchLeftMs: number | null;
  /** Wall time minus monotonic time, taken once: a fresh difference would flicker by the clocks' resolution. */
  wallOffsetMs: number;
};

/** Makes views of upstreams, each the same object until something in it changed. */
export function createUpstreamViews(): (parts: ViewParts) => UpstreamView {
  const shown = new WeakMap<FleetRecord, { of: readonly unknown[]; view: UpstreamView }>();
  return (parts) => {
    const { record, row } = parts;
    const { rental, lifecycle, admin, origin, models, weight, weightSource } = record;
    const rates = (parts.meter ?? noMeter).rates();
    const share = parts.poolRecent === 0 ? 0 : round(rates.recent / parts.poolRecent, 4);
    const spentUsd = round(parts.spentUsd, 3);
    const of = [
      row,
      rates,
      share,
      spentUsd,
      parts.wallOffsetMs,
      parts.searchLeftMs,
      rental,
      lifecycle,
      admin,
      origin,
      models,
      weight,
      weightSource,
    ];
    const before = shown.get(record);
    if (before?.of.every((part, index) => part === of[index])) return before.view;
    // Kept here and not only in the whole snapshot, so that what is published is this very object.
    const fresh = upstreamView(parts, share, spentUsd);
    const view = before === undefined ? fresh : keep(before.view, fresh);
    shown.set(record, { of, view });
    return view;
  };
}

/** Everything about one upstream, from its record, its row and its meter. */
function upstreamView(parts: ViewParts, share: number, spentUsd: number): UpstreamView {
  const { record, row } = parts;
  const { rental, lifecycle, admin } = record;
  const rates = (parts.meter ?? noMeter).rates();
  const wall = (monotonic: number | null): number | null =>
    monotonic === null ? null : Math.round(monotonic + parts.wallOffsetMs);
  const health = healthOf(row, wall);
  const below = row !== null && (row.ceiling === 0 || row.active < Math.max(1, row.ceiling * row.slowStart));
  const { state, reason } = stateOf(record, row, health, parts.searchLeftMs);
  return {
    id: record.id,
    provider: record.provider,
    contract: rental?.contract ?? null,
    reservation: rental?.reservation ?? null,
    lifecycle,
    admin,
    health,
    eligible: (row?.inService ?? false) && below,
    state,
    reason,
    origin: record.origin,
    gpuModel: rental?.gpuModel ?? '-',
    gpuCount: rental?.gpuCount ?? 0,
    vramGb: rental?.vramGb ?? 0,
    usdPerHour: rental === null ? 0 : usdPerHourNow(rental, lifecycle.phase),
    location: rental?.location ?? null,
    models: record.models,
    interruptible: rental?.interruptible ?? false,
    startedAt: rental?.contract == null ? null : rental.settledAt,
    expiresAt: rental?.expiresAt ?? null,
    spentUsd,
    weight: record.weight,
    weightSource: record.weightSource,
    configured: record.configured,
    ceiling: row?.ceiling ?? 0,
    active: row?.active ?? 0,
    total: row?.total ?? 0,
    avgMs: row?.avgMs ?? null,
    lastMs: row?.lastMs ?? null,
    lastUsedAt: wall(row?.lastUsedMs ?? null),
    rps: rates.rps,
    errorRate: rates.errorRate,
    share,
    p50Ms: rates.p50Ms,
    p95Ms: rates.p95Ms,
    p99Ms: rates.p99Ms,
    trend: rates.trend,
    endings: row?.endings ?? noEndings,
    ttfbHistogram: row?.ttfbHistogram ?? noHistogram,
  };
}

function healthOf(row: LoadRow | null, wall: (monotonic: number | null) => number | null): Health {
  if (row === null) return { state: 'unknown' };
  switch (row.health) {
    case 'ejected':
      return { state: 'ejected', untilAt: wall(row.healthUntilMs) ?? 0, times: row.ejections, why: row.healthWhy };
    case 'backoff':
      return { state: 'backoff', untilAt: wall(row.healthUntilMs) ?? 0, why: row.healthWhy };
    default:
      return { state: row.health };
  }
}

/** One word, and one line that says why; the facts are judged from the outermost inwards. */
function stateOf(
  record: FleetRecord,
  row: LoadRow | null,
  health: Health,
  searchLeftMs: number | null,
): { state: string; reason: string } {
  const { lifecycle, admin } = record;
  switch (lifecycle.phase) {
    case 'ended':
      return { state: 'ENDED', reason: lifecycle.reason };
    case 'destroying':
      return { state: 'DESTROYING', reason: lifecycle.detail ?? '' };
    case 'reserving':
      if (record.rental === null || searchLeftMs === null) return { state: 'RESERVING', reason: 'renting' };
      return {
        state: record.rental.wanted ? 'RESERVING' : 'DESTROYING',
        reason: searchText(record.rental, searchLeftMs),
      };
    case 'booting':
      return { state: 'BOOT', reason: lifecycle.detail ?? '' };
    case 'halted':
      return { state: lifecycle.cause.toUpperCase(), reason: lifecycle.detail ?? '' };
    case 'running':
      break;
  }
  if (admin.mode === 'drain') {
    const open = row?.active ?? 0;
    return { state: 'DRAIN', reason: open === 0 ? 'drained' : `finishing ${counted(open, 'open request')}` };
  }
  const why = row?.healthWhy ?? '';
  switch (health.state) {
    case 'unknown':
      return { state: 'PROBE', reason: why === '' ? 'waiting for the first good probe' : why };
    case 'probation':
      return {
        state: 'PROBATION',
        reason: `answers its probes again; the next request decides${why === '' ? '' : ` (was out: ${why})`}`,
      };
    case 'backoff':
      return { state: 'BACKOFF', reason: health.why };
    case 'ejected':
      return { state: 'DOWN', reason: health.why };
    case 'up':
      return row !== null && row.slowStart < 1
        ? { state: 'SLOW', reason: `slow start, ${Math.round(row.slowStart * 100)} %` }
        : { state: 'OK', reason: '' };
  }
}

export function providerView(name: ProviderName, market: Market, rented: number, usdPerHour: number): ProviderView {
  const cheapest = new Map<string, { gpuModel: string; vramGb: number; usdPerGpuHour: number; available: number }>();
  let available = 0;
  let min: number | null = null;
  let max: number | null = null;
  for (const offer of market.offers) {
    available += offer.available;
    min = min === null ? offer.usdPerHour : Math.min(min, offer.usdPerHour);
    max = max === null ? offer.usdPerHour : Math.max(max, offer.usdPerHour);
    const usdPerGpuHour = offer.usdPerHour / Math.max(1, offer.gpuCount);
    const model = cheapest.get(offer.gpuModel);
    if (model === undefined) {
      cheapest.set(offer.gpuModel, {
        gpuModel: offer.gpuModel,
        vramGb: offer.vramGb,
        usdPerGpuHour,
        available: offer.available,
      });
    } else {
      model.available += offer.available;
      model.usdPerGpuHour = Math.min(model.usdPerGpuHour, usdPerGpuHour);
    }
  }
  return {
    name,
    status: market.failing ? 'error' : market.refreshedAt === null ? 'loading' : 'ok',
    available,
    more: market.more,
    offers: market.offers.length,
    minUsdPerHour: min,
    maxUsdPerHour: max,
    cheapest: [...cheapest.values()].sort((a, b) => a.usdPerGpuHour - b.usdPerGpuHour),
    rented,
    usdPerHour,
    creditUsd: market.creditUsd,
    refreshedAt: market.refreshedAt,
    latencyMs: market.latencyMs,
    lastError: market.lastError,
    nextRefreshAt: market.nextRefreshAt,
  };
}

/** Holder of the present snapshot: builds at most once in `intervalMs`, and keeps every part that did not change. */
export interface SnapshotStore {
  get(): Snapshot;
  subscribe(listener: () => void): () => void;
  /** Builds now: a command's effect is in the next `get`. */
  flush(): void;
}

/** `build` makes the parts anew; version and time are set here. */
export function createSnapshotStore(build: () => Omit<Snapshot, 'version' | 'at'>, now: () => number): SnapshotStore {
  const listeners = new Set<() => void>();
  let current: Snapshot = { version: 1, at: now(), ...build() };
  return {
    get: () => current,
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    flush() {
      const { version, at: _, ...before } = current;
      const after = keep(before, build());
      if (after === before) return;
      current = { version: version + 1, at: now(), ...after };
      for (const listener of listeners) listener();
    },
  };
}

/** `next`, with every part that equals the same part of `before` replaced by that very part. Plain data only. */
export function keep<T>(before: T, next: T): T {
  if (Object.is(before, next)) return before;
  if (typeof before !== 'object' || typeof next !== 'object' || before === null || next === null) return next;
  if (Array.isArray(before) && Array.isArray(next)) {
    // Views are matched by id, so that one that joins does not make all the others new.
    const byId = new Map<unknown, unknown>();
    for (const item of before) {
      const id = idOf(item);
      if (id !== undefined) byId.set(id, item);
    }
    let same = before.length === next.length;
    let asNext = true;
    const merged = next.map((item: unknown, index) => {
      const id = idOf(item);
      const other = id === undefined ? before[index] : byId.get(id);
      const kept = keep(other, item);
      if (kept !== before[index]) same = false;
      if (kept !== item) asNext = false;
      return kept;
    });
    return same ? before : asNext ? next : (merged as T);
  }
  if (Array.isArray(before) !== Array.isArray(next)) return next;
  const a = before as Record<string, unknown>;
  const b = next as Record<string, unknown>;
  const names = Object.keys(b);
  let same = names.length === Object.keys(a).length;
  let asNext = true;
  const merged: Record<string, unknown> = {};
  for (const name of names) {
    merged[name] = keep(a[name], b[name]);
    if (merged[name] !== a[name] || !(name in a)) same = false;
    if (merged[name] !== b[name]) asNext = false;
  }
  return same ? before : asNext ? next : (merged as T);
}

function idOf(item: unknown): unknown {
  return typeof item === 'object' && item !== null && 'id' in item ? item.id : undefined;
}

/** Seen only by its reader: which rows became ejected, recovered or ready since the last look. */
export type HealthChange = Readonly<{ kind: 'ejected' | 'recovered' | 'ready'; why: string }>;

export function healthChange(before: LoadRow | null, after: LoadRow): HealthChange | null {
  if (after.health === 'ejected' && (before?.health !== 'ejected' || after.ejections > before.ejections)) {
    return { kind: 'ejected', why: after.healthWhy };
  }
  if (after.health === 'up' && before !== null) {
    if (before.health === 'ejected' || before.health === 'probation') return { kind: 'recovered', why: '' };
    if (before.health === 'unknown') return { kind: 'ready', why: '' };
  }
  return null;
}
