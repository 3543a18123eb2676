import type * as z from 'zod';
import type { Offer } from '../core/domain.ts';
import type { Decision, FinishedRequest } from '../core/report.ts';
import type {
  BatchResult,
  CancelResult,
  FleetEvent,
  ForeignInstance,
  KeyView,
  OffersAnswer,
  ProviderView,
  ReservationView,
  ReservedItem,
  ReservePlan,
  ReserveResult,
  Snapshot,
  UpstreamView,
} from '../fleet/app.ts';
import type * as schemas from './schemas.ts';

/** What the fleet says, in the words of the wire. The return types come from the schemas, so the compiler holds them. */

/** "250ms". Below 10 ms one decimal is kept: a cache that answers in 0.4 ms is not "0ms". */
export function durationText(ms: number | null): string {
  if (ms === null) return '0ms';
  return `${ms >= 10 ? Math.round(ms) : Math.round(ms * 10) / 10}ms`;
}

/** RFC 3339 in UTC. */
export function instantText(at: number): string {
  return new Date(at).toISOString();
}

const instantOrNull = (at: number | null) => (at === null ? null : instantText(at));
/** Prices are sums of provider figures: without rounding they end in binary noise. */
const money = (usd: number) => Math.round(usd * 1e6) / 1e6;
const moneyOrNull = (usd: number | null) => (usd === null ? null : money(usd));
/** Rounded to a microsecond. */
const millis = (ms: number) => Math.round(ms * 1000) / 1000;
const millisOrNull = (ms: number | null) => (ms === null ? null : millis(ms));
const clampFraction = (value: number) => Math.min(1, Math.max(0, value));

export function loadWire(view: UpstreamView): z.output<typeof schemas.load> {
  return {
    instance_id: view.id,
    provider: view.provider,
    active_connections: view.active,
    total_connections: view.total,
    avg_response_time: durationText(view.avgMs),
    last_response_time: durationText(view.lastMs),
    weight: view.weight,
    last_used: instantOrNull(view.lastUsedAt),
    avg_response_time_ms: millisOrNull(view.avgMs),
    last_response_time_ms: millisOrNull(view.lastMs),
  };
}

/** Upstreams that the load table tracks: everything from the moment it is rented until it is gone. */
export function tracked(snapshot: Snapshot): readonly UpstreamView[] {
  return snapshot.upstreams.filter(({ lifecycle: { phase } }) => phase !== 'reserving' && phase !== 'ended');
}

export function loadsWire(snapshot: Snapshot): z.output<typeof schemas.loadsAnswer> {
  const views = tracked(snapshot);
  return {
    strategy: snapshot.strategy.name,
    count: views.length,
    loads: Object.fromEntries(views.map((view) => [view.id, loadWire(view)])),
  };
}

export function offerWire(offer: Offer): z.output<typeof schemas.offer> {
  return {
    id: offer.id,
    provider: offer.provider,
    gpu_name: offer.gpuModel,
    gpu_count: offer.gpuCount,
    vram_gb: offer.vramGb,
    price_per_hour: money(offer.usdPerHour),
    location: offer.location,
    country_code: offer.countryCode,
    available: offer.available,
    reliability: offer.reliability === null ? null : clampFraction(offer.reliability),
    verified: offer.verified,
    min_bid: moneyOrNull(offer.minBidUsdPerHour),
    prepaid_hours: offer.prepaidHours,
    disk_gb: offer.diskGb,
    storage:
      offer.storage === null
        ? null
        : { usd_per_gb_hour: offer.storage.usdPerGbHour, priced_gb: offer.storage.pricedGb },
  };
}

export function offersWire(
  answer: OffersAnswer,
  provider: z.output<typeof schemas.offersAnswer>['provider'],
): z.output<typeof schemas.offersAnswer> {
  return {
    instances: answer.offers.map(offerWire),
    count: answer.offers.length,
    provider,
    errors: answer.errors.map((error) => ({
      provider: error.provider,
      code: error.code,
      message: error.message,
      stale_ms: millisOrNull(error.staleMs),
    })),
    more: [...answer.more],
  };
}

