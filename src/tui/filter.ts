import type { UpstreamView } from '../fleet/app.ts';
import { gpuLabel } from './columns.ts';

export type Filter = Readonly<{
  error: string | null;
  matches(row: UpstreamView): boolean;
}>;

/** As it is shown and as the marketplace writes it. */
const gpuWords = (row: UpstreamView): string => `${gpuLabel(row)} ${row.gpuModel}`;

const fields: Readonly<Record<string, (row: UpstreamView) => string | number | null>> = {
  id: (row) => row.id,
  prov: (row) => row.provider,
  provider: (row) => row.provider,
  state: (row) => row.state,
  gpu: gpuWords,
  model: (row) => (row.models ?? []).join(' '),
  loc: (row) => row.location ?? '',
  location: (row) => row.location ?? '',
  res: (row) => row.reservation ?? '',
  reservation: (row) => row.reservation ?? '',
  active: (row) => row.active,
  conn: (row) => row.active,
  load: (row) => (row.ceiling > 0 ? (row.active / row.ceiling) * 100 : row.active),
  total: (row) => row.total,
  avg: (row) => row.avgMs,
  last: (row) => row.lastMs,
  p95: (row) => row.p95Ms,
  rps: (row) => row.rps,
  err: (row) => row.errorRate * 100,
  share: (row) => row.share * 100,
  weight: (row) => row.weight,
  vram: (row) => row.vramGb,
  gpus: (row) => row.gpuCount,
  $: (row) => row.usdPerHour,
  price: (row) => row.usdPerHour,
  spent: (row) => row.spentUsd,
};

/** What a word of a query may name before `:` or a comparison. */
export const filterFields: readonly string[] = Object.keys(fields);

type Test = (row: UpstreamView) => boolean;

/**
 * A query: words that all must match. `text` looks everywhere, `!text` excludes, `prov:vast` looks in one field,
 * `active>3`, `$<0.5`, `p95>=400` compare numbers.
 */
export function parseFilter(query: string): Filter {
  const tests: Test[] = [];
  let error: string | null = null;
  for (const word of query.trim().split(/\s+/).filter(Boolean)) {
    const not = word.startsWith('!');
    const parsed = parseWord(not ? word.slice(1) : word);
    if (typeof parsed === 'string') error ??= parsed;
    else tests.push(not ? (row) => !parsed(row) : parsed);
  }
  return { error, matches: (row) => tests.every((test) => test(row)) };
}

function parseWord(word: string): Test | string {
  const comparison = /^([a-z0-9]+|\$)(>=|<=|>|<|=)(.*)$/i.exec(word);
  if (comparison) {
    const [, name = '', operator = '', raw = ''] = comparison;
    const field = fields[name.toLowerCase()];
    if (!field) return `no field "${name}"; there are ${Object.keys(fields).join(' ')}`;
    const limit = Number(raw.replace(/(ms|%|gb)$/i, ''));
    if (raw === '' || Number.isNaN(limit)) return `${name}${operator} needs a number`;
    return (row) => {
      const value = field(row);
      if (typeof value !== 'number') return false;
      switch (operator) {
        case '>':
          return value > limit;
        case '<':
          return value < limit;
        case '>=':
          return value >= limit;
        case '<=':
          return value <= limit;
        default:
          return value === limit;
      }
    };
  }
  const inField = /^([a-z]+):(.*)$/i.exec(word);
  if (inField) {
    const [, name = '', raw = ''] = inField;
    const field = fields[name.toLowerCase()];
    if (!field) return `no field "${name}"; there are ${Object.keys(fields).join(' ')}`;
    const wanted = raw.toLowerCase();
    return (row) =>
      String(field(row) ?? '')
        .toLowerCase()
        .includes(wanted);
  }
  const wanted = word.toLowerCase();
  return (row) => searchText(row).includes(wanted);
}

const searchTexts = new WeakMap<UpstreamView, string>();

function searchText(row: UpstreamView): string {
  const known = searchTexts.get(row);
  if (known !== undefined) return known;
  const made = [
    row.id,
    row.provider,
    row.state,
    row.reason,
    gpuWords(row),
    row.location,
    row.reservation,
    ...(row.models ?? []),
  ]
    .filter((part) => part !== null)
    .join(' ')
    .toLowerCase();
  searchTexts.set(row, made);
  return made;
}
