import * as z from 'zod';
import { STATUS_CODES } from '../node-http.ts';
import type { Operation } from './operation.ts';
import { type ProblemCode, problems } from './problem.ts';
import { problem } from './schemas.ts';

type Json = { [key: string]: unknown };

/** The OpenAPI 3.1 document of the operations. */
export function describeApi(operations: readonly Operation[], proxyUrl: string | null): Json {
  const components: Json = {};
  const toJson = (schema: z.ZodType, io: 'input' | 'output') => hoist(schema, io, components);
  const paths: Record<string, Json> = {};

  for (const operation of operations) {
    const path = operation.root ? operation.path : `/api/v1${operation.path}`;
    (paths[path] ??= {})[operation.method.toLowerCase()] = {
      operationId: operation.id,
      tags: [operation.tag],
      summary: operation.summary,
      ...(operation.description === undefined ? {} : { description: operation.description }),
      ...securityOf(operation),
      parameters: [
        ...parametersOf(operation.params, 'path', toJson),
        ...parametersOf(operation.query, 'query', toJson),
        ...(operation.idempotent
          ? [header('Idempotency-Key', 'A repeat with the same key and body rents nothing')]
          : []),
        ...(operation.resumable ? [header('Last-Event-ID', 'Resume after this event')] : []),
      ],
      ...(operation.body === null
        ? {}
        : {
            requestBody: {
              required: !operation.body.safeParse(undefined).success,
              content: { 'application/json': { schema: toJson(unwrapOptional(operation.body), 'input') } },
            },
          }),
      responses: { ...successes(operation, toJson), ...failures(operation, toJson) },
    };
  }

  return {
    openapi: '3.1.0',
    jsonSchemaDialect: 'https://json-schema.org/draft/2020-12/schema',
    info: {
      title: 'gpuproxy control plane',
      version: '1',
      description:
        'Rents GPU instances, spreads traffic over them and says how they do. ' +
        `${dataPlane(proxyUrl)}; it forwards every request to it to an upstream. ` +
        'A path that is not here answers 404, a method that a path does not have 405 with Allow; both are problems too.',
    },
    servers: [{ url: '/' }],
    security: [{ apiKey: [] }, { bearer: [] }],
    tags: [...new Set(operations.map((operation) => operation.tag))].map((name) => ({ name })),
    paths,
    components: {
      securitySchemes: {
        apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
        bearer: { type: 'http', scheme: 'bearer' },
      },
      schemas: Object.fromEntries(Object.entries(components).sort(([a], [b]) => (a < b ? -1 : 1))),
    },
  };
}

/** By its port alone: the name by which the reader came here is the one that leads there. */
function dataPlane(url: string | null): string {
  if (url === null) return 'The data plane is another listener';
  const { port, protocol } = new URL(url);
  return `The data plane listens on port ${port || (protocol === 'https:' ? 443 : 80)} of the same host`;
}

function securityOf({ access }: Operation): Json {
  if (access === 'public') return { security: [] };
  if (access === 'local') return { security: [{}, { apiKey: [] }, { bearer: [] }], 'x-scope': 'read' };
  return { 'x-scope': access };
}

type ToJson = (schema: z.ZodType, io: 'input' | 'output') => unknown;

function successes(operation: Operation, toJson: ToJson): Json {
  return Object.fromEntries(
    Object.entries(operation.answers).map(([status, { description, schema, type = 'application/json' }]) => {
      // OpenAPI 3.1 cannot describe the messages of an event stream; the schema there is that of each `data`.
      const key = type === 'text/event-stream' ? 'x-data-schema' : 'schema';
      const content = schema === undefined ? {} : { [key]: toJson(schema, 'output') };
      const isEmpty = schema === undefined && type === 'application/json';
      return [status, { description, ...(isEmpty ? {} : { content: { [type]: content } }) }];
    }),
  );
}

/** Codes that every operation of its kind can answer, with those it names itself. */
export function problemCodesOf(operation: Operation): ProblemCode[] {
  const codes = new Set<ProblemCode>([
    'bad_request',
    'request_timeout',
    // Content-Encoding is refused everywhere.
    'unsupported_media_type',
    'expectation_failed',
    'headers_too_large',
    'internal',
    ...(operation.problems ?? []),
  ]);
  if (operation.access !== 'public')
    for (const code of ['unauthorized', 'forbidden', 'rate_limited'] as const) codes.add(code);
  // A parameter that nobody knows is refused also where none is known.
  if (!operation.root) codes.add('invalid');
  // An id can be longer than any path.
  if (operation.params) codes.add('not_found');
  // A body is read before anybody asks whether the operation takes one.
  if (operation.method !== 'GET') for (const code of ['bad_json', 'too_large'] as const) codes.add(code);
  return [...codes];
}

function failures(operation: Operation, toJson: ToJson): Json {
  const byStatus = Map.groupBy(problemCodesOf(operation), (code) => problems[code].status);
  return Object.fromEntries(
    [...byStatus]
      .sort(([a], [b]) => a - b)
      .map(([status, codes]) => [
        status,
        {
          description: `${STATUS_CODES[status]}: ${codes.join(', ')}`,
          content: { 'application/problem+json': { schema: toJson(problem, 'output') } },
        },
      ]),
  );
}

function parametersOf(schema: z.ZodType | null, place: 'path' | 'query', toJson: ToJson): Json[] {
  if (schema === null) return [];
  return Object.entries((schema as z.ZodObject).def.shape).map(([name, field]) => {
    const type = field as z.ZodType;
    const required = !type.safeParse(undefined).success;
    return { name, in: place, required, schema: toJson(unwrapOptional(type), 'input') };
  });
}

function header(name: string, description: string): Json {
  return { name, in: 'header', required: false, description, schema: { type: 'string' } };
}

function unwrapOptional(schema: z.ZodType): z.ZodType {
  const { def } = schema as z.ZodOptional;
  return def.type === 'optional' ? (def.innerType as z.ZodType) : schema;
}

/** JSON Schema with every named part moved to the components, where OpenAPI wants it. */
function hoist(schema: z.ZodType, io: 'input' | 'output', components: Json): unknown {
  const { $schema: _dialect, $defs = {}, ...root } = z.toJSONSchema(schema, { io, target: 'draft-2020-12' }) as Json;
  for (const [name, definition] of Object.entries($defs as Json)) components[name] ??= redirect(definition);
  const name = schema.meta()?.id;
  if (typeof name !== 'string') return redirect(root);
  components[name] ??= redirect(root);
  return { $ref: `#/components/schemas/${name}` };
}

function redirect(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(redirect);
  if (typeof node !== 'object' || node === null) return node;
  return Object.fromEntries(
    Object.entries(node)
      .filter(([key]) => key !== 'id' || typeof (node as Json).id !== 'string')
      .map(([key, value]) => [
        key,
        key === '$ref' && typeof value === 'string'
          ? value.replace('#/$defs/', '#/components/schemas/')
          : redirect(value),
      ]),
  );
}
