import { METHODS } from 'node:http';
import { connect } from 'node:net';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { AppError, type AppErrorCode } from '../../src/fleet/app.ts';
import type { OpenApiOperation } from '../helpers/answers.ts';
import { createFakeApp, type FakeApp, providerView, upstreamView } from '../helpers/fake-app.ts';
import { type Rest, startRest } from './harness.ts';

let app: FakeApp;
let rest: Rest;
/** What the next call of the application does; null: answer. */
let failure: AppErrorCode | null = null;
const logged: unknown[] = [];

beforeAll(async () => {
  app = createFakeApp({
    upstreams: [upstreamView({ id: 'vast-1' }), upstreamView({ id: 'x', provider: 'static' })],
    providers: [providerView()],
  });
  const methods = [
    'setStrategy',
    'offers',
    'plan',
    'planBatch',
    'reserve',
    'batch',
    'rentOffer',
    'reservationOf',
    'cancel',
    'releaseReservation',
    'destroy',
    'drain',
    'resume',
    'setWeight',
    'extend',
    'logs',
    'adopt',
    'addUpstream',
    'removeUpstream',
  ] as const;
  for (const method of methods) {
    const original = app[method] as (...args: unknown[]) => Promise<unknown>;
    const wrapped = (...args: unknown[]) =>
      failure === null ? original(...args) : Promise.reject(new AppError(failure, 'made to fail'));
    app.on({ [method]: wrapped });
  }
  rest = await startRest(app, {
    logger: { error: (fields) => logged.push(fields) },
    limits: { streams: 10_000 },
  });
});
afterAll(() => rest[Symbol.asyncDispose]());

type Schema = {
  $ref?: string;
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
  items?: Schema;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  pattern?: string;
  format?: string;
};

/** Values that the schema accepts, as far as it can say. */
function fitting(schema: Schema): fc.Arbitrary<unknown> {
  if (schema.$ref !== undefined) {
    const name = schema.$ref.split('/').at(-1) as string;
    return fitting(rest.document.components.schemas[name] as Schema);
  }
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if ('const' in schema) return fc.constant(schema.const);
  if (schema.anyOf) return fc.oneof(...schema.anyOf.map(fitting));
  switch (schema.type) {
    case 'integer':
      return fc.integer({ min: schema.minimum ?? -1000, max: Math.min(schema.maximum ?? 1000, 2 ** 31 - 1) });
    case 'number':
      return fc.double({
        min: schema.exclusiveMinimum ?? schema.minimum ?? -1000,
        max: schema.maximum ?? 1e6,
        minExcluded: schema.exclusiveMinimum !== undefined,
        noNaN: true,
      });
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'array':
      return fc.array(fitting(schema.items ?? {}), { minLength: schema.minItems ?? 0, maxLength: 5 });
    case 'object': {
      if (schema.properties === undefined) {
        const values = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : {};
        return fc.dictionary(fc.stringMatching(/^[A-Z_]{1,8}$/), fitting(values), { maxKeys: 5 });
      }
      const required = schema.required ?? [];
      return fc.record(
        Object.fromEntries(Object.entries(schema.properties).map(([name, inner]) => [name, fitting(inner)])),
        { requiredKeys: required },
      );
    }
    case 'string':
      if (schema.format === 'date-time') return fc.constant('2099-01-01T00:00:00Z');
      if (schema.format === 'uri') return fc.webUrl();
      if (schema.pattern !== undefined) return fc.stringMatching(new RegExp(schema.pattern));
      return fc.string({
        minLength: schema.minLength ?? 0,
        maxLength: Math.min(schema.maxLength ?? 20, 20),
        unit: 'grapheme',
      });
    default:
      return fc.jsonValue();
  }
}

const junk = fc.oneof(
  fc.jsonValue(),
  fc.constantFrom(
    null,
    -1,
    1e308,
    2 ** 53,
    '',
    '\u0000',
    '__proto__',
    'constructor',
    '../..',
    '%00',
    [],
    {},
    'NaN',
    '1e3',
  ),
);

