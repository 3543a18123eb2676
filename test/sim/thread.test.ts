import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { startSimulatorThread } from '../../src/sim/simulator-thread.ts';
import { startTraffic } from '../../src/sim/traffic.ts';
import { call, fastBoot, one, rentBody, until } from './calls.ts';

let sink: Server | undefined;
afterEach(() => {
  sink?.closeAllConnections();
  sink?.close();
  sink = undefined;
});

/** A data plane that answers at once and keeps what it was asked. */
async function startSink(): Promise<{ url: string; seen: { path: string; key: unknown; body: string }[] }> {
  const seen: { path: string; key: unknown; body: string }[] = [];
  sink = createServer(async (request, response) => {
    let body = '';
    for await (const part of request) body += part;
    seen.push({ path: request.url ?? '', key: request.headers['x-api-key'], body });
    response.end(request.method === 'GET' ? '{"data":[{"id":"llama-3.1-8b-instruct"},{"id":"bge-m3"}]}' : '{}');
  });
  await new Promise<void>((resolve) => sink?.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(sink.address() as AddressInfo).port}`, seen };
}

test('the simulator runs in a thread of its own, with traffic, faults and an end', async () => {
  await using sim = await startSimulatorThread({ ...fastBoot, speed: 10 });
  const key = { Authorization: `Bearer ${sim.vastKey}` };
  const { offers } = (
    await call(sim.vastUrl, 'POST', '/api/v0/bundles/', { key, body: { direct_port_count: { gte: 1 } } })
  ).body;
  await call(sim.vastUrl, 'PUT', `/api/v0/asks/${one(offers).id}/`, { key, body: rentBody() });
  const { url } = one(await sim.instances());
  expect(await sim.trafficStats()).toBeNull();
  await sim.startTraffic({ url: url as string, rps: { min: 40, max: 80 } });
  await until(
    () => sim.trafficStats(),
    (stats) => (stats?.ok ?? 0) >= 10,
  );
  await sim.stopTraffic();
  expect(await sim.trafficStats()).toBeNull();
  expect(await sim.addFault({ kind: 'error', route: 'list' })).toMatchObject({ kind: 'error', hits: 0 });
  expect((await call(sim.vastUrl, 'GET', '/api/v1/instances/', { key })).status).toBe(503);
  await sim.clearFaults();
  await expect(sim.addFault({ kind: 'latency', ms: -1 })).rejects.toThrow('ms');
  expect(await sim.ledger()).toHaveLength(1);
  await Promise.all([sim.close(), sim.close()]);
  await expect(sim.instances()).rejects.toThrow('ended');
  await expect(call(sim.vastUrl, 'GET', '/api/v0/gpu_names/unique/')).rejects.toThrow();
});

test('options that are wrong fail the start', async () => {
  await expect(startSimulatorThread({ seed: 0.5 })).rejects.toThrow('seed');
});

test('traffic is varied, carries its key, uses the models that there are, and stops at once', async () => {
  const { url, seen } = await startSink();
  const traffic = startTraffic({ url, key: 'secret', rps: { min: 150, max: 200 } });
  await until(
    async () => seen.length,
    (count) => count > 60,
  );
  await traffic.stop();
  const settled = traffic.stats();
  expect(settled.inFlight).toBe(0);
  expect(seen.every(({ key }) => key === 'secret')).toBe(true);
  const bodies = seen.filter(({ body }) => body !== '').map(({ body }) => JSON.parse(body) as Record<string, unknown>);
  expect(new Set(seen.map(({ path }) => path))).toEqual(
    new Set(['/v1/models', '/v1/chat/completions', '/v1/embeddings']),
  );
  // Before the models are known, requests name none.
  const named = new Set(bodies.map(({ model }) => model).filter((model) => model !== undefined));
  expect(named).toEqual(new Set(['llama-3.1-8b-instruct', 'bge-m3']));
  expect(new Set(bodies.map(({ stream }) => stream))).toEqual(new Set([true, false, undefined]));
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(traffic.stats()).toEqual(settled);
});

test('traffic keeps its bound while nothing answers, and goes on after refusals', async () => {
  sink = createServer(() => {});
  await new Promise<void>((resolve) => sink?.listen(0, '127.0.0.1', resolve));
  const { port } = sink.address() as AddressInfo;
  const traffic = startTraffic({ url: `http://127.0.0.1:${port}`, rps: { min: 200, max: 200 }, maxInFlight: 5 });
  await until(
    async () => traffic.stats(),
    (stats) => stats.skipped > 5,
  );
  expect(traffic.stats().inFlight).toBeLessThanOrEqual(5);
  sink.closeAllConnections();
  sink.close();
  await until(
    async () => traffic.stats(),
    (stats) => stats.failed > 10,
  );
  await traffic.stop();
});
