import * as z from 'zod';
import { endings, type OfferFilter, strategyNames } from '../core/domain.ts';
import { keptRequests } from '../core/report.ts';
import type { InstanceConfig, Snapshot } from '../fleet/app.ts';
import { marketplaceNames, providerNamed } from '../providers/names.ts';

/**
 * Every request and response body of the control plane. These schemas validate what comes in and make the OpenAPI
 * document, so the two cannot differ. Objects are strict on purpose: a misspelt filter of a paid call must not be
 * ignored. Names on the wire are snake_case.
 */

// --- words and figures ---

const providerNames = [...marketplaceNames.map((m) => m.name), 'static'] as const;
const providerWords = [...marketplaceNames.flatMap((m) => [m.name, ...m.aliases]), 'static'];

/** Whatever people call a provider ("vastai", "vast", "vast.ai") becomes its name. */
export const providerWord = z
  .string()
  .meta({ enum: providerWords, description: 'Provider, by name or alias' })
  .transform((word, context) => {
    const name = providerNamed(word);
    if (name === undefined) {
      context.addIssue({ code: 'invalid_value', values: providerWords, input: word });
      return z.NEVER;
    }
    return name;
  });
const providerName = z.enum(providerNames);
export const strategyName = z.enum(strategyNames).meta({ id: 'StrategyName' });
const instant = z.iso.datetime().meta({ description: 'RFC 3339, UTC' });
const count = z.int().min(0);
const ms = z.number().min(0).meta({ description: 'Milliseconds' });
const usd = z.number();
const fraction = z.number().min(0).max(1);
const idText = z.string().min(1).max(256);

// --- parameters ---

export const idParams = z.strictObject({ id: idText });
export const providerIdParams = z.strictObject({ provider: providerWord, id: idText });
export const loadQuery = z.strictObject({ instance_id: idText });
export const offersQuery = z.strictObject({
  provider: providerWord.optional(),
  min_vram: z.number().min(0).max(10_000).optional().meta({ description: 'GB of one GPU, nominal' }),
  max_price: z.number().positive().max(1_000_000).optional().meta({ description: 'USD per hour and instance' }),
  gpu_model: z.string().min(1).max(100).optional(),
  location: z.string().min(1).max(100).optional(),
  gpu_count: z.int().min(1).max(64).optional(),
  verified: z.boolean().optional(),
});
export const destroyQuery = z.strictObject({
  now: z.boolean().optional().meta({ description: 'true: do not drain first' }),
});
export const removeQuery = z.strictObject({
  now: z.boolean().optional().meta({ description: 'true: cut what is open' }),
});
export const logsQuery = z.strictObject({ tail: z.int().min(1).max(10_000).optional() });
export const decisionsQuery = z.strictObject({
  instance_id: idText.optional(),
  limit: z.int().min(1).max(1000).optional(),
});
export const requestsQuery = z.strictObject({
  instance_id: idText.optional(),
  slowest: z.boolean().optional(),
  limit: z.int().min(1).max(keptRequests).optional(),
});
export const eventsQuery = z.strictObject({
  last_event_id: z
    .int()
    .min(0)
    .optional()
    .meta({ description: 'As the Last-Event-ID header, for clients that cannot set it; 0: all that are kept' }),
});

// --- request bodies ---

export const setStrategyBody = z.strictObject({ strategy: strategyName }).meta({ id: 'SetStrategy' });

/** Filters of an offer search. */
export const filters = z
  .strictObject({
    min_vram: z.number().min(0).max(10_000).optional().meta({ description: 'GB of one GPU, nominal' }),
    max_price: z.number().positive().max(1_000_000).optional().meta({ description: 'USD per hour and instance' }),
    gpu_model: z.string().min(1).max(100).optional(),
    location: z.string().min(1).max(100).optional(),
    provider: providerWord.optional(),
    gpu_count: z.int().min(1).max(16).optional().meta({ description: 'GPUs of each instance' }),
    verified: z.boolean().optional(),
  })
  .meta({ id: 'Filters' });

