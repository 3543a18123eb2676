import { seedOf } from './random.ts';
import { compare, fields, orderOf, QueryError, toNumber } from './vast-search.ts';

type Row = Record<string, unknown>;

/** A page of instances as `GET /api/v1/instances/` answers it; null for a page token that is not one of ours. */
export function listPage(rows: readonly Row[], query: URLSearchParams): object | null {
  const asked = toNumber(query.get('limit') ?? 25) ?? 25;
  const limit = asked <= 0 ? 5 : Math.min(25, asked);
  const filters = query.get('select_filters') ?? '{}';
  const tests = instanceTests(filters);
  const matching = rows.filter((row) => tests.every((test) => test(row)));
  const order = parameter(query.get('order_by'), []) as readonly { col?: unknown; dir?: unknown }[];
  if (!Array.isArray(order)) throw new QueryError('Error in query parameters: order_by');
  for (const { col, dir } of [...order].reverse()) {
    matching.sort((a, b) => orderOf(a[String(col)], b[String(col)]) * (dir === 'desc' ? -1 : 1));
  }
  const token = query.get('after_token');
  const start = token === null ? 0 : startOfPage(token, filters);
  if (start === null) return null;
  const page = matching.slice(start, start + limit);
  const columns = parameter(query.get('select_cols'), null);
  const counts: Record<string, number> = {};
  for (const it of matching) counts[String(it.label ?? '')] = (counts[String(it.label ?? '')] ?? 0) + 1;
  return {
    success: true,
    instances_found: page.length,
    total_instances: matching.length,
    label_counts: counts,
    next_token: start + limit < matching.length ? pageToken(start + limit, filters) : null,
    instances: Array.isArray(columns)
      ? page.map((it) => Object.fromEntries(columns.map((column) => [String(column), it[String(column)] ?? null])))
      : page,
  };
}

/** Opaque to clients; belongs to one set of filters. */
function pageToken(start: number, filters: string): string {
  return Buffer.from(`${seedOf(start, filters)}.${start}`).toString('base64url');
}

function startOfPage(token: string, filters: string): number | null {
  const start = Number(Buffer.from(token, 'base64url').toString().split('.')[1]);
  return Number.isInteger(start) && pageToken(start, filters) === token ? start : null;
}

const filterable = new Set([
  'actual_status',
  'intended_status',
  'cur_state',
  'gpu_name',
  'verification',
  'id',
  'label',
  'machine_id',
  'host_id',
  'image_uuid',
  'is_bid',
]);

function instanceTests(filters: string): ((row: Row) => boolean)[] {
  const parsed = fields(parameter(filters, {}));
  if (!parsed) throw new QueryError('Error in query parameters: select_filters');
  return Object.entries(parsed).flatMap(([field, conditions]) => {
    // Computed columns cannot be filtered.
    if (!filterable.has(field)) throw new QueryError(`Error in query parameters: ${field} is not a valid search key`);
    return Object.entries(fields(conditions) ?? {}).map(
      ([op, want]) =>
        (it: Row) =>
          compare(it[field], op, want),
    );
  });
}

/** A query parameter that is JSON. */
export function parameter(value: string | null, other: unknown): unknown {
  if (value === null || value === '') return other;
  try {
    return JSON.parse(value);
  } catch {
    throw new QueryError('Error in query parameters: not JSON');
  }
}
