import type * as z from 'zod';
import { withoutUrlSecrets } from '../core/base-url.ts';
import { nearest } from '../core/words.ts';
import type { LocalApp } from '../fleet/app.ts';
import type { EventStream } from './event-stream.ts';
import type { Metrics } from './metrics.ts';
import { type ProblemCode, ProblemError } from './problem.ts';

/** What a handler may use. */
export type Context = Readonly<{
  app: LocalApp;
  /** Wall clock, milliseconds since the Unix epoch. */
  now: () => number;
  metrics: Metrics;
  /** Of the program. Told to those who may read, so that who may not learns nothing of it. */
  version: string;
  /** False once the server drains: it lives, and takes nothing new. */
  accepting: () => boolean;
}>;

export type Input<P, Q, B> = Readonly<{
  params: P;
  query: Q;
  body: B;
  idempotencyKey: string | null;
  lastEventId: number | null;
  /** Who asks: the name of the key. */
  by: string;
  /** Aborts when the client leaves. For questions only: paid work is finished whether somebody waits for it or not. */
  signal: AbortSignal;
}>;

export type Answer =
  | Readonly<{ status: number; body: unknown; headers?: Readonly<Record<string, string>> }>
  | Readonly<{ status: 200; type: string; text: string; headers?: Readonly<Record<string, string>> }>
  | Readonly<{ stream: (out: EventStream) => void }>;

export type Success = Readonly<{ description: string; schema?: z.ZodType; type?: string }>;

type Definition<P, Q, B> = Readonly<{
  method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** Below /api/v1 (or at the root when `root` is set), parameters in braces. */
  path: string;
  root?: boolean;
  /** operationId of the description. */
  id: string;
  tag: string;
  summary: string;
  description?: string;
  /** `local`: whoever asks from this machine, others with a key that may read. */
  access: 'public' | 'local' | 'read' | 'admin';
  params?: z.ZodType<P>;
  query?: z.ZodType<Q>;
  body?: z.ZodType<B>;
  /** Takes an Idempotency-Key. */
  idempotent?: boolean;
  /** Resumes with Last-Event-ID. */
  resumable?: boolean;
  answers: Readonly<Record<number, Success>>;
  /** Codes beyond those that every operation of its kind can answer. */
  problems?: readonly ProblemCode[];
  handle(input: Input<P, Q, B>, context: Context): Answer | Promise<Answer>;
}>;

export type RawInput = Readonly<{
  params: unknown;
  query: Readonly<Record<string, string | string[]>>;
  body: unknown;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  by: string;
  signal: AbortSignal;
}>;

/** One row of the table that routes, checks, describes and documents the control plane. */
export type Operation = Readonly<
  Omit<Definition<unknown, unknown, unknown>, 'params' | 'query' | 'body' | 'handle'> & {
    params: z.ZodType | null;
    query: z.ZodType | null;
    body: z.ZodType | null;
    run(raw: RawInput, context: Context): Promise<Answer>;
  }
>;

type None = Readonly<Record<never, never>>;

/** Ties schemas and handler together; the result forgets the types and keeps the check. */
export function operation<P = None, Q = None, B = undefined>(definition: Definition<P, Q, B>): Operation {
  const { params = null, query = null, body = null, handle, ...rest } = definition;
  return {
    ...rest,
    params,
    query,
    body,
    async run(raw, context) {
      const errors: FieldError[] = [];
      const parsedParams = check('path', params, raw.params, errors);
      // Probes and scrapers add parameters of their own to what is outside of the API.
      const parsedQuery = rest.root ? {} : checkQuery(query, raw.query, errors);
      const parsedBody = body === null ? undefined : check('body', body, raw.body, errors);
      const idempotencyKey = rest.idempotent ? readIdempotencyKey(raw.headers['idempotency-key'], errors) : null;
      const lastEventId = rest.resumable ? readLastEventId(raw.headers['last-event-id'], errors) : null;
      if (errors.length > 0) throw invalid(errors);
      return handle(
        {
          params: parsedParams as P,
          query: parsedQuery as Q,
          body: parsedBody as B,
          idempotencyKey,
          lastEventId,
          by: raw.by,
          signal: raw.signal,
        },
        context,
      );
    },
  };
}

type FieldError = { path?: string; in?: 'body' | 'query' | 'path' | 'header'; message: string };

function invalid(errors: readonly FieldError[]): ProblemError {
  const [first] = errors;
  const where = first?.path || `the ${first?.in}`;
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : '';
  return new ProblemError('invalid', `${where}: ${first?.message}${more}`, { errors: errors.slice(0, 50) });
}

function check(where: 'body' | 'path' | 'query', schema: z.ZodType | null, value: unknown, errors: FieldError[]) {
  if (schema === null) return {};
  const result = schema.safeParse(value, { reportInput: true });
  if (result.success) return result.data;
  for (const issue of result.error.issues) errors.push(...describe(where, issue, schema));
  return undefined;
}

function checkQuery(schema: z.ZodType | null, raw: RawInput['query'], errors: FieldError[]) {
  const shape = schema === null ? {} : shapeOf(schema);
  const decoded: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(raw)) {
    if (Array.isArray(value)) {
      errors.push({ path: name, in: 'query', message: 'given more than once, accepts one value' });
      continue;
    }
    const field = Object.hasOwn(shape, name) ? shape[name] : undefined;
    if (field === undefined) {
      errors.push({ path: name, in: 'query', message: unknownName(name, Object.keys(shape), 'parameter') });
      continue;
    }
    decoded[name] = decode(value, kindOf(field));
  }
  if (schema === null || errors.some((error) => error.in === 'query')) return {};
  return check('query', schema, decoded, errors);
}

