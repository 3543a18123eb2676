import { once } from 'node:events';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import WebSocket from 'ws';
import { type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import { call, fastBoot, ionetClient, one, type Row, until, vastClient } from './calls.ts';

let sim: Simulator;
let url: string;
let contract: string;
beforeAll(async () => {
  sim = await startSimulator({ ...fastBoot, speed: 40, slots: 2 });
  contract = String(await vastClient(sim).rent());
  url = one(sim.instances()).url as string;
});
beforeEach(() => sim.faults.clear());
afterAll(() => sim.close());

const chat = (more: object = {}) => ({ messages: [{ role: 'user', content: 'hello' }], max_tokens: 12, ...more });
const post = (path: string, body: unknown, signal: AbortSignal | null = null) =>
  fetch(url + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal,
  });
const stats = () => one(sim.instances());
type Chunk = { choices: { delta: { content?: string }; finish_reason: string | null }[]; usage?: object };

describe('answers', () => {
  test('health, the list of models, and 404 for what it does not have', async () => {
    expect((await fetch(`${url}/health`)).status).toBe(200);
    const { body } = await call(url, 'GET', '/v1/models');
    expect(body).toMatchObject({
      object: 'list',
      data: [{ id: 'llama-3.1-8b-instruct', object: 'model' }, { id: 'bge-m3' }],
    });
    expect((await call(url, 'GET', '/v1/nothing')).status).toBe(404);
  });

  test('a plain chat completion, a text completion and embeddings', async () => {
    const answer = (await (await post('/v1/chat/completions', chat())).json()) as {
      choices: { message: { content: string } }[];
    };
    expect(answer).toMatchObject({ object: 'chat.completion', usage: { completion_tokens: 12 } });
    expect(answer.choices[0]?.message.content.split(' ')).toHaveLength(12);
    const text = await (await post('/v1/completions', { prompt: 'x', max_tokens: 3 })).json();
    expect(text).toMatchObject({ object: 'text_completion', choices: [{ index: 0, finish_reason: 'stop' }] });
    const vectors = async () =>
      (await (await post('/v1/embeddings', { model: 'bge-m3', input: ['a', 'b'] })).json()) as {
        data: { embedding: number[] }[];
      };
    const { data } = await vectors();
    expect(data).toHaveLength(2);
    expect(data[0]?.embedding).not.toEqual(data[1]?.embedding);
    expect((await vectors()).data).toEqual(data);
  });

  test('a stream opens with the role, brings the tokens in pieces, and ends with [DONE]', async () => {
    const answer = await post(
      '/v1/chat/completions',
      chat({ stream: true, max_tokens: 60, stream_options: { include_usage: true } }),
    );
    expect(answer.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    const text = await answer.text();
    const events = text
      .trim()
      .split('\n\n')
      .map((event) => event.replace(/^data: /, ''));
    expect(events.pop()).toBe('[DONE]');
    const chunks = events.map((event) => JSON.parse(event) as Chunk);
    expect(chunks[0]?.choices[0]?.delta).toEqual({ role: 'assistant', content: '' });
    expect(chunks.at(-1)?.usage).toMatchObject({ completion_tokens: 60 });
    expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe('stop');
    const said = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
    expect(said.split(' ')).toHaveLength(60);
    expect(chunks.length).toBeGreaterThan(5);
  });

  test('bad input is told as an OpenAI error', async () => {
    for (const [body, status] of [
      ['{"messages":', 400],
      [{ messages: [] }, 400],
      [chat({ max_tokens: 0 }), 400],
      [chat({ model: 'nobody-has-it' }), 404],
    ] as const) {
      const answer = await post('/v1/chat/completions', body);
      expect(answer.status).toBe(status);
      expect(await answer.json()).toMatchObject({ error: { message: expect.any(String), code: status } });
    }
  });

  test('echo sends the body back as it comes', async () => {
    const body = 'x'.repeat(300_000);
    const answer = await fetch(`${url}/echo`, { method: 'PATCH', body, headers: { 'Content-Type': 'text/x' } });
    expect(answer.headers.get('x-sim-method')).toBe('PATCH');
    expect(answer.headers.get('content-type')).toBe('text/x');
    expect(await answer.text()).toBe(body);
  });

  test('a WebSocket echoes text, bytes of any length and pings, and closes properly', async () => {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, ['sim']);
    await once(socket, 'open');
    expect(socket.protocol).toBe('sim');
    for (const size of [0, 5, 125, 126, 65_535, 65_536, 300_000]) {
      const sent = Buffer.alloc(size, size % 251);
      socket.send(sent);
      const [back, isBinary] = (await once(socket, 'message')) as [Buffer, boolean];
      expect(isBinary).toBe(true);
      expect(back.equals(sent)).toBe(true);
    }
    socket.send('grüße');
    expect(String((await once(socket, 'message'))[0])).toBe('grüße');
    socket.ping('beat');
    expect(String((await once(socket, 'pong'))[0])).toBe('beat');
    socket.close(1000, 'done');
    expect((await once(socket, 'close'))[0]).toBe(1000);
  });
});