const envName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, { error: 'a name of letters, digits and _' });

/** What to start on a rented instance. */
export const instanceConfig = z
  .strictObject({
    image: z
      .string()
      .min(1)
      .max(512)
      .regex(/^\S+$/, { error: 'an image name without blanks' })
      .optional()
      .meta({ description: 'Container image', examples: ['nvidia/cuda:12.0.0-base-ubuntu22.04'] }),
    disk_gb: z.int().min(8).max(10_000).optional(),
    env: z.record(envName, z.string().max(16_384)).optional(),
    onstart: z.string().max(65_536).optional().meta({ description: 'Script run when the container starts' }),
    args: z.array(z.string().max(4096)).max(256).optional(),
    ports: z
      .array(z.int().min(1).max(65_535))
      .min(1)
      .max(32)
      .optional()
      .meta({ description: 'Container ports to publish; the first one serves HTTP' }),
    max_bid: z
      .number()
      .positive()
      .max(1_000_000)
      .optional()
      .meta({ description: 'Interruptible instance at this bid, USD per hour' }),
    duration_hours: z.int().min(1).max(8760).optional().meta({ description: 'Prepaid hours where time is sold' }),
  })
  .meta({ id: 'InstanceConfig' });

const maxTotalPrice = z.number().positive().max(1_000_000).optional().meta({
  description: 'USD per hour of all of it together, by the prices of the offers; what was confirmed',
});
const idempotencyKey = z
  .string()
  .regex(/^[\x21-\x7e]{1,255}$/)
  .meta({ description: 'The Idempotency-Key of a request that rents' });

export const reserveBody = z
  .strictObject({
    count: z.int().min(1).max(16).meta({ description: 'GPUs' }),
    filters: filters.optional(),
    config: instanceConfig.optional(),
    max_total_price: maxTotalPrice,
    all_or_nothing: z.boolean().optional().meta({ description: 'true: anything short is rolled back, answer 409' }),
  })
  .meta({
    id: 'Reserve',
    examples: [
      {
        count: 8,
        filters: { min_vram: 24, max_price: 2 },
        config: { image: 'nvidia/cuda:12.0.0-base-ubuntu22.04' },
      },
    ],
  });

const batchCount = z.int().min(0).max(8);
export const batchBody = z
  .strictObject({
    vastai_count: batchCount.optional(),
    ionet_count: batchCount.optional(),
    filters: filters.optional(),
    config: instanceConfig.optional(),
    max_total_price: maxTotalPrice,
  })
  .meta({ id: 'Batch' });
export const rentBody = instanceConfig
  .extend({
    max_price: z
      .number()
      .positive()
      .max(1_000_000)
      .optional()
      .meta({ description: 'USD per hour; refused when it costs more by now' }),
  })
  .meta({ id: 'Rent' });
export const cancelBody = z
  .strictObject({
    idempotency_key: idempotencyKey,
    keep: z.boolean().optional().meta({ description: 'true: what is rented is kept; otherwise it is given back' }),
  })
  .meta({ id: 'Cancel' });
export const reservationsQuery = z.strictObject({ idempotency_key: idempotencyKey.optional() });

export const drainBody = z
  .strictObject({ deadline_seconds: z.number().min(0).max(86_400).optional() })
  .meta({ id: 'Drain' });
export const weightBody = z
  .strictObject({
    weight: z.number().min(0).max(1000).nullable().meta({ description: 'null gives the weight back to the formula' }),
  })
  .meta({ id: 'SetWeight' });
export const extendBody = z.strictObject({ hours: z.int().min(1).max(8760) }).meta({ id: 'Extend' });
export const adoptBody = z
  .strictObject({ provider: providerWord, contract_id: idText })
  .meta({ id: 'Adopt', description: 'An instance of the account that was not rented by this server' });
