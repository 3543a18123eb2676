import type { Offer } from '../core/domain.ts';
import { nearest } from '../core/words.ts';
import type { UpstreamView } from '../fleet/app.ts';
import { gpuLabel } from './columns.ts';

/** What is understood of a query, a test for items. */
export type Query<T> = Readonly<{
  error: string | null;
  /** The first word that is not understood. */
  wrong: string | null;
  /** The words that are; the others are left out of the test too. */
  understood: string;
  matches(item: T): boolean;
}>;
export type Filter = Query<UpstreamView>;

type Fields<T> = Readonly<Record<string, (item: T) => string | number | null>>;

/** As it is shown and as the marketplace writes it. */
const gpuWords = (row: UpstreamView): string => `${gpuLabel(row)} ${row.gpuModel}`;

const fields: Fields<UpstreamView> = {
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

const offerFields: Fields<Offer> = {
  id: (offer) => offer.id,
  prov: (offer) => offer.provider,
  provider: (offer) => offer.provider,
  gpu: (offer) => `${gpuLabel(offer)} ${offer.gpuModel}`,
  gpus: (offer) => offer.gpuCount,
  vram: (offer) => offer.vramGb,
  loc: (offer) => offer.location ?? '',
  location: (offer) => offer.location ?? '',
  rel: (offer) => (offer.reliability === null ? null : offer.reliability * 100),
  stock: (offer) => offer.available,
  $: (offer) => offer.usdPerHour,
  price: (offer) => offer.usdPerHour,
};
export const offerFilterFields: readonly string[] = Object.keys(offerFields);

type Test<T> = (item: T) => boolean;

/**
 * A query: words that all must match. `text` looks everywhere, `!text` excludes, `prov:vast` looks in one field,
 * `active>3`, `$<0.5`, `p95>=400` compare numbers.
 */
function parseQuery<T>(query: string, known: Fields<T>, textOf: (item: T) => string): Query<T> {
  const tests: Test<T>[] = [];
  const understood: string[] = [];
  let error: string | null = null;
  let wrong: string | null = null;
  for (const word of query.trim().split(/\s+/).filter(Boolean)) {
    const not = word.startsWith('!');
    const parsed = parseWord(not ? word.slice(1) : word, known, textOf);
    if (typeof parsed === 'string') {
      error ??= parsed;
      wrong ??= word;
    } else {
      tests.push(not ? (item) => !parsed(item) : parsed);
      understood.push(word);
    }
  }
  return { error, wrong, understood: understood.join(' '), matches: (item) => tests.every((test) => test(item)) };
}

export const parseFilter = (query: string): Filter => parseQuery(query, fields, searchText);

/** Of offers; `<0.5` alone is the price. */
export const parseOfferFilter = (query: string): Query<Offer> =>
  parseQuery(query.replace(/(^|\s)(?=[<>]=?[\d.])/g, '$1$$'), offerFields, (offer) =>
    `${offer.provider} ${offer.id} ${gpuLabel(offer)} ${offer.gpuModel} ${offer.vramGb}gb ${offer.location ?? ''}`.toLowerCase(),
  );

/** The field that was meant; where none is near, some of those there are. */
function noField(name: string, known: Fields<never>): string {
  const meant = nearest(name, Object.keys(known));
  const some = Object.keys(known).filter((field) => field !== 'id' && field.length < 6);
  return `no field "${name}"; ${meant === undefined ? `try ${some.slice(0, 6).join(' ')}` : `did you mean ${meant}?`}`;
}

function parseWord<T>(word: string, known: Fields<T>, textOf: (item: T) => string): Test<T> | string {
  const comparison = /^([a-z0-9]+|\$)(>=|<=|>|<|=)(.*)$/i.exec(word);
  if (comparison) {
    const [, name = '', operator = '', raw = ''] = comparison;
    const field = known[name.toLowerCase()];
    if (!field) return noField(name, known);
    const limit = Number(raw.replace(/(ms|%|gb)$/i, ''));
    if (raw === '' || Number.isNaN(limit)) return `${name}${operator} needs a number`;
    return (item) => {
      const value = field(item);
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
    const field = known[name.toLowerCase()];
    if (!field) return noField(name, known);
    const wanted = raw.toLowerCase();
    return (item) =>
      String(field(item) ?? '')
        .toLowerCase()
        .includes(wanted);
  }
  const wanted = word.toLowerCase();
  return (item) => textOf(item).includes(wanted);
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