function shapeOf(schema: z.ZodType): Readonly<Record<string, z.ZodType>> {
  const { def } = schema as z.ZodObject;
  return def.type === 'object' ? (def.shape as Record<string, z.ZodType>) : {};
}

/** What a parameter is below its optional, nullable and transforming wrappers. */
function kindOf(schema: z.ZodType): string {
  const def = schema.def as { type: string; innerType?: z.ZodType; in?: z.ZodType };
  const inner = def.innerType ?? def.in;
  return inner === undefined ? def.type : kindOf(inner);
}

/** Text of a query → value. What does not look like the kind stays text, so that the schema can say what came. */
function decode(text: string, kind: string): unknown {
  if (kind === 'number') return /^-?\d+(\.\d+)?(e[+-]?\d{1,3})?$/i.test(text) ? Number(text) : text;
  if (kind === 'boolean') {
    if (text === 'true' || text === '1' || text === '') return true;
    if (text === 'false' || text === '0') return false;
  }
  return text;
}

function readIdempotencyKey(value: string | string[] | undefined, errors: FieldError[]): string | null {
  if (value === undefined) return null;
  if (typeof value === 'string' && /^[\x21-\x7e]{1,255}$/.test(value)) return value;
  errors.push({ path: 'Idempotency-Key', in: 'header', message: 'accepts 1 to 255 visible ASCII characters' });
  return null;
}

function readLastEventId(value: string | string[] | undefined, errors: FieldError[]): number | null {
  if (value === undefined || value === '') return null;
  if (typeof value === 'string' && /^\d{1,15}$/.test(value)) return Number(value);
  errors.push({ path: 'Last-Event-ID', in: 'header', message: 'accepts the id of an event, a whole number' });
  return null;
}

type Issue = z.core.$ZodIssue;

/** "got X, accepts Y" for each thing that is wrong. */
function describe(where: 'body' | 'path' | 'query', issue: Issue, schema: z.ZodType): FieldError[] {
  const path = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(shapeOf(schemaAt(schema, issue.path)));
    return issue.keys.map((key) => ({
      path: path === '' ? key : `${path}.${key}`,
      in: where,
      message: unknownName(key, known, 'field'),
    }));
  }
  const missing = issue.input === undefined;
  const got = missing ? (path === '' ? 'nothing came' : 'missing') : `got ${shown(issue.path, issue.input)}`;
  let hint = '';
  if (issue.code === 'invalid_value' && typeof issue.input === 'string') {
    const guess = nearest(issue.input, issue.values.map(String));
    if (guess !== undefined) hint = `; did you mean ${guess}?`;
  }
  return [{ path, in: where, message: `${got}, accepts ${accepted(issue)}${hint}` }];
}

function unknownName(name: string, known: readonly string[], kind: 'field' | 'parameter'): string {
  const guess = nearest(name, known);
  if (guess !== undefined) return `unknown ${kind}; did you mean ${guess}?`;
  return known.length === 0 ? `unknown ${kind}, accepts none` : `unknown ${kind}, accepts ${known.join(', ')}`;
}

function schemaAt(schema: z.ZodType, path: readonly PropertyKey[]): z.ZodType {
  let at = schema;
  for (const part of ['', ...path]) {
    const next = part === '' ? at : (shapeOf(at)[String(part)] ?? at);
    at = next;
    for (let def = at.def as { innerType?: z.ZodType }; def.innerType; def = at.def as { innerType?: z.ZodType }) {
      at = def.innerType;
    }
  }
  return at;
}

/** A secret may stand in a field of any name below `env`, in an argument, and in whatever is called a key. */
function shown(path: readonly PropertyKey[], value: unknown): string {
  if (path.some((part) => /^env$|^args$|onstart|key|secret|token|password/i.test(String(part))))
    return 'a value (hidden)';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'string') {
    const text = value.includes('://') ? withoutUrlSecrets(value) : value;
    return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
  }
  return String(value);
}

const kinds: Record<string, string> = {
  number: 'a number',
  int: 'a whole number',
  string: 'a text',
  boolean: 'true or false',
  object: 'an object',
  array: 'a list',
  record: 'an object of texts',
};

function accepted(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return kinds[issue.expected] ?? issue.expected;
    case 'invalid_value':
      return `one of ${issue.values.map(String).join(', ')}`;
    case 'too_small':
    case 'too_big': {
      const limit = issue.code === 'too_small' ? issue.minimum : issue.maximum;
      const side = issue.code === 'too_small' ? (issue.inclusive === false ? 'more than' : 'at least') : 'at most';
      const unit = { string: ' characters', array: ' items' }[issue.origin as string] ?? '';
      return `${side} ${limit}${unit}`;
    }
    case 'invalid_format':
      return issue.format === 'datetime' ? 'an RFC 3339 time such as 2030-01-31T12:00:00Z' : issue.message;
    case 'invalid_key':
      return issue.issues.map((inner) => inner.message).join('; ');
    default:
      return issue.message;
  }
}