/** What fits, with some of its parts replaced by junk or given names that nobody knows. */
function bent(value: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  return fc.tuple(value, junk, fc.nat(), fc.string({ maxLength: 8 })).map(([whole, bad, seed, name]) => {
    if (typeof whole !== 'object' || whole === null) return bad;
    const copy = structuredClone(whole) as Record<string, unknown>;
    const keys = Object.keys(copy);
    const key = keys[seed % Math.max(1, keys.length)];
    if (key === undefined || seed % 3 === 0) Object.defineProperty(copy, name, { value: bad, enumerable: true });
    else copy[key] = bad;
    return copy;
  });
}

const rarely = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> =>
  fc.oneof({ weight: 7, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });

function requestFor(path: string, operation: OpenApiOperation) {
  const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  const parameter = (schema: Schema) =>
    fc.oneof({ weight: 12, arbitrary: fitting(schema).map(text) }, { weight: 1, arbitrary: junk.map(text) });
  const known = fc.constantFrom('vast-1', 'x', '1', 'res-1', 'key-2');
  const parts = operation.parameters.filter(({ in: place }) => place === 'path');
  const target = fc
    .tuple(...parts.map(({ schema }) => fc.oneof(parameter(schema as Schema), known)))
    .map((values) =>
      parts.reduce(
        (url, { name }, index) =>
          url.replace(`{${name}}`, encodeURIComponent((values[index] as string).toWellFormed())),
        path,
      ),
    );
  const queries = operation.parameters.filter(({ in: place }) => place === 'query');
  const query = fc
    .tuple(
      fc.record(Object.fromEntries(queries.map(({ name, schema }) => [name, parameter(schema as Schema)])), {
        requiredKeys: [],
      }),
      rarely(fc.string({ maxLength: 10 })),
    )
    .map(([values, extra]) => {
      const search = new URLSearchParams(values as Record<string, string>);
      return `${search}${extra === null ? '' : `&${encodeURIComponent(extra.toWellFormed())}=1`}`;
    });
  const schema = operation.requestBody?.content['application/json'].schema as Schema | undefined;
  const body =
    schema === undefined
      ? fc.constant(undefined)
      : fc.oneof(
          { weight: 4, arbitrary: fitting(schema).map((value) => JSON.stringify(value)) },
          { weight: 4, arbitrary: bent(fitting(schema)).map((value) => JSON.stringify(value)) },
          { weight: 1, arbitrary: junk.map((value) => JSON.stringify(value)) },
          { weight: 1, arbitrary: fc.string() },
          { weight: 1, arbitrary: fc.constant(undefined) },
        );
  const fails = rarely(
    fc.constantFrom<AppErrorCode>(
      'not_found',
      'conflict',
      'no_offers',
      'provider_failed',
      'provider_timeout',
      'unsupported',
    ),
  );
  return fc.record({ target, query, body, fails });
}

test('no request makes a 500, and every answer is one that the document describes', { timeout: 60_000 }, async () => {
  let tried = 0;
  let deep = 0;
  for (const [path, methods] of Object.entries(rest.document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      await fc.assert(
        fc.asyncProperty(requestFor(path, operation), async ({ target, query, body, fails }) => {
          // A refusal that the operation does not announce would be the application's fault, not the wire's.
          const announced = Object.values(operation.responses).map(
            (r) => (r as { description?: string }).description ?? '',
          );
          failure = fails !== null && announced.some((text) => new RegExp(`\\b${fails}\\b`).test(text)) ? fails : null;
          const url = query === '' ? target : `${target}?${query}`;
          const reply = await rest.call(method.toUpperCase(), url, { body });
          expect(reply.status, `${method} ${url} ${body}`).not.toBe(500);
          tried++;
          if (reply.status !== 400) deep++;
          if (reply.status >= 400) expect(reply.headers['content-type']).toMatch(/^application\/problem\+json/);
        }),
        { numRuns: 15 },
      );
    }
  }
  expect(logged).toEqual([]);
  // A fuzzer that validation turns away at the door tests the door alone.
  expect(deep / tried).toBeGreaterThan(0.4);
});

