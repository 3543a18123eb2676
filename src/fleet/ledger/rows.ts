import * as z from 'zod';

/**
 * How rows look in the file and in the program. Every row that is read passes through its schema: a ledger that was
 * edited by hand or damaged is refused with the name of the column, never half believed.
 */

const flag = z.literal([0, 1]).transform((value) => value === 1);
const time = z.number().int();

export const rentalStates = [
  'intended', // committed before the paid call; the call may be under way
  'unknown', // the answer was lost: an instance may exist, look for the label
  'rented', // the contract is known
  'destroying', // to be destroyed, retried until the provider confirms
  'ended', // existed, exists no more
  'refused', // never came to be
] as const;
export type RentalState = (typeof rentalStates)[number];

const provider = z.enum(['vast.ai', 'io.net', 'static']);

export const rentalRow = z
  .object({
    label: z.string(),
    reservation: z.string().nullable(),
    instance_id: z.string(),
    provider,
    offer_id: z.string(),
    contract: z.string().nullable(),
    state: z.enum(rentalStates),
    wanted: flag,
    gpu_model: z.string(),
    gpu_count: z.number().int(),
    vram_gb: z.number(),
    usd_per_hour: z.number(),
    limit_usd_per_hour: z.number().nullable(),
    price_seen: flag,
    disk_usd_per_hour: z.number(),
    prepaid: flag,
    prepaid_hours: z.number().nullable(),
    location: z.string().nullable(),
    interruptible: flag,
    origin: z.string().nullable(),
    created_at: time,
    settled_at: time.nullable(),
    ran: flag,
    billed_from: time.nullable(),
    disk_from: time.nullable(),
    expires_at: time.nullable(),
    ended_at: time.nullable(),
    reason: z.string().nullable(),
  })
  .transform((row) => ({
    /** Unique, committed before the paid call, carried by the instance at the provider. */
    label: row.label,
    reservation: row.reservation,
    instanceId: row.instance_id,
    provider: row.provider,
    offerId: row.offer_id,
    contract: row.contract,
    state: row.state,
    /** False once nobody is to get this instance: should it turn up, it is destroyed. */
    wanted: row.wanted,
    gpuModel: row.gpu_model,
    gpuCount: row.gpu_count,
    vramGb: row.vram_gb,
    usdPerHour: row.usd_per_hour,
    /** It is given back when the provider turns out to charge more; null: any price is borne. */
    limitUsdPerHour: row.limit_usd_per_hour,
    /** The price that the provider charges is known and was judged. */
    priceSeen: row.price_seen,
    /** Of `usdPerHour`, what is billed also while it does not run. */
    diskUsdPerHour: row.disk_usd_per_hour,
    /** Time is paid up front; the charge is booked when the rental is known to exist. */
    prepaid: row.prepaid,
    prepaidHours: row.prepaid_hours,
    location: row.location,
    interruptible: row.interruptible,
    origin: row.origin,
    createdAt: row.created_at,
    /** When the outcome of the paid call became known, or known to be lost. */
    settledAt: row.settled_at,
    /** True once it was seen running. */
    ran: row.ran,
    /** Start of the open interval in which all of it is billed by use; null while it does not run. */
    billedFrom: row.billed_from,
    /** Start of the open interval in which its disk alone is billed; null while `billedFrom` is set, and of prepaid time. */
    diskFrom: row.disk_from,
    expiresAt: row.expires_at,
    endedAt: row.ended_at,
    reason: row.reason,
  }));
export type Rental = z.output<typeof rentalRow>;

export const reservationRow = z
  .object({
    id: z.string(),
    created_at: time,
    created_by: z.string(),
    requested: z.number().int(),
    all_or_nothing: flag,
    state: z.enum(['renting', 'settled', 'releasing']),
    errors: z.string(),
    idempotency_key: z.string().nullable(),
  })
  .transform((row) => ({
    id: row.id,
    createdAt: row.created_at,
    by: row.created_by,
    /** GPUs. */
    requested: row.requested,
    allOrNothing: row.all_or_nothing,
    state: row.state,
    errors: z.array(z.string()).parse(JSON.parse(row.errors)) as readonly string[],
    idempotencyKey: row.idempotency_key,
  }));
export type Reservation = z.output<typeof reservationRow>;

export const extensionRow = z
  .object({
    id: z.number().int(),
    label: z.string(),
    hours: z.number().int(),
    usd: z.number(),
    created_at: time,
    expires_before: time,
    state: z.enum(['intended', 'unknown', 'bought', 'refused']),
    settled_at: time.nullable(),
  })
  .transform((row) => ({
    id: row.id,
    /** Of the rental whose prepaid time it extends. */
    label: row.label,
    hours: row.hours,
    usd: row.usd,
    createdAt: row.created_at,
    /** End of the prepaid time before the paid call. */
    expiresBefore: row.expires_before,
    state: row.state,
    settledAt: row.settled_at,
  }));
export type Extension = z.output<typeof extensionRow>;

export const idempotencyRow = z
  .object({
    key: z.string(),
    body_hash: z.string(),
    reservation: z.string(),
    created_at: time,
    result: z.string().nullable(),
  })
  .transform((row) => ({
    key: row.key,
    bodyHash: row.body_hash,
    reservation: row.reservation,
    createdAt: row.created_at,
    /** JSON of the answer; null while the first request is under way or was cut off by a crash. */
    result: row.result,
  }));
export type IdempotencyEntry = z.output<typeof idempotencyRow>;

export const keyRow = z
  .object({
    id: z.string(),
    name: z.string(),
    hash: z.string().regex(/^[0-9a-f]{64}$/),
    scope: z.enum(['admin', 'read', 'proxy']),
    created_at: time,
    last_used_at: time.nullable(),
    expires_at: time.nullable(),
    revoked_at: time.nullable(),
    requests_per_minute: z.number().int().nullable(),
    max_concurrent: z.number().int().nullable(),
  })
  .transform((row) => ({
    id: row.id,
    name: row.name,
    hash: row.hash,
    scope: row.scope,
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at,
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
    requestsPerMinute: row.requests_per_minute,
    maxConcurrent: row.max_concurrent,
  }));
export type StoredKey = z.output<typeof keyRow>;

export const eventRow = z.object({
  id: z.number().int(),
  at: time,
  level: z.enum(['info', 'ok', 'warn', 'error']),
  kind: z.string(),
  subject: z.string().nullable(),
  message: z.string(),
});

export const staticRow = z
  .object({ name: z.string(), url: z.string(), added_at: time })
  .transform((row) => ({ name: row.name, url: row.url, addedAt: row.added_at }));
export type StaticUpstream = z.output<typeof staticRow>;

export const operatorRow = z
  .object({
    instance_id: z.string(),
    draining: flag,
    drain_deadline_at: time.nullable(),
    weight: z.number().nullable(),
  })
  .transform((row) => ({
    instanceId: row.instance_id,
    draining: row.draining,
    drainDeadlineAt: row.drain_deadline_at,
    /** Set by hand; null: the formula. */
    weight: row.weight,
  }));
export type OperatorChoice = z.output<typeof operatorRow>;

export const chargeRow = z
  .object({ label: z.string(), from_at: time, to_at: time, usd: z.number() })
  .transform((row) => ({ label: row.label, fromAt: row.from_at, toAt: row.to_at, usd: row.usd }));
export type Charge = z.output<typeof chargeRow>;
