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
  const order = orderBy(query.get('order_by'));
  const token = query.get('after_token');
  const kind = `${filters} ${JSON.stringify(order)}`;
  const after = token === null ? null : tokenValues(token, kind);
  if (after === undefined) return null;
  const valuesOf = (row: Row): unknown[] => order.map(({ col }) => row[col] ?? null);
  const compareValues = (a: readonly unknown[], b: readonly unknown[]): number => {
    for (const [index, { sign }] of order.entries()) {
      const by = orderOf(a[index], b[index]) * sign;
      if (by !== 0) return by;
    }
    return 0;
  };
  matching.sort((a, b) => compareValues(valuesOf(a), valuesOf(b)));
  const rest = after === null ? matching : matching.filter((row) => compareValues(valuesOf(row), after) > 0);
  const page = rest.slice(0, limit);
  const last = page.at(-1);
  const columns = parameter(query.get('select_cols'), null);
  const counts: Record<string, number> = {};
  for (const it of matching) counts[String(it.label ?? '')] = (counts[String(it.label ?? '')] ?? 0) + 1;
  return {
    success: true,
    instances_found: page.length,
    total_instances: matching.length,
    label_counts: counts,
    next_token: last !== undefined && rest.length > limit ? pageToken(valuesOf(last), kind) : null,
    instances: Array.isArray(columns)
      ? page.map((it) => Object.fromEntries(columns.map((column) => [String(column), it[String(column)] ?? null])))
      : page,
  };
}

type Order = readonly Readonly<{ col: string; sign: 1 | -1 }>[];

/** What the rows are ordered by; the id decides at last, so that no two rows are equal. */
function orderBy(text: string | null): Order {
  const asked = parameter(text, []);
  if (!Array.isArray(asked)) throw new QueryError('Error in query parameters: order_by');
  const order = asked.map((entry): Order[number] => {
    const { col, dir } = fields(entry) ?? {};
    return { col: String(col), sign: dir === 'desc' ? -1 : 1 };
  });
  return [...order, { col: 'id', sign: 1 }];
}

/**
 * Opaque to clients; belongs to one set of filters and one order. It names the last row by its values, not by its
 * place: rows that come and go between two pages make no hole.
 */
function pageToken(values: readonly unknown[], kind: string): string {
  return Buffer.from(JSON.stringify({ values, of: seedOf(0, kind) })).toString('base64url');
}

/** Undefined for a token that is not one of ours. */
function tokenValues(token: string, kind: string): readonly unknown[] | undefined {
  try {
    const { values } = JSON.parse(Buffer.from(token, 'base64url').toString());
    return Array.isArray(values) && pageToken(values, kind) === token ? values : undefined;
  } catch {
    return undefined;
  }
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
