import { nearest } from '../core/words.ts';
import { usageError } from './exit.ts';

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
 * A document with the named fields of its rows alone. `rows` names the list or the table by id that holds them, and what
 * stands beside it stays; null, or a document without it: the document is the one row.
 */
export function narrow(document: unknown, fields: readonly string[] | null, rows: string | null): unknown {
  if (fields === null || document === null) return document;
  const place = rowsOf(document, rows);
  // Of no rows nobody can say what they would have.
  if (place.rows.length > 0) checkFields(fields, [...new Set(place.rows.flatMap((row) => Object.keys(row)))]);
  return place.replace((row) =>
    Object.fromEntries(fields.filter((field) => field in row).map((field) => [field, row[field]])),
  );
}

/** Throws what `?` asks for, and a usage error for a field that is not known. */
export function checkFields(fields: readonly string[], known: readonly string[]): void {
  if (fields.length === 1 && fields[0] === '?') throw new FieldsListed(known);
  const unknown = fields.find((field) => !known.includes(field));
  if (unknown === undefined) return;
  const near = nearest(unknown, known);
  throw usageError(`unknown field "${unknown}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
    hint: `one of ${known.join(', ')}`,
  });
}

type Rows = Readonly<{ rows: readonly Fields[]; replace(change: (row: Fields) => unknown): unknown }>;

function rowsOf(document: unknown, name: string | null): Rows {
  const all = fieldsOf(document);
  const value = name === null ? undefined : all[name];
  if (name === null || value === undefined) return { rows: [all], replace: (change) => change(all) };
  if (Array.isArray(value)) {
    const rows = value.map(fieldsOf);
    return { rows, replace: (change) => ({ ...all, [name]: rows.map(change) }) };
  }
  const entries = Object.entries(fieldsOf(value)).map(([id, row]) => [id, fieldsOf(row)] as const);
  return {
    rows: entries.map(([, row]) => row),
    replace: (change) => ({ ...all, [name]: Object.fromEntries(entries.map(([id, row]) => [id, change(row)])) }),
  };
}

const fieldsOf = (value: unknown): Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
