import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import type { LocalApp } from '../../src/fleet/app.ts';
import { createProxy } from '../../src/proxy/create-proxy.ts';
import { createStage, until } from './fixture.ts';

/** The data plane in front of the fleet, and a client that reads one long answer through it. */
async function longAnswer(app: LocalApp, path: string, body?: unknown) {
  const proxy = await createProxy({
    table: app.dataPlane.table,
    thread: 1,
    host: '127.0.0.1',
    port: 0,
    directory: app.dataPlane.directory(),
    report: (report) => app.dataPlane.report(report),
  });
  const stop = app.dataPlane.onDirectory((entries) => proxy.setDirectory(entries));
  const answer = await fetch(`http://127.0.0.1:${proxy.port}${path}`, {
    ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    headers: { 'content-type': 'application/json' },
  });
  const reader = answer.body?.getReader();
  let chunks = 0;
  const ended = (async () => {
    for (;;) {
      const next = await reader?.read();
      if (next === undefined || next.done) return 'cleanly';
      chunks += 1;
    }
  })().catch(() => 'broken off');
  return {
    chunks: () => chunks,
    ended,
    async [Symbol.asyncDispose]() {
      stop();
      await proxy.close();
    },
  };
}

test('a drained upstream keeps its open requests until the deadline and loses them there, as drained', async () => {
  await using stage = await createStage();
  const server = createServer((request, response) => {
    if (request.url !== '/stream') {
      response.end('{}');
      return;
    }
    const timer = setInterval(() => response.write('tick\n'), 10);
    response.on('close', () => clearInterval(timer));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const app = await stage.start({ providers: [], flags: { UPSTREAMS: `a=${url}` } });
    const view = () => app.state.get().upstreams[0];
    await until('up', () => view()?.eligible);
    await using client = await longAnswer(app, '/stream');
    await until('it streams', () => client.chunks() > 3);
    await app.drain('static-a', { deadlineMs: 1200 });
    const before = client.chunks();
    await until('it goes on', () => client.chunks() > before + 10);
    expect(view()?.reason).toBe('finishing 1 open request');
    expect(await client.ended).toBe('broken off');
    await until('counted as drained', () => view()?.endings.drained === 1 && view()?.active === 0);
    expect(app.events.recent().some((event) => event.message.includes('1 open request was cut'))).toBe(true);
    // It is in the directory again, with connections of its own, for when it is resumed.
    expect(app.dataPlane.directory()).toHaveLength(1);
    expect(await app.resume('static-a')).toMatchObject({ eligible: true });
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('destroy leaves open requests alone until its deadline, and now does not', async () => {
  await using stage = await createStage({ speed: 0.2 });
  const app = await stage.start({ timing: { destroyWaitMs: 100 } });
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  const id = reserved[0]?.instanceId ?? '';
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  const [model] = await until('its models', () => app.dataPlane.directory()[0]?.models);
  await using client = await longAnswer(app, '/v1/chat/completions', {
    model,
    stream: true,
    max_tokens: 4000,
    messages: [{ role: 'user', content: 'tell me' }],
  });
  await until('it streams', () => client.chunks() > 1);
  expect(await app.destroy(id, { deadlineMs: 60_000 })).toEqual({ id, status: 'destroying' });
  const before = client.chunks();
  await until('it goes on', () => client.chunks() > before + 2);
  expect(stage.simulator.instances()).toHaveLength(1);
  await app.destroy(id, { now: true });
  expect(await client.ended).toBe('broken off');
  await until('destroyed', () => stage.simulator.instances().length === 0);
});