/** Headers and bodies that most operations have no use for. */
const uncalled: { headers?: Record<string, string>; body?: unknown }[] = [
  {},
  { body: '{"a":1}' },
  { body: '{"a"' },
  { body: 'a=1', headers: { 'content-type': 'application/x-www-form-urlencoded' } },
  { body: 'x', headers: { 'content-type': 'nonsense' } },
  { body: '', headers: { 'content-type': 'application/json' } },
  { body: '1'.repeat(300_000) },
  { headers: { 'content-encoding': 'gzip' } },
  { headers: { 'idempotency-key': 'once' } },
  { headers: { 'idempotency-key': 'ü'.repeat(300) } },
  { headers: { 'last-event-id': 'x' } },
  { headers: { expect: 'a-miracle' } },
  { headers: { upgrade: 'websocket', connection: 'upgrade' } },
  { headers: { 'x-forwarded-for': '1.2.3.4', forwarded: 'for=1.2.3.4' } },
];
const strays = ['/', '/nope', '/nope/%zz', '//', '/api/v1/fleet/%zz', '/api/v1/docs', '/api/v1/openapi.json', '/?a=b'];

test('no method with whatever it carries, on any path, is taken for a bug', { timeout: 120_000 }, async () => {
  failure = null;
  const paths = [...Object.keys(rest.document.paths).map((path) => path.replace(/\{\w+\}/g, 'x')), ...strays];
  // A socket of its own is all that CONNECT is answered with: it is closed.
  const methods = METHODS.filter((method) => method !== 'CONNECT');
  for (const path of paths) {
    const described = rest.document.paths[path] ?? {};
    for (const [index, method] of methods.entries()) {
      // Everything on what exists, and on the rest one after the other.
      const tries = method.toLowerCase() in described ? uncalled : [uncalled[index % uncalled.length]!, {}];
      for (const options of tries) {
        const what = `${method} ${path} ${JSON.stringify(options).slice(0, 100)}`;
        const reply = await rest.call(method, path, options).catch((error: unknown) => {
          // A body that is refused before it was read may find its connection closed.
          if (['EPIPE', 'ECONNRESET'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
          throw new Error(`${what}: ${(error as Error).message}`);
        });
        if (reply === null) continue;
        expect(reply.status, what).not.toBe(500);
        expect(reply.headers['x-request-id'], what).toBeDefined();
        if (reply.status >= 400) expect(reply.headers['content-type'], what).toMatch(/^application\/problem\+json/);
      }
    }
  }
  expect(logged).toEqual([]);
});

test('no upload that breaks off, to any path, is taken for a bug', { timeout: 60_000 }, async () => {
  const paths = [...Object.keys(rest.document.paths).map((path) => path.replace(/\{\w+\}/g, 'x')), ...strays];
  const ways = ['Content-Length: 20\r\n\r\n{"a"', 'Transfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n'];
  for (const path of paths) {
    for (const method of ['POST', 'PUT', 'DELETE', 'GET', 'PATCH', 'QUERY']) {
      for (const [index, way] of ways.entries()) {
        for (const key of ['', `X-API-Key: ${rest.adminKey}\r\n`]) {
          const socket = connect(rest.server.port, '127.0.0.1');
          const closed = new Promise((done) => socket.on('close', done));
          socket.on('error', () => {});
          socket.resume();
          const text = `${method} ${path} HTTP/1.1\r\nHost: x\r\n${key}Content-Type: application/json\r\n${way}`;
          socket.write(text, () => (index === 0 ? socket.destroy() : socket.end('nonsense\r\n')));
          await closed;
        }
      }
    }
  }
  // Whoever comes later is answered later.
  expect((await rest.call('GET', '/healthz')).status).toBe(200);
  expect(logged).toEqual([]);
});

test('what the document accepts is accepted', { timeout: 60_000 }, async () => {
  failure = null;
  const paid = ['planReservation', 'setStrategy', 'setWeight', 'createKey'];
  for (const [path, methods] of Object.entries(rest.document.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (!paid.includes(operation.operationId)) continue;
      const schema = operation.requestBody?.content['application/json'].schema as Schema;
      await fc.assert(
        fc.asyncProperty(fitting(schema), async (body) => {
          const reply = await rest.call(method.toUpperCase(), path.replace('{id}', 'vast-1'), {
            body: JSON.stringify(body),
          });
          expect(reply.status, `${path} ${JSON.stringify(body)} ${reply.text}`).toBeLessThan(300);
        }),
        { numRuns: 20 },
      );
    }
  }
});