describe('slots', () => {
  test('what comes above them waits in line, and a client that leaves makes room', async () => {
    const leave = new AbortController();
    sim.faults.add({ kind: 'gpu_slow', factor: 1000, times: 2 });
    const slow = [0, 1].map(() => post('/v1/chat/completions', chat(), leave.signal).catch(() => null));
    await until(
      async () => stats(),
      (it) => it.active === 2,
    );
    let done = false;
    const third = post('/v1/chat/completions', chat()).then((answer) => {
      done = true;
      return answer.status;
    });
    await until(
      async () => stats(),
      (it) => it.queued === 1,
    );
    expect(done).toBe(false);
    leave.abort();
    await Promise.all(slow);
    expect(await third).toBe(200);
    expect(stats()).toMatchObject({ active: 0, queued: 0 });
  });

  test('a full line is refused with Retry-After, and all comes to rest', async () => {
    const statuses = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const answer = await post('/v1/chat/completions', chat());
        await answer.text();
        return answer.status === 503 ? answer.headers.get('retry-after') : answer.status;
      }),
    );
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(18);
    expect(new Set(statuses)).toEqual(new Set([200, '1']));
    await until(
      async () => stats(),
      (it) => it.active === 0 && it.queued === 0,
    );
  });

  test('faster cards answer sooner', async () => {
    await using fleet = await startSimulator({ ...fastBoot, speed: 4 });
    const vast = vastClient(fleet);
    const timeOn = async (gpu_name: string) => {
      const ask = await vast.ask({ gpu_name: { eq: gpu_name }, num_gpus: { eq: 1 } });
      const { body } = await vast.send('PUT', `/api/v0/asks/${ask.id}/`, {
        image: 'x',
        env: { '-p 8000:8000': '1' },
      });
      const base = fleet.instances().find((it) => it.contract === String(body.new_contract))?.url;
      const started = performance.now();
      await (await fetch(`${base}/v1/completions`, { method: 'POST', body: '{"prompt":"x","max_tokens":40}' })).text();
      return performance.now() - started;
    };
    const slow = await timeOn('Tesla T4');
    expect(await timeOn('H100 SXM')).toBeLessThan(slow / 2);
  });
});