export const addUpstreamBody = z
  .strictObject({
    name: z
      .string()
      .regex(/^[A-Za-z0-9._-]{1,64}$/, { error: '1 to 64 letters, digits, dots, dashes and underscores' })
      .optional(),
    url: z
      .string()
      .max(2048)
      .meta({ format: 'uri', examples: ['http://127.0.0.1:8000'] }),
  })
  .meta({ id: 'AddUpstream' });
export const createKeyBody = z
  .strictObject({
    name: z.string().min(1).max(100),
    scope: z.enum(['admin', 'read', 'proxy']),
    expires_at: z.iso.datetime({ offset: true }).nullable().optional().meta({ description: 'RFC 3339, in the future' }),
    requests_per_minute: z.int().min(1).max(1_000_000).nullable().optional(),
    max_concurrent: z.int().min(1).max(100_000).nullable().optional(),
  })
  .meta({ id: 'CreateKey' });

/** `filters` on the wire → the filter of the core. */
export function toOfferFilter(wire: z.output<typeof filters> | undefined): OfferFilter {
  return {
    minVramGb: wire?.min_vram,
    maxUsdPerHour: wire?.max_price,
    gpuModel: wire?.gpu_model,
    location: wire?.location,
    provider: wire?.provider,
    gpuCount: wire?.gpu_count,
    verified: wire?.verified,
  };
}

/** `config` on the wire → what the fleet takes. */
export function toInstanceConfig(wire: z.output<typeof instanceConfig> | undefined): InstanceConfig {
  return {
    image: wire?.image,
    diskGb: wire?.disk_gb,
    env: wire?.env,
    onstart: wire?.onstart,
    args: wire?.args,
    ports: wire?.ports,
    maxBidUsdPerHour: wire?.max_bid,
    durationHours: wire?.duration_hours,
  };
}

// --- response bodies ---

export const strategyAnswer = z.strictObject({ strategy: strategyName }).meta({ id: 'Strategy' });
export const strategySetAnswer = z
  .strictObject({ strategy: strategyName, message: z.string() })
  .meta({ id: 'StrategySet' });

export const load = z
  .strictObject({
    instance_id: z.string(),
    provider: providerName,
    active_connections: count,
    total_connections: count,
    avg_response_time: z.string().meta({ examples: ['250ms'] }),
    last_response_time: z.string().meta({ examples: ['245ms'] }),
    weight: z.number(),
    last_used: instant.nullable(),
    avg_response_time_ms: ms.nullable().meta({ description: 'null before the first answer' }),
    last_response_time_ms: ms.nullable().meta({ description: 'null before the first answer' }),
  })
  .meta({ id: 'Load' });
export const loadsAnswer = z
  .strictObject({ strategy: strategyName, count, loads: z.record(z.string(), load) })
  .meta({ id: 'Loads' });

export const offer = z
  .strictObject({
    id: z.string(),
    provider: providerName,
    gpu_name: z.string(),
    gpu_count: count,
    vram_gb: z.number(),
    price_per_hour: usd,
    location: z.string().nullable(),
    country_code: z.string().nullable(),
    available: count.meta({ description: 'Instances that this one offer can become' }),
    reliability: fraction.nullable(),
    verified: z.boolean().nullable(),
    min_bid: usd.nullable(),
    prepaid_hours: z.number().nullable(),
    disk_gb: z.number().nullable(),
    storage: z
      .strictObject({ usd_per_gb_hour: usd, priced_gb: z.number() })
      .nullable()
      .meta({ description: 'What disk costs, and how much of it is in the price; a bid is without disk' }),
  })
  .meta({ id: 'Offer' });
