import { createRandom } from './random.ts';
import { type Ask, askField, askRow, drawAsk, type Pricing } from './vast-offers.ts';

/** A query that the server cannot read; the message goes out as `msg`. */
export class QueryError extends Error {
  override readonly name = 'QueryError';
}

/** Whatever `limit` says. */
const mostOffers = 64;
const operators = new Set(['eq', 'neq', 'gt', 'gte', 'lt', 'lte', 'in', 'notin']);
/** The documents spell the first one in two ways. */
const types = new Set<unknown>(['on-demand', 'ondemand', 'bid', 'interruptible', 'reserved']);
const controls = new Set([
  'type',
  'order',
  'limit',
  'allocated_storage',
  'disable_bundling',
  'target_reliability',
  'extra_ids',
  'template_id',
]);

export type Query = Readonly<Record<string, unknown>>;

/** The value as an object of fields; null for anything else. */
export function fields(value: unknown): Query | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Query) : null;
}

/** The answer's rows, and the asks behind them. */
export function searchAsks(asks: Iterable<Ask>, query: Query, sloppy: boolean): { rows: unknown[]; asks: Ask[] } {
  if (query.type !== undefined && !types.has(query.type)) throw new QueryError('Error in query parameters: type');
  const bid = query.type === 'bid' || query.type === 'interruptible';
  const diskGb = toNumber(query.allocated_storage) ?? 8;
  const pricing: Pricing = { bid, diskGb };
  const tests: ((ask: Ask) => boolean)[] = [];
  for (const [field, condition] of Object.entries(query)) {
    if (controls.has(field)) continue;
    tests.push(...fieldTests(field, condition, pricing, sloppy));
  }
  const seesRented = (query.rented as { eq?: unknown } | undefined)?.eq === true;
  const found: Ask[] = [];
  for (const ask of asks) {
    if (ask.rented && !seesRented) continue;
    if (tests.every((test) => test(ask))) found.push(ask);
  }
  sort(found, query.order, pricing);
  const limit = toNumber(query.limit);
  const kept = found.slice(0, Math.min(mostOffers, limit === null || limit < 1 ? mostOffers : limit));
  const rows: unknown[] = kept.map((ask) => askRow(ask, pricing));
  const wanted = query.num_gpus as { eq?: unknown } | undefined;
  if (wanted && toNumber(wanted.eq) === 0) rows.push({ id: 1, ask_contract_id: 1, resource_type: 'disk', num_gpus: 0 });
  return { rows, asks: kept };
}

function fieldTests(field: string, condition: unknown, pricing: Pricing, sloppy: boolean): ((ask: Ask) => boolean)[] {
  if (typeof condition !== 'object' || condition === null) {
    throw new QueryError(`Error in query parameters: ${field} needs {"op": value}`);
  }
  const known = field === 'external' || field === 'datacenter' || askField(sample, field, pricing) !== undefined;
  if (!known) throw new QueryError(`Error in query parameters: ${field} is not a valid search key`);
  const tests: ((ask: Ask) => boolean)[] = [];
  for (const [op, raw] of Object.entries(condition)) {
    if (!operators.has(op)) throw new QueryError(`Error in query parameters: ${op} is not a valid operator`);
    // Scope switches: eq true narrows, anything else does not.
    if (field === 'external') continue;
    if (field === 'datacenter') {
      if (raw === true) tests.push((ask) => askField(ask, field, pricing) === true);
      continue;
    }
    if (field === 'id') {
      tests.push(() => false);
      continue;
    }
    if (sloppy && op !== 'eq' && op !== 'in' && op !== 'notin' && op !== 'neq') continue;
    const want = coerce(field, raw);
    tests.push((ask) => compare(askField(ask, field, pricing), op, want));
  }
  return tests;
}

/** The CLI sends most numbers as strings. */
function coerce(field: string, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => coerce(field, item));
  if (typeof value !== 'string') return value;
  if (field === 'driver_version') return driverParts(value);
  if (value === 'true' || value === 'false') return value === 'true';
  return toNumber(value) ?? value;
}

export function toNumber(value: unknown): number | null {
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (typeof value !== 'string' || value.trim() === '') return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

const driverParts = (text: string): number => {
  const [major = 0, minor = 0, patch = 0] = text.split('.').map(Number);
  return major * 1e6 + minor * 1e3 + patch;
};

export function compare(have: unknown, op: string, want: unknown): boolean {
  if (op === 'in' || op === 'notin') {
    const list = Array.isArray(want) ? want : [want];
    return list.some((item) => compare(have, 'eq', item)) === (op === 'in');
  }
  const left = typeof have === 'string' && typeof want === 'number' ? driverParts(have) : have;
  if (op === 'eq') return left === want;
  if (op === 'neq') return left !== want;
  if (typeof left !== 'number' || typeof want !== 'number') return false;
  if (op === 'gt') return left > want;
  if (op === 'gte') return left >= want;
  if (op === 'lt') return left < want;
  return left <= want;
}

function sort(asks: Ask[], order: unknown, pricing: Pricing): void {
  const keys = Array.isArray(order) ? order : [];
  const parsed = keys
    .map((key): [string, number] => {
      const [field, direction] = Array.isArray(key) ? key : [key, 'asc'];
      if (typeof field !== 'string') throw new QueryError('Error in query parameters: order');
      return [field, direction === 'desc' ? -1 : 1];
    })
    .filter(([field]) => askField(sample, field, pricing) !== undefined);
  if (parsed.length === 0) parsed.push(['score', -1]);
  const values = new Map<Ask, unknown[]>();
  for (const ask of asks)
    values.set(
      ask,
      parsed.map(([field]) => askField(ask, field, pricing)),
    );
  asks.sort((a, b) => {
    const left = values.get(a) as unknown[];
    const right = values.get(b) as unknown[];
    for (const [index, [, sign]] of parsed.entries()) {
      const by = orderOf(left[index], right[index]);
      if (by !== 0) return by * sign;
    }
    return a.id - b.id;
  });
}

/** For sorting upwards; what is missing comes last. */
export function orderOf(a: unknown, b: unknown): number {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return (a as number | string) < (b as number | string) ? -1 : 1;
}

/** Any ask: which fields exist is the same for all. */
const sample = drawAsk(createRandom(1), 1);
