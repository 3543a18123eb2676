import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import type { TraceSettings } from '../../src/proxy/tracer.ts';
import { Rig, until } from './rig.ts';

type Value = { stringValue?: string; intValue?: string; doubleValue?: number };
type Span = {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: Value }[];
  events?: { name: string; timeUnixNano: string }[];
  status: { code?: number };
};

/** A receiver of OTLP/HTTP, as far as a sender can tell. */
class Collector {
  readonly server: Server;
  readonly spans: Span[] = [];
  readonly headers: IncomingHttpHeaders[] = [];
  readonly resources: Record<string, unknown>[] = [];
  /** Status of the next answers. */
  refusals: number[] = [];

  constructor() {
    this.server = createServer(async (req, res) => {
      const chunks: Buffer[] = [];
      for await (const chunk of req) chunks.push(chunk as Buffer);
      const refusal = this.refusals.shift();
      if (refusal !== undefined || req.url !== '/v1/traces' || req.headers['content-type'] !== 'application/json') {
        res.writeHead(refusal ?? 404).end();
        return;
      }
      this.headers.push(req.headers);
      for (const { resource, scopeSpans } of JSON.parse(Buffer.concat(chunks).toString()).resourceSpans) {
        this.resources.push(plain(resource.attributes));
        for (const { spans } of scopeSpans) this.spans.push(...spans);
      }
      res.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  }

  async start(): Promise<string> {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.close();
    this.server.closeAllConnections();
  }
}

const plain = (attributes: Span['attributes']) =>
  Object.fromEntries(
    attributes.map(({ key, value }) => [key, value.stringValue ?? value.doubleValue ?? Number(value.intValue)]),
  );
const tracing = (endpoint: string, change: Partial<TraceSettings> = {}): TraceSettings => ({
  endpoint,
  headers: { 'x-collector-key': 'hunter22' },
  service: 'front',
  sampler: 'parentbased_always_on',
  ratio: 1,
  ...change,
});
const client = { trace: '0af7651916cd43dd8448eb211c80319c', span: 'b7ad6b7169203331' };

test('a request is a span under that of its client, its attempts are spans under it, and upstreams see theirs', async () => {
  await using collector = new Collector();
  const endpoint = await collector.start();
  await using rig = await Rig.start({ settings: { tracing: tracing(endpoint) }, strategy: 'round_robin' });
  const seen: string[] = [];
  await rig.backend('a', (req, res) => {
    seen.push(String(req.headers.traceparent));
    res.writeHead(503).end();
  });
  await rig.backend('b', (req, res) => {
    seen.push(String(req.headers.traceparent));
    res.writeHead(200, { 'content-type': 'application/json' });
    res.end('{"usage":{"prompt_tokens":3,"completion_tokens":4}}');
  });
  const started = Date.now();
  const answer = await fetch(`${rig.url}/v1/completions?key=hunter33`, {
    method: 'POST',
    body: '{}',
    headers: {
      traceparent: `00-${client.trace}-${client.span}-01`,
      tracestate: 'vendor=1',
      authorization: 'Bearer hunter44',
    },
  });
  await answer.text();
  await until(() => collector.spans.length >= 3);

  const [request, ...attempts] = collector.spans;
  expect(request).toMatchObject({
    traceId: client.trace,
    parentSpanId: client.span,
    name: 'POST',
    kind: 2,
    status: {},
  });
  expect(plain(request!.attributes)).toMatchObject({
    'url.path': '/v1/completions',
    'http.response.status_code': 200,
    'gpuproxy.cause': 'complete',
    'gen_ai.usage.input_tokens': 3,
    'gen_ai.usage.output_tokens': 4,
  });
  expect(attempts).toHaveLength(2);
  for (const attempt of attempts)
    expect(attempt).toMatchObject({ traceId: client.trace, parentSpanId: request!.spanId, kind: 3 });
  expect(seen).toEqual(attempts.map(({ spanId }) => `00-${client.trace}-${spanId}-01`));
  const [failed, good] = attempts.map(({ attributes }) => plain(attributes));
  expect(failed).toMatchObject({
    'gpuproxy.upstream': 'a',
    'http.response.status_code': 503,
    'gpuproxy.ending': 'server_error',
  });
  expect(good).toMatchObject({
    'gpuproxy.upstream': 'b',
    'http.response.status_code': 200,
    'http.request.resend_count': 1,
  });
  expect(attempts.map(({ status }) => status.code)).toEqual([2, 0]);

  for (const span of collector.spans) {
    const [from, to] = [BigInt(span.startTimeUnixNano), BigInt(span.endTimeUnixNano)];
    expect(to >= from).toBe(true);
    expect(Math.abs(Number(from / 1_000_000n) - started)).toBeLessThan(60_000);
    expect(span.spanId).toMatch(/^[0-9a-f]{16}$/);
  }
  expect(attempts[1]!.events?.map(({ name }) => name)).toEqual(['first byte']);
  expect(collector.resources[0]).toMatchObject({ 'service.name': 'front' });
  expect(collector.headers[0]!['x-collector-key']).toBe('hunter22');
  expect(JSON.stringify(collector.spans)).not.toMatch(/hunter/);
  await until(() => rig.reports.at(-1)?.counters.spansExported === 3);
});

test('a request without a context begins a trace; one whose client does not sample leaves none and passes its context on', async () => {
  await using collector = new Collector();
  await using rig = await Rig.start({ settings: { tracing: tracing(await collector.start()) } });
  const seen: (string | undefined)[] = [];
  await rig.backend('a', (req, res) => {
    seen.push(req.headers.traceparent as string | undefined);
    res.end();
  });
  const unsampled = `00-${client.trace}-${client.span}-00`;
  await (await fetch(rig.url, { headers: { traceparent: unsampled } })).text();
  await (await fetch(rig.url, { headers: { traceparent: 'nonsense' } })).text();
  await until(() => collector.spans.length >= 2);
  expect(seen[0]).toBe(unsampled);
  expect(collector.spans).toHaveLength(2);
  expect(collector.spans[0]!.traceId).toMatch(/^[0-9a-f]{32}$/);
  expect(collector.spans[0]!.parentSpanId).toBeUndefined();
  expect(seen[1]).toBe(`00-${collector.spans[0]!.traceId}-${collector.spans[1]!.spanId}-01`);
});

test('a ratio keeps about that part of the traces, the same ones at every hop', async () => {
  const traces = Array.from({ length: 60 }, (_, i) => createHash('sha256').update(`${i}`).digest('hex').slice(0, 32));
  const kept = async () => {
    await using collector = new Collector();
    const settings = { tracing: tracing(await collector.start(), { sampler: 'traceidratio', ratio: 0.5 }) };
    await using rig = await Rig.start({ settings });
    await rig.backend('a', (_req, res) => void res.end());
    for (const id of traces) {
      await (await fetch(rig.url, { headers: { traceparent: `00-${id}-${client.span}-01` } })).text();
    }
    await rig.proxy.close();
    return new Set(collector.spans.map(({ traceId }) => traceId));
  };
  const first = await kept();
  expect(first.size).toBeGreaterThan(15);
  expect(first.size).toBeLessThan(45);
  expect(await kept()).toEqual(first);
});

test('a receiver that is busy gets the spans again, one that refuses does not, and none of it touches the requests', async () => {
  await using collector = new Collector();
  collector.refusals = [503, 400];
  await using rig = await Rig.start({ settings: { tracing: tracing(await collector.start()) } });
  await rig.backend('a', (_req, res) => void res.end('fine'));
  expect(await (await fetch(rig.url)).text()).toBe('fine');
  await until(() => collector.refusals.length === 0);
  await until(() => rig.reports.at(-1)?.counters.spansDropped === 2);
  expect(await (await fetch(rig.url)).text()).toBe('fine');
  await until(() => rig.reports.at(-1)?.counters.spansExported === 2);
  expect(collector.spans).toHaveLength(2);
});

test('spans that are still here at the end are sent before the proxy has closed', async () => {
  await using collector = new Collector();
  await using rig = await Rig.start({ settings: { tracing: tracing(await collector.start()) } });
  await rig.backend('a', (_req, res) => void res.end());
  await (await fetch(rig.url)).text();
  await rig.proxy.drain(1000);
  expect(collector.spans).toHaveLength(2);
});