export function rentedWire(item: ReservedItem): z.output<typeof schemas.rentedAnswer> {
  return {
    contract_id: item.contractId,
    provider: item.provider,
    instance_id: item.instanceId,
    gpu_model: item.gpuModel,
    gpu_count: item.gpuCount,
    vram: item.vramGb,
    price: money(item.usdPerHour),
  };
}

export function reserveWire(result: ReserveResult): z.output<typeof schemas.reserveAnswer> {
  return {
    reserved: result.reserved.map((item) => ({
      instance_id: item.instanceId,
      contract_id: item.contractId,
      provider: item.provider,
      gpu_model: item.gpuModel,
      vram: item.vramGb,
      price: money(item.usdPerHour),
      gpu_count: item.gpuCount,
    })),
    count: result.count,
    requested: result.requested,
    errors: [...result.errors],
    reservation_id: result.reservation,
  };
}

export function planWire(plan: ReservePlan): z.output<typeof schemas.planAnswer> {
  return {
    instances: plan.offers.map(offerWire),
    count: plan.count,
    requested: plan.requested,
    price_per_hour: money(plan.usdPerHour),
    prepaid_usd: money(plan.prepaidUsd),
    errors: [...plan.errors],
  };
}

export function batchWire(result: BatchResult): z.output<typeof schemas.batchAnswer> {
  return {
    vastai_instances: [...result.vast],
    ionet_instances: [...result.ionet],
    total_created: result.vast.length + result.ionet.length,
    errors: [...result.errors],
    reservation_id: result.reservation,
  };
}

export function upstreamWire(view: UpstreamView): z.output<typeof schemas.upstream> {
  const { lifecycle, admin, health } = view;
  return {
    instance_id: view.id,
    provider: view.provider,
    contract_id: view.contract,
    reservation_id: view.reservation,
    state: view.state,
    reason: view.reason,
    eligible: view.eligible,
    lifecycle: {
      phase: lifecycle.phase,
      since: instantText(lifecycle.at),
      detail:
        lifecycle.phase === 'booting' || lifecycle.phase === 'halted' || lifecycle.phase === 'destroying'
          ? lifecycle.detail
          : lifecycle.phase === 'ended'
            ? lifecycle.reason
            : null,
    },
    admin: { mode: admin.mode, deadline: admin.mode === 'drain' ? instantOrNull(admin.deadlineAt) : null },
    health: {
      state: health.state,
      until: health.state === 'ejected' || health.state === 'backoff' ? instantText(health.untilAt) : null,
      times: health.state === 'ejected' ? health.times : 0,
      why: health.state === 'ejected' || health.state === 'backoff' ? health.why : '',
    },
    origin: withoutCredentials(view.origin),
    gpu_model: view.gpuModel,
    gpu_count: view.gpuCount,
    vram_gb: view.vramGb,
    price_per_hour: money(view.usdPerHour),
    location: view.location,
    models: view.models === null ? null : [...view.models],
    interruptible: view.interruptible,
    started_at: instantOrNull(view.startedAt),
    expires_at: instantOrNull(view.expiresAt),
    spent_usd: money(view.spentUsd),
    weight: view.weight,
    weight_source: view.weightSource,
    configured: view.configured,
    max_in_flight: view.ceiling,
    requests_per_second: view.rps,
    error_rate: clampFraction(view.errorRate),
    share: clampFraction(view.share),
    p50_ms: millisOrNull(view.p50Ms),
    p95_ms: millisOrNull(view.p95Ms),
    p99_ms: millisOrNull(view.p99Ms),
    endings: { ...view.endings },
    load: loadWire(view),
  };
}

/** A URL may carry `user:password@`; what is shown never does. */
export function withoutCredentials(origin: string | null): string | null {
  return origin === null ? null : origin.replace(/^([a-z]+:\/\/)[^/@]*@/i, '$1');
}

export function foreignWire(instance: ForeignInstance): z.output<typeof schemas.foreign> {
  return {
    provider: instance.provider,
    contract_id: instance.contract,
    label: instance.label,
    phase: instance.phase,
    gpu_model: instance.gpuModel,
    gpu_count: instance.gpuCount,
    price_per_hour: money(instance.usdPerHour),
  };
}

export function fleetWire(snapshot: Snapshot): z.output<typeof schemas.fleetAnswer> {
  return {
    upstreams: snapshot.upstreams.map(upstreamWire),
    count: snapshot.upstreams.length,
    foreign: snapshot.foreign.map(foreignWire),
  };
}

