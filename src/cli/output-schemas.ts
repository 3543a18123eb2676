import * as z from 'zod';
import { strategyNames } from '../core/domain.ts';
import * as schemas from '../rest/schemas.ts';

const text = z.string();
const msOrNull = z.number().nullable();
const doctor = z.object({
  ok: z.boolean().meta({ description: 'No check failed' }),
  checks: z.array(
    z.object({
      name: text,
      status: z.enum(['ok', 'warn', 'fail', 'skip']),
      detail: text,
      hint: text.nullable().meta({ description: 'What to do' }),
    }),
  ),
});
const results = z.array(
  z.object({
    strategy: z.enum(strategyNames),
    requests: z.int(),
    lost: z.int(),
    mean_ms: msOrNull,
    p50_ms: msOrNull,
    p95_ms: msOrNull,
    p99_ms: msOrNull,
    hottest_share: z.number(),
    shares: z.record(text, z.number()),
    loads: z.record(text, z.number()),
  }),
);
const simulate = z.union([
  z.object({ live: z.literal(true), results }),
  z.object({ live: z.literal(false), fleet: text, load: z.number(), requests: z.int(), seed: z.int(), results }),
]);
const version = z.object({
  version: text,
  commit: text.nullable().meta({ description: 'null: not built in a checkout' }),
  node: text,
  server: z.object({
    url: text,
    status: z.enum(['running', 'not reachable']),
    version: text.nullable(),
    node: text.nullable(),
  }),
});
const config = z.record(text, z.object({ value: text, origin: text }));
const serve = z.object({
  host: text,
  port: z.int().meta({ description: '0: a free one' }),
  proxy_port: z.int(),
  tls: z.boolean(),
  data_dir: text.nullable().meta({ description: 'null: a temporary one' }),
  simulated: z.boolean(),
  providers: z.array(text),
  upstreams: z.array(z.object({ name: text, url: text })),
  config,
});
const plan = z.looseObject({
  plan_id: text.meta({ description: 'For --plan' }),
  requests: z.array(
    z.object({ method: text, path: text, query: z.unknown().optional(), body: z.unknown().optional() }),
  ),
});
const error = z.object({
  error: z.object({
    code: text.meta({ description: 'Stable word' }),
    message: text,
    cause: text.nullable(),
    hint: text.nullable(),
    status: z.int().nullable().meta({ description: 'HTTP status of the answer that said no' }),
    request_id: text.nullable(),
  }),
});

/** What each command prints with --json: the answer of the server, or a document of its own. */
export const outputSchemas: Readonly<Record<string, z.ZodType>> = {
  load: schemas.loadsAnswer.extend(schemas.providersAnswer.shape),
  'load server': schemas.loadsAnswer,
  'load provider': schemas.providersAnswer,
  'lb-strategy': schemas.strategyAnswer.extend({ message: text.optional() }),
  simulate,
  list: schemas.offersAnswer,
  reserve: schemas.reserveAnswer,
  rent: schemas.rentedAnswer,
  batch: schemas.batchAnswer,
  reservations: schemas.reservationsAnswer,
  'reservations show': schemas.reservation,
  'reservations release': schemas.releasedAnswer,
  providers: schemas.providersAnswer,
  cost: schemas.costAnswer,
  fleet: schemas.fleetAnswer,
  'fleet <id>': schemas.upstream,
  drain: schemas.upstream,
  resume: schemas.upstream,
  destroy: schemas.destroyAnswer,
  weight: schemas.upstream,
  extend: schemas.upstream,
  logs: schemas.logsAnswer,
  adopt: schemas.upstream,
  'upstream add': schemas.upstream,
  keys: schemas.keysAnswer,
  'keys create': schemas.keyCreatedAnswer,
  events: schemas.eventMessage,
  doctor,
  version,
  'config show': config,
  'serve --dry-run': serve,
  '--dry-run': plan,
  error,
};

/**
 * Fields of a row of what a command prints: of the elements of `rows`, or of the document itself where that is null.
 * undefined: nobody can say before it is there.
 */
export function rowFields(name: string, rows: string | null): string[] | undefined {
  const document = shapeOf(outputSchemas[name]);
  if (document === undefined || rows === null) return document && Object.keys(document);
  const held = document[rows];
  const row =
    held instanceof z.ZodArray
      ? shapeOf(held.element)
      : held instanceof z.ZodRecord
        ? shapeOf(held.valueType)
        : undefined;
  return row && Object.keys(row);
}

/** Of one of several shapes the first is the usual one. */
function shapeOf(schema: unknown): Readonly<Record<string, unknown>> | undefined {
  if (schema instanceof z.ZodUnion) return shapeOf(schema.options[0]);
  return schema instanceof z.ZodObject ? schema.shape : undefined;
}

/** JSON Schema (2020-12) of what a command prints. Fields may be added in later versions, so others are allowed. */
export function outputSchema(name: string): object | undefined {
  const schema = outputSchemas[name];
  if (schema === undefined) return undefined;
  return z.toJSONSchema(schema, {
    io: 'output',
    override: ({ jsonSchema }) => {
      if (jsonSchema.additionalProperties === false) delete jsonSchema.additionalProperties;
    },
  });
}