export const offersAnswer = z
  .strictObject({
    instances: z.array(offer),
    count,
    provider: z.enum(['all', ...providerNames]).meta({ description: 'The provider asked for, or all' }),
    errors: z.array(
      z.strictObject({
        provider: providerName,
        code: z.string(),
        message: z.string(),
        stale_ms: ms.nullable().meta({ description: 'Age of the data shown in its place' }),
      }),
    ),
    more: z.array(providerName).meta({ description: 'Providers that may have more that match than could be read' }),
  })
  .meta({ id: 'Offers' });

export const rentedAnswer = z
  .strictObject({
    contract_id: z.string(),
    provider: providerName,
    instance_id: z.string(),
    gpu_model: z.string(),
    gpu_count: count,
    vram: z.number(),
    price: usd,
  })
  .meta({ id: 'Rented' });
export const reserveAnswer = z
  .strictObject({
    reserved: z.array(
      z.strictObject({
        instance_id: z.string(),
        contract_id: z.string(),
        provider: providerName,
        gpu_model: z.string(),
        vram: z.number(),
        price: usd,
        gpu_count: count,
      }),
    ),
    count: count.meta({ description: 'GPUs reserved' }),
    requested: count,
    errors: z.array(z.string()),
    reservation_id: z.string(),
  })
  .meta({ id: 'Reserved' });
export const planAnswer = z
  .strictObject({
    instances: z.array(offer),
    count,
    requested: count,
    price_per_hour: usd,
    prepaid_usd: usd,
    errors: z.array(z.string()),
  })
  .meta({ id: 'Plan' });
export const batchAnswer = z
  .strictObject({
    vastai_instances: z.array(z.string()),
    ionet_instances: z.array(z.string()),
    total_created: count,
    errors: z.array(z.string()),
    reservation_id: z.string().nullable(),
  })
  .meta({ id: 'BatchCreated' });
export const destroyAnswer = z
  .strictObject({
    instance_id: z.string(),
    status: z.enum(['destroyed', 'destroying', 'gone']),
  })
  .meta({ id: 'Destroyed' });

export const upstream = z
  .strictObject({
    instance_id: z.string(),
    provider: providerName,
    contract_id: z.string().nullable(),
    reservation_id: z.string().nullable(),
    state: z
      .string()
      .meta({ description: 'One word: BOOT PROBE OK SLOW PROBATION BACKOFF DOWN OUTBID STOPPED FAILED DRAIN …' }),
    reason: z.string(),
    eligible: z.boolean(),
    lifecycle: z.strictObject({
      phase: z.enum(['reserving', 'booting', 'running', 'halted', 'destroying', 'ended']),
      since: instant,
      detail: z.string().nullable(),
    }),
    admin: z.strictObject({ mode: z.enum(['ready', 'drain']), deadline: instant.nullable() }),
    health: z.strictObject({
      state: z.enum(['unknown', 'up', 'probation', 'ejected', 'backoff']),
      until: instant.nullable(),
      times: count,
      why: z.string(),
    }),
    origin: z.string().nullable(),
    gpu_model: z.string(),
    gpu_count: count,
    vram_gb: z.number(),
    price_per_hour: usd,
    location: z.string().nullable(),
    models: z.array(z.string()).nullable(),
    interruptible: z.boolean(),
    started_at: instant.nullable(),
    expires_at: instant.nullable(),
    spent_usd: usd,
    weight: z.number(),
    weight_source: z.enum(['formula', 'operator']),
    configured: z.boolean().meta({ description: 'Named in UPSTREAMS: it is taken out there alone' }),
    max_in_flight: count.meta({ description: '0: no ceiling' }),
    requests_per_second: z.number(),
    error_rate: fraction,
    share: fraction,
    p50_ms: ms.nullable(),
    p95_ms: ms.nullable(),
    p99_ms: ms.nullable(),
    endings: z.record(z.enum(endings), count),
    load,
  })
  .meta({ id: 'Upstream' });
export const foreign = z
  .strictObject({
    provider: providerName,
    contract_id: z.string(),
    label: z.string().nullable(),
    phase: z.string(),
    gpu_model: z.string(),
    gpu_count: count,
    price_per_hour: usd,
  })
  .meta({ id: 'ForeignInstance', description: 'In the account, not rented by this server: never touched' });