describe('faults', () => {
  test('an error, too many requests with Retry-After, and both only for inference', async () => {
    sim.faults.add({ kind: 'gpu_error', instance: contract, status: 503, times: 1 });
    expect((await post('/v1/chat/completions', chat())).status).toBe(503);
    sim.faults.add({ kind: 'gpu_rate_limit', retryAfterS: 7 });
    const limited = await post('/v1/chat/completions', chat());
    expect([limited.status, limited.headers.get('retry-after')]).toEqual([429, '7']);
    expect((await fetch(`${url}/health`)).status).toBe(200);
    sim.faults.add({ kind: 'gpu_error', paths: 'health' });
    expect((await fetch(`${url}/health`)).status).toBe(500);
  });

  test('another instance is left alone', async () => {
    sim.faults.add({ kind: 'gpu_error', instance: '12345' });
    sim.faults.add({ kind: 'gpu_error', instance: 'ionet' });
    expect((await post('/v1/chat/completions', chat())).status).toBe(200);
  });

  test('a reset before the first byte, in the middle of a stream, and in the middle of a plain answer', async () => {
    sim.faults.add({ kind: 'gpu_reset', afterChunks: 0, times: 1 });
    await expect(post('/v1/chat/completions', chat())).rejects.toThrow();
    for (const stream of [true, false]) {
      sim.faults.add({ kind: 'gpu_reset', afterChunks: 2, times: 1 });
      const answer = await post('/v1/chat/completions', chat({ stream, max_tokens: 200 }));
      expect(answer.status).toBe(200);
      let bytes = 0;
      await expect(async () => {
        for await (const part of answer.body as ReadableStream<Uint8Array>) bytes += part.length;
      }).rejects.toThrow();
      expect(bytes).toBeGreaterThan(0);
    }
    await until(
      async () => stats(),
      (it) => it.active === 0,
    );
  });

  test('a hang before the answer and within it lasts until the client leaves', async () => {
    sim.faults.add({ kind: 'gpu_hang', times: 1 });
    await expect(post('/v1/chat/completions', chat(), AbortSignal.timeout(100))).rejects.toThrow('timeout');
    sim.faults.add({ kind: 'gpu_hang', afterChunks: 1, times: 1 });
    const answer = await post('/v1/chat/completions', chat({ stream: true }), AbortSignal.timeout(200));
    await expect(answer.text()).rejects.toThrow();
    await until(
      async () => stats(),
      (it) => it.active === 0,
    );
  });

  test('slowness multiplies the time', async () => {
    const time = async () => {
      const started = performance.now();
      await (await post('/v1/chat/completions', chat())).text();
      return performance.now() - started;
    };
    const usual = await time();
    sim.faults.add({ kind: 'gpu_slow', factor: 20 });
    expect(await time()).toBeGreaterThan(usual * 3);
  });

  test('a vanished server refuses connections while the marketplace says running, and comes back at its port', async () => {
    const gone = () =>
      fetch(`${url}/health`).then(
        () => false,
        () => true,
      );
    const fault = sim.faults.add({ kind: 'gpu_vanish', instance: `vast-${contract}` });
    await until(gone, (it) => it);
    expect(stats()).toMatchObject({ status: 'running', url });
    sim.faults.remove(fault.id);
    await until(gone, (it) => !it);
  });

  test('an offline host takes connections and says nothing', async () => {
    sim.faults.add({ kind: 'offline', instance: contract });
    await expect(fetch(`${url}/health`, { signal: AbortSignal.timeout(150) })).rejects.toThrow('timeout');
    sim.faults.add({ kind: 'online', instance: contract });
    // Connections from before are reset.
    await until(
      () =>
        fetch(`${url}/health`).then(
          (answer) => answer.status,
          () => 0,
        ),
      (status) => status === 200,
    );
  });

  test('every replica of a deployment vanishes', async () => {
    await using fleet = await startSimulator({ ...fastBoot, offers: { vast: 0, ionet: 60 } });
    const ionet = ionetClient(fleet);
    const { hardware } = await ionet.data<{ hardware: Row[] }>('/hardware/max-gpus-per-container');
    const most = one(hardware.toSorted((a, b) => b.available - a.available));
    const places = await ionet.data<Row[]>(`/available-replicas?hardware_id=${most.hardware_id}&hardware_qty=1`);
    const { body } = await ionet.deploy({
      hardware_id: most.hardware_id,
      location_ids: places.map((row) => row.id),
      container_config: { replica_count: 2 },
    });
    fleet.faults.add({ kind: 'gpu_vanish', instance: body.deployment_id });
    for (const { public_url } of await ionet.workers(body.deployment_id)) {
      await until(
        () =>
          fetch(`${public_url}/health`).then(
            () => false,
            () => true,
          ),
        (refused) => refused,
      );
    }
  });

  test.each([
    ['refuse', 0],
    ['error', 503],
  ] as const)('an application that never gets healthy: %s', async (how, expected) => {
    await using fleet = await startSimulator({ ...fastBoot, faults: [{ kind: 'never_healthy', how }] });
    await vastClient(fleet).rent();
    const { url: base, status } = one(fleet.instances());
    expect(status).toBe('running');
    const health = await fetch(`${base}/health`).then(
      (answer) => answer.status,
      () => 0,
    );
    expect(health).toBe(expected);
  });

  test('a slow boot, and one that is stuck', async () => {
    await using fleet = await startSimulator({ bootMs: { min: 20, max: 20 } });
    const vast = vastClient(fleet);
    fleet.faults.add({ kind: 'slow_boot', factor: 1000, times: 1 });
    fleet.faults.add({ kind: 'never_healthy', how: 'stuck', times: 1 });
    const [stuck, usual] = [await vast.rent(), await vast.rent()];
    await until(
      async () => (await vast.get(usual))?.actual_status,
      (status) => status === 'running',
    );
    expect((await vast.get(stuck))?.actual_status).not.toBe('running');
  });
});
