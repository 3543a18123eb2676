import { usageError } from './exit.ts';
import { nearest } from './nearest.ts';

type Fields = Readonly<Record<string, unknown>>;

/** `--fields ?`: what one could ask for. */
export class FieldsListed extends Error {
  readonly names: readonly string[];
  constructor(names: readonly string[]) {
    super('fields');
    this.names = names;
  }
}

/**
 * A document with the named fields of its rows alone. The rows are the elements of its list, or the entries of its table
 * by id, or the document itself where it has neither; what stands beside them stays.
 */
export function narrow(document: unknown, fields: readonly string[] | null): unknown {
  if (fields === null) return document;
  const place = rowsOf(document);
  const known = [...new Set(place.rows.flatMap((row) => Object.keys(row)))];
  if (fields.length === 1 && fields[0] === '?') throw new FieldsListed(known);
  // Of no rows nobody can say what they would have.
  const unknown = place.rows.length === 0 ? undefined : fields.find((field) => !known.includes(field));
  if (unknown !== undefined) {
    const near = nearest(unknown, known);
    throw usageError(`unknown field "${unknown}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
      hint: `one of ${known.join(', ')}`,
    });
  }
  return place.replace((row) =>
    Object.fromEntries(fields.filter((field) => field in row).map((field) => [field, row[field]])),
  );
}

type Rows = Readonly<{ rows: readonly Fields[]; replace(change: (row: Fields) => unknown): unknown }>;

function rowsOf(document: unknown): Rows {
  if (isList(document)) return { rows: document, replace: (change) => document.map(change) };
  const all = fieldsOf(document);
  for (const [name, value] of Object.entries(all)) {
    if (isList(value)) return { rows: value, replace: (change) => ({ ...all, [name]: value.map(change) }) };
    const entries = Object.entries(fieldsOf(value));
    if (entries.length > 0 && entries.every(([, row]) => isRow(row))) {
      return {
        rows: entries.map(([, row]) => fieldsOf(row)),
        replace: (change) => ({
          ...all,
          [name]: Object.fromEntries(entries.map(([id, row]) => [id, change(fieldsOf(row))])),
        }),
      };
    }
  }
  return { rows: [all], replace: (change) => change(all) };
}

const fieldsOf = (value: unknown): Fields => (isRow(value) ? value : {});
const isRow = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value);
const isList = (value: unknown): value is readonly Fields[] =>
  Array.isArray(value) && (value.length === 0 || value.every(isRow));