export const fleetAnswer = z
  .strictObject({ upstreams: z.array(upstream), count, foreign: z.array(foreign) })
  .meta({ id: 'Fleet' });
export const logsAnswer = z.strictObject({ instance_id: z.string(), lines: z.array(z.string()) }).meta({ id: 'Logs' });

export const provider = z
  .strictObject({
    provider: providerName,
    status: z.enum(['ok', 'error', 'loading']),
    available: count.meta({ description: 'Instances rentable now' }),
    more: z.boolean().meta({ description: 'True when there may be more than could be read of the market' }),
    offers: count,
    min_price: usd.nullable(),
    max_price: usd.nullable(),
    cheapest: z.array(
      z.strictObject({ gpu_model: z.string(), vram_gb: z.number(), price_per_gpu_hour: usd, available: count }),
    ),
    rented: count,
    price_per_hour: usd.meta({ description: 'Of what is rented; of what does not run its disk alone' }),
    credit_usd: usd.nullable(),
    refreshed_at: instant.nullable(),
    next_refresh_at: instant.nullable(),
    latency_ms: ms.nullable(),
    last_error: z.strictObject({ at: instant, code: z.string(), message: z.string() }).nullable(),
  })
  .meta({ id: 'Provider' });
export const providersAnswer = z
  .strictObject({ providers: z.array(provider), total_available: count })
  .meta({ id: 'Providers' });

export const reservation = z
  .strictObject({
    reservation_id: z.string(),
    created_at: instant,
    by: z.string(),
    requested: count,
    state: z.enum(['renting', 'active', 'partial', 'releasing', 'ended', 'failed']),
    instances: z.array(z.string()).meta({ description: 'What exists of it, or may exist' }),
    ended: z.array(z.string()).meta({ description: 'What it had and is over' }),
    price_per_hour: usd,
    errors: z.array(z.string()),
  })
  .meta({ id: 'Reservation' });
export const reservationsAnswer = z
  .strictObject({ reservations: z.array(reservation), count })
  .meta({ id: 'Reservations' });
export const releasedAnswer = z
  .strictObject({ reservation_id: z.string(), released: z.array(z.string()), failed: z.array(z.string()) })
  .meta({ id: 'Released' });
export const cancelAnswer = z
  .strictObject({
    reservation_id: z
      .string()
      .nullable()
      .meta({ description: 'null: it was stopped before anything was to be rented' }),
    kept: z.array(z.string()),
    released: z.array(z.string()),
    pending: z.array(z.string()).meta({ description: 'Given back, not confirmed yet: retried until it is' }),
  })
  .meta({ id: 'Cancelled' });

export const costAnswer = z
  .strictObject({
    usd_per_hour: usd,
    spent_usd: usd,
    spent_today_usd: usd,
    max_usd_per_hour: usd.nullable(),
    instances: z.array(
      z.strictObject({ instance_id: z.string(), provider: providerName, usd_per_hour: usd, spent_usd: usd }),
    ),
  })
  .meta({ id: 'Cost' });

export const decision = z
  .strictObject({
    at: instant,
    strategy: strategyName,
    winner: z.string().nullable(),
    candidates: z.array(
      z.strictObject({ id: z.string(), excluded: z.string().nullable(), score: z.number().nullable() }),
    ),
    ending: z.enum(endings).nullable(),
    ttfb_ms: ms.nullable(),
    total_ms: ms.nullable(),
  })
  .meta({ id: 'Decision' });
export const decisionsAnswer = z.strictObject({ decisions: z.array(decision), count }).meta({ id: 'Decisions' });
export const finishedRequest = z
  .strictObject({
    at: instant,
    id: z.string(),
    method: z.string(),
    path: z.string(),
    status: z.int(),
    cause: z.string(),
    instance_id: z.string().nullable(),
    attempts: count,
    queue_ms: ms,
    ttfb_ms: ms.nullable(),
    total_ms: ms,
    bytes_out: count,
    model: z.string().nullable(),
  })
  .meta({ id: 'FinishedRequest' });