export function providerWire(view: ProviderView): z.output<typeof schemas.provider> {
  return {
    provider: view.name,
    status: view.status,
    available: view.available,
    more: view.more,
    offers: view.offers,
    min_price: moneyOrNull(view.minUsdPerHour),
    max_price: moneyOrNull(view.maxUsdPerHour),
    cheapest: view.cheapest.map((row) => ({
      gpu_model: row.gpuModel,
      vram_gb: row.vramGb,
      price_per_gpu_hour: money(row.usdPerGpuHour),
      available: row.available,
    })),
    rented: view.rented,
    price_per_hour: money(view.usdPerHour),
    credit_usd: moneyOrNull(view.creditUsd),
    refreshed_at: instantOrNull(view.refreshedAt),
    next_refresh_at: instantOrNull(view.nextRefreshAt),
    latency_ms: millisOrNull(view.latencyMs),
    last_error: view.lastError === null ? null : { ...view.lastError, at: instantText(view.lastError.at) },
  };
}

export function providersWire(snapshot: Snapshot): z.output<typeof schemas.providersAnswer> {
  return {
    providers: snapshot.providers.map(providerWire),
    total_available: snapshot.providers.reduce((sum, provider) => sum + provider.available, 0),
  };
}

export function reservationWire(view: ReservationView): z.output<typeof schemas.reservation> {
  return {
    reservation_id: view.id,
    created_at: instantText(view.createdAt),
    by: view.by,
    requested: view.requested,
    state: view.state,
    instances: [...view.instances],
    ended: [...view.ended],
    price_per_hour: money(view.usdPerHour),
    errors: [...view.errors],
  };
}

export function cancelWire(result: CancelResult): z.output<typeof schemas.cancelAnswer> {
  return {
    reservation_id: result.reservation,
    kept: [...result.kept],
    released: [...result.released],
    pending: [...result.pending],
  };
}

export function costWire(snapshot: Snapshot): z.output<typeof schemas.costAnswer> {
  const { cost } = snapshot;
  return {
    usd_per_hour: money(cost.usdPerHour),
    spent_usd: money(cost.spentUsd),
    spent_today_usd: money(cost.spentTodayUsd),
    max_usd_per_hour: moneyOrNull(cost.maxUsdPerHour),
    instances: snapshot.upstreams
      .filter((view) => view.provider !== 'static')
      .map((view) => ({
        instance_id: view.id,
        provider: view.provider,
        usd_per_hour: view.lifecycle.phase === 'ended' ? 0 : money(view.usdPerHour),
        spent_usd: money(view.spentUsd),
      })),
  };
}

export function decisionWire(decision: Decision): z.output<typeof schemas.decision> {
  return {
    at: instantText(decision.at),
    strategy: decision.strategy,
    winner: decision.winner,
    candidates: decision.candidates.map((candidate) => ({ ...candidate })),
    ending: decision.ending,
    ttfb_ms: millisOrNull(decision.ttfbMs),
    total_ms: millisOrNull(decision.totalMs),
  };
}

export function requestWire(request: FinishedRequest): z.output<typeof schemas.finishedRequest> {
  return {
    at: instantText(request.at),
    id: request.id,
    method: request.method,
    path: request.path,
    status: request.status,
    cause: request.cause,
    instance_id: request.instance,
    attempts: request.attempts,
    queue_ms: millis(request.queueMs),
    ttfb_ms: millisOrNull(request.ttfbMs),
    total_ms: millis(request.totalMs),
    bytes_out: request.bytesOut,
    model: request.model,
  };
}

export function eventWire(event: FleetEvent): z.output<typeof schemas.event> {
  return { ...event, at: instantText(event.at) };
}

export function keyWire(view: KeyView): z.output<typeof schemas.key> {
  return {
    id: view.id,
    name: view.name,
    scope: view.scope,
    created_at: instantText(view.createdAt),
    last_used_at: instantOrNull(view.lastUsedAt),
    expires_at: instantOrNull(view.expiresAt),
    revoked_at: instantOrNull(view.revokedAt),
    requests_per_minute: view.requestsPerMinute,
    max_concurrent: view.maxConcurrent,
  };
}
