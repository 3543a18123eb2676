import { readFileSync } from 'node:fs';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { defaultRestLimits } from '../../src/rest/create-server.ts';
import { operations } from '../../src/rest/operations/index.ts';
import { problems } from '../../src/rest/problem.ts';
import type { OpenApi } from '../helpers/answers.ts';
import { createFakeApp } from '../helpers/fake-app.ts';
import { type Rest, startRest } from './harness.ts';

let rest: Rest;
let document: OpenApi;

beforeAll(async () => {
  rest = await startRest(createFakeApp());
  document = rest.document;
});
afterAll(() => rest[Symbol.asyncDispose]());

const all = () =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );

function walk(node: unknown, visit: (object: Record<string, unknown>) => void): void {
  if (Array.isArray(node)) for (const item of node) walk(item, visit);
  else if (typeof node === 'object' && node !== null) {
    visit(node as Record<string, unknown>);
    for (const value of Object.values(node)) walk(value, visit);
  }
}

describe('the OpenAPI document', () => {
  test('is the one that all answers in tests are checked against', () => {
    const used = JSON.parse(readFileSync(process.env.TEST_OPENAPI ?? '', 'utf8')) as OpenApi;
    // The description names the port of the data plane.
    expect({ ...used, info: null }).toEqual({ ...document, info: null });
  });

  test('is 3.1 and describes every operation once', () => {
    expect(document.openapi).toBe('3.1.0');
    const ids = all().map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.sort()).toEqual(operations.map((operation) => operation.id).sort());
  });

  test('has the paths of the guide', () => {
    const paths = all().map(({ method, path }) => `${method} ${path}`);
    for (const known of [
      'get /api/v1/loadbalancer/strategy',
      'put /api/v1/loadbalancer/strategy',
      'get /api/v1/loadbalancer/loads',
      'get /api/v1/loadbalancer/load',
      'post /api/v1/gpu/instances/reserve',
      'post /api/v1/gpu/instances/batch',
    ]) {
      expect(paths).toContain(known);
    }
  });

  test('every reference leads somewhere and every component is used', () => {
    const used = new Set<string>();
    walk(document, (object) => {
      const ref = object.$ref;
      if (typeof ref === 'string') used.add(ref);
    });
    const components = Object.keys(document.components.schemas).map((name) => `#/components/schemas/${name}`);
    expect([...used].sort()).toEqual(components.sort());
  });

  test('path parameters are those in the path, required; no schema is empty', () => {
    for (const { path, operation } of all()) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      const declared = operation.parameters.filter((parameter) => parameter.in === 'path');
      expect(declared.map((parameter) => parameter.name)).toEqual(named);
      expect(declared.every((parameter) => parameter.required)).toBe(true);
      for (const { name, schema } of operation.parameters) {
        expect(Object.keys(schema), `${operation.operationId} ${name}`).not.toEqual([]);
      }
    }
  });

  test('every operation names what can be answered before it is asked', () => {
    for (const { method, path, operation } of all()) {
      const told = Object.keys(operation.responses);
      const always = ['400', '408', '415', '417', '431', '500'];
      expect(told, path).toEqual(expect.arrayContaining(method === 'get' ? always : [...always, '413']));
    }
  });

  test('a message of a stream of events is an event or the gap', () => {
    const stream = document.paths['/api/v1/events']?.get?.responses['200']?.content?.['text/event-stream'];
    const schema = { ...(stream as { 'x-data-schema': object })['x-data-schema'], components: document.components };
    const fits = new Ajv2020({ strict: false, validateFormats: false }).compile(schema);
    const at = new Date().toISOString();
    expect(fits({ id: 1, at, level: 'ok', kind: 'rental', subject: null, message: 'x' })).toBe(true);
    expect(fits({ missed: true })).toBe(true);
    expect(fits({ missed: true, id: 1 })).toBe(false);
  });

  test('the data plane is told by its port, for its address is one of the server’s own machine', async () => {
    const { mode } = createFakeApp().state.get();
    await using other = await startRest(createFakeApp({ mode: { ...mode, proxyUrl: 'http://127.0.0.1:18881' } }));
    const { info } = (await other.call('GET', '/api/v1/openapi.json')).body as { info: { description: string } };
    expect(info.description).toContain('The data plane listens on port 18881 of the same host');
    expect(info.description).not.toContain('127.0.0.1');
  });

  test('every object that may come in or go out is closed', () => {
    const open: string[] = [];
    for (const [name, schema] of Object.entries(document.components.schemas)) {
      walk(schema, (object) => {
        if (object.type === 'object' && object.additionalProperties === undefined) open.push(name);
      });
    }
    expect(open).toEqual([]);
  });

  test('bodies that money depends on are required, others may be left out', () => {
    const required = (id: string) =>
      all().find(({ operation }) => operation.operationId === id)?.operation.requestBody?.required;
    expect(required('reserve')).toBe(true);
    expect(required('createBatch')).toBe(true);
    expect(required('rentOffer')).toBe(false);
    expect(required('drainUpstream')).toBe(false);
    expect(required('getStrategy')).toBeUndefined();
  });
});

test('docs/control-plane.md lists every operation with its scope, every problem code and the limits as they are', () => {
  const text = readFileSync('docs/control-plane.md', 'utf8');
  for (const { method, path, root, access, summary } of operations) {
    const scope = { public: 'no key', local: 'this machine, else read', read: 'read', admin: 'admin' }[access];
    expect(text).toContain(`| \`${method} ${root ? path : `/api/v1${path}`}\` | ${scope} | ${summary} |`);
  }
  for (const code of Object.keys(problems)) expect(text).toContain(`\`${code}\``);
  const { bodyBytes, headerBytes, headersMs, requestMs, connections, streams, keepAliveMs } = defaultRestLimits;
  expect(text).toContain(
    `Body ${bodyBytes / 1024} KiB, headers ${headerBytes / 1024} KiB, headers within ${headersMs / 1000} s, the whole request within ${requestMs / 1000} s, ${connections} connections.`,
  );
  expect(text).toContain(`At most ${streams} streams are open at once.`);
  expect(text).toContain(`Every ${keepAliveMs / 1000} s a comment`);
});