export const requestsAnswer = z.strictObject({ requests: z.array(finishedRequest), count }).meta({ id: 'Requests' });

export const event = z
  .strictObject({
    id: z.int(),
    at: instant,
    level: z.enum(['info', 'ok', 'warn', 'error']),
    kind: z.string(),
    subject: z.string().nullable(),
    message: z.string(),
  })
  .meta({ id: 'Event' });

/** The data of one message of the stream: an event, or of the message `gap`, that some are no longer kept. */
export const eventMessage = z.union([event, z.strictObject({ missed: z.literal(true) })]);

export const key = z
  .strictObject({
    id: z.string(),
    name: z.string(),
    scope: z.enum(['admin', 'read', 'proxy']),
    created_at: instant,
    last_used_at: instant.nullable(),
    expires_at: instant.nullable(),
    revoked_at: instant.nullable(),
    requests_per_minute: count.nullable(),
    max_concurrent: count.nullable(),
  })
  .meta({ id: 'Key' });
export const keysAnswer = z.strictObject({ keys: z.array(key), count }).meta({ id: 'Keys' });
export const keyCreatedAnswer = key
  .extend({ key: z.string().meta({ description: 'Shown this once' }) })
  .meta({ id: 'KeyCreated' });

export const versionAnswer = z.strictObject({ version: z.string(), node: z.string() }).meta({ id: 'Version' });
export const healthAnswer = z.strictObject({ status: z.literal('ok') }).meta({ id: 'Health' });
export const readyAnswer = z.strictObject({ status: z.literal('ready'), eligible: count }).meta({ id: 'Ready' });

/** RFC 9457. */
export const problem = z
  .strictObject({
    type: z.string().meta({ format: 'uri-reference' }),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string().meta({ description: 'Stable; see the list in the documentation' }),
    errors: z
      .array(
        z.strictObject({
          path: z.string().optional().meta({ description: 'Of the bad field, dots between the parts' }),
          in: z.enum(['body', 'query', 'path', 'header']).optional(),
          message: z.string(),
        }),
      )
      .optional(),
  })
  .meta({ id: 'Problem' });

// --- the snapshot: the wire form is the type itself ---

const wall = z.number();
const nullableNumber = z.number().nullable();
const nullableText = z.string().nullable();
const lifecycleState = z.discriminatedUnion('phase', [
  z.strictObject({ phase: z.literal('reserving'), at: wall }),
  z.strictObject({ phase: z.literal('booting'), at: wall, detail: nullableText }),
  z.strictObject({ phase: z.literal('running'), at: wall, origin: z.string() }),
  z.strictObject({
    phase: z.literal('halted'),
    at: wall,
    cause: z.enum(['outbid', 'stopped', 'failed']),
    detail: nullableText,
  }),
  z.strictObject({ phase: z.literal('destroying'), at: wall, detail: nullableText }),
  z.strictObject({ phase: z.literal('ended'), at: wall, reason: z.string() }),
]);
const adminState = z.discriminatedUnion('mode', [
  z.strictObject({ mode: z.literal('ready') }),
  z.strictObject({ mode: z.literal('drain'), deadlineAt: nullableNumber }),
]);
const healthState = z.discriminatedUnion('state', [
  z.strictObject({ state: z.enum(['unknown', 'up', 'probation']) }),
  z.strictObject({ state: z.literal('ejected'), untilAt: wall, times: z.number(), why: z.string() }),
  z.strictObject({ state: z.literal('backoff'), untilAt: wall, why: z.string() }),
]);
const upstreamView = z.strictObject({
  id: z.string(),
  provider: providerName,
  contract: nullableText,
  reservation: nullableText,
  lifecycle: lifecycleState,
  admin: adminState,
  health: healthState,
  eligible: z.boolean(),
  state: z.string(),
  reason: z.string(),
  origin: nullableText,
  gpuModel: z.string(),
  gpuCount: z.number(),
  vramGb: z.number(),
  usdPerHour: z.number(),
  location: nullableText,
  models: z.array(z.string()).nullable(),
  interruptible: z.boolean(),
  startedAt: nullableNumber,
  expiresAt: nullableNumber,
  spentUsd: z.number(),
  weight: z.number(),
  weightSource: z.enum(['formula', 'operator']),
  configured: z.boolean(),
  ceiling: z.number(),
  active: z.number(),
  total: z.number(),
  avgMs: nullableNumber,
  lastMs: nullableNumber,
  lastUsedAt: nullableNumber,
  rps: z.number(),
  errorRate: z.number(),
  share: z.number(),
  p50Ms: nullableNumber,
  p95Ms: nullableNumber,
  p99Ms: nullableNumber,
  trend: z.array(z.number()),
  endings: z.record(z.enum(endings), z.number()),
  ttfbHistogram: z.array(z.number()),
});
const providerView = z.strictObject({
  name: providerName,
  status: z.enum(['ok', 'error', 'loading']),
  available: z.number(),
  more: z.boolean(),
  offers: z.number(),
  minUsdPerHour: nullableNumber,
  maxUsdPerHour: nullableNumber,
  cheapest: z.array(
    z.strictObject({ gpuModel: z.string(), vramGb: z.number(), usdPerGpuHour: z.number(), available: z.number() }),
  ),
  rented: z.number(),
  usdPerHour: z.number(),
  creditUsd: nullableNumber,
  refreshedAt: nullableNumber,
  latencyMs: nullableNumber,
  lastError: z.strictObject({ at: wall, code: z.string(), message: z.string() }).nullable(),
  nextRefreshAt: nullableNumber,
});

/** The whole picture. A client that follows it parses with this. */
export const snapshot = z
  .strictObject({
    version: z.number(),
    at: wall,
    startedAt: wall,
    mode: z.strictObject({
      simulated: z.boolean(),
      banner: nullableText,
      balancing: z.boolean(),
      proxyUrl: nullableText,
      apiUrl: nullableText,
    }),
    strategy: z.strictObject({
      name: strategyName,
      source: z.enum(['LB_STRATEGY', 'saved', 'default']),
      since: wall,
    }),
    upstreams: z.array(upstreamView),
    providers: z.array(providerView),
    reservations: z.array(
      z.strictObject({
        id: z.string(),
        createdAt: wall,
        by: z.string(),
        requested: z.number(),
        state: z.enum(['renting', 'active', 'partial', 'releasing', 'ended', 'failed']),
        instances: z.array(z.string()),
        ended: z.array(z.string()),
        usdPerHour: z.number(),
        errors: z.array(z.string()),
      }),
    ),
    foreign: z.array(
      z.strictObject({
        provider: providerName,
        contract: z.string(),
        label: nullableText,
        phase: z.string(),
        gpuModel: z.string(),
        gpuCount: z.number(),
        usdPerHour: z.number(),
      }),
    ),
    traffic: z.strictObject({
      rps: z.number(),
      inFlight: z.number(),
      queued: z.number(),
      errorRate: z.number(),
      p50Ms: nullableNumber,
      p95Ms: nullableNumber,
      p99Ms: nullableNumber,
      requests: z.number(),
      retries: z.number(),
      trend: z.array(z.number()),
      ttfbHistogram: z.array(z.number()),
    }),
    cost: z.strictObject({
      usdPerHour: z.number(),
      spentUsd: z.number(),
      spentTodayUsd: z.number(),
      maxUsdPerHour: nullableNumber,
    }),
  })
  .meta({ id: 'Snapshot' }) satisfies z.ZodType<Snapshot>;
