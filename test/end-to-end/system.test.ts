import { type ChildProcess, spawn } from 'node:child_process';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createProgram, type Program } from '../cli/program.ts';
import { eventually } from '../helpers/eventually.ts';

let program: Program;
beforeAll(async () => {
  program = await createProgram();
}, 60_000);
afterAll(() => program?.remove());

const key = 'an-admin-key-for-tests';

type Serving = { child: ChildProcess; api: string; proxy: string; log: () => string; ended: Promise<number | null> };

/** `gpuproxy serve` on free ports; its addresses are read from what it prints. */
async function serve(args: readonly string[], env: Record<string, string> = {}): Promise<Serving> {
  const child = spawn(process.execPath, [program.main, 'serve', '--port', '0', '--proxy-port', '0', ...args], {
    cwd: join(program.folder, 'empty'),
    env: program.environment({ GPUPROXY_API_KEY: key, ...env }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  await eventually(() => /data plane +http/.test(text) || child.exitCode !== null, 'the addresses');
  const address = (name: string) => new RegExp(`${name} +(http://[0-9.:]+)`).exec(text)?.[1] ?? '';
  return { child, api: address('control plane'), proxy: address('data plane'), log: () => text, ended };
}

describe('a server on the simulated fleet', () => {
  let server: Serving;
  const get = async (path: string) =>
    (await fetch(`${server.api}/api/v1${path}`, { headers: { 'x-api-key': key } })).json();
  const cli = (...args: string[]) => program.run([...args, '--url', server.api, '--key', key]);

  beforeAll(async () => {
    server = await serve(['--demo'], { PATH: process.env.PATH ?? '' });
    await eventually(async () => {
      const { upstreams } = (await get('/fleet')) as { upstreams: { eligible: boolean }[] };
      return upstreams.filter((row) => row.eligible).length >= 3;
    }, 'three upstreams in rotation');
  }, 60_000);
  afterAll(async () => {
    server.child.kill('SIGKILL');
    await server.ended;
  });

  it('answers the guide: strategy, switch, loads, one load, reservation', async () => {
    const put = await fetch(`${server.api}/api/v1/loadbalancer/strategy`, {
      method: 'PUT',
      headers: { 'x-api-key': key, 'content-type': 'application/json' },
      body: '{"strategy": "least_connections"}',
    });
    expect(await put.json()).toEqual({ strategy: 'least_connections', message: 'Load balancing strategy updated' });
    expect(await get('/loadbalancer/strategy')).toEqual({ strategy: 'least_connections' });

    const reserved = await fetch(`${server.api}/api/v1/gpu/instances/reserve`, {
      method: 'POST',
      headers: { 'x-api-key': key, 'content-type': 'application/json' },
      body: JSON.stringify({
        count: 4,
        filters: { min_vram: 24, max_price: 2.0 },
        config: { image: 'nvidia/cuda:12.0.0-base' },
      }),
    });
    expect(reserved.status).toBe(201);
    const answer = (await reserved.json()) as { reserved: { instance_id: string }[]; count: number };
    expect(answer).toMatchObject({ count: 4, requested: 4, errors: [] });
    expect(Object.keys(answer.reserved[0] ?? {})).toEqual(
      expect.arrayContaining(['instance_id', 'contract_id', 'provider', 'gpu_model', 'vram', 'price']),
    );

    // From four contracts through boot and probe into the load table, and then traffic.
    await eventually(async () => {
      const { loads } = (await get('/loadbalancer/loads')) as { loads: Record<string, { total_connections: number }> };
      return answer.reserved.every(({ instance_id: id }) => (loads[id]?.total_connections ?? 0) > 0);
    }, 'traffic on all four');
    const id = answer.reserved[0]?.instance_id ?? '';
    expect(await get(`/loadbalancer/load?instance_id=${id}`)).toMatchObject({
      instance_id: id,
      avg_response_time: expect.stringMatching(/ms$/),
    });
  });

  it('forwards a streamed completion and shows its connection while it is open', async () => {
    const stop = new AbortController();
    const answer = await fetch(`${server.proxy}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-api-key': key, authorization: 'Bearer client-secret' },
      body: JSON.stringify({ stream: true, max_tokens: 400, messages: [{ role: 'user', content: 'hello' }] }),
      signal: stop.signal,
    });
    expect(answer.status).toBe(200);
    const instance = answer.headers.get('x-gpuproxy-instance') ?? '';
    const first = await answer.body!.getReader().read();
    expect(new TextDecoder().decode(first.value)).toContain('data:');
    await eventually(async () => {
      const load = (await get(`/loadbalancer/load?instance_id=${instance}`)) as { active_connections: number };
      return load.active_connections >= 1;
    }, 'its active connection');
    stop.abort();
  });

  it('prints the columns of the guide', async () => {
    const table = await cli('load', 'server');
    expect(table.stdout).toMatch(
      /^Load Balancing Strategy: least_connections\nTracked Instances: \d+\n\nINSTANCE +PROVIDER +ACTIVE +TOTAL +AVG RT +WEIGHT\n/,
    );
    const providers = await cli('load', 'provider');
    expect(providers.stdout).toMatch(
      /^Provider Load:\n {2}vast\.ai: \d+ available instances\n {2}io\.net: {2}\d+ available instances\n {2}Total: {3}\d+ instances\n$/,
    );
    const json = await cli('load', 'server', '--json');
    expect(JSON.parse(json.stdout)).toMatchObject({ strategy: 'least_connections', loads: {} });
  });

  it('is shown by a dashboard elsewhere, which says so', async () => {
    const frame = await program.run(['tui', '--url', server.api, '--key', key], {
      env: { COLUMNS: '160', LINES: '45' },
    });
    expect(frame.stderr).toBe('');
    expect(frame.code).toBe(0);
    expect(frame.stdout).toContain('least_connections');
    expect(frame.stdout).toMatch(/vast-\d+/);
  });

  it('tells readiness; on SIGTERM it is not ready, finishes what is open and exits with 0', async () => {
    expect((await fetch(`${server.api}/healthz`)).status).toBe(200);
    expect((await fetch(`${server.api}/readyz`)).status).toBe(200);
    const open = await fetch(`${server.proxy}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ stream: true, max_tokens: 300, messages: [{ role: 'user', content: 'hello' }] }),
    });
    server.child.kill('SIGTERM');
    await eventually(async () => (await fetch(`${server.api}/readyz`)).status === 503, 'not ready while it drains');
    expect(await open.text()).toMatch(/data: \[DONE\]\s*$/);
    expect(await server.ended).toBe(0);
    expect(server.log()).toContain('drained, ends');
  }, 60_000);
});

describe('bad starts', () => {
  it('with nothing configured, serve exits 2 and names the variables', async () => {
    const { code, stderr } = await program.run(['serve']);
    expect(code).toBe(2);
    expect(stderr).toContain('VASTAI_API_KEY');
    expect(stderr).toContain('UPSTREAMS');
  });

  it('with an unknown strategy in LB_STRATEGY it exits 2 and lists the known ones', async () => {
    const { code, stderr } = await program.run(['serve', '--demo'], { env: { LB_STRATEGY: 'least_conn' } });
    expect(code).toBe(2);
    expect(stderr).toContain('LB_STRATEGY: got "least_conn", accepts one of round_robin');
  });

  it.each(['--port', '--proxy-port'])('with %s in use it says so in one line and exits 1', async (option) => {
    const other = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    const { port } = other.address() as { port: number };
    const args =
      option === '--port'
        ? ['--port', String(port), '--proxy-port', '0']
        : ['--port', '0', '--proxy-port', String(port)];
    const { code, stderr } = await program.run(['serve', '--demo', ...args]);
    other.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^error: .*${port}.*in use`, 'm'));
    expect(stderr).not.toContain('    at ');
  });
});

describe('two servers on one data directory', () => {
  it('the second says who holds it and exits 2', async () => {
    const settings = { GPUPROXY_DATA_DIR: join(program.folder, 'shared'), UPSTREAMS: 'http://127.0.0.1:9' };
    const first = await serve([], settings);
    const second = await program.run(['serve', '--port', '0', '--proxy-port', '0'], { env: settings });
    first.child.kill('SIGTERM');
    expect(await first.ended).toBe(0);
    expect(second.code).toBe(2);
    expect(second.stderr).toContain(`in use by another gpuproxy (pid ${first.child.pid})`);
  });
});

describe('a second SIGTERM', () => {
  it('ends at once what the first one would have waited for, and the stream is seen to be cut', async () => {
    const upstream = createHttpServer((req, res) => {
      res.write(req.url === '/health' ? '' : 'data: begun\n\n');
      if (req.url === '/health') res.end();
    });
    await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
    const { port } = upstream.address() as AddressInfo;
    const server = await serve([], {
      GPUPROXY_DATA_DIR: join(program.folder, 'twice'),
      UPSTREAMS: `http://127.0.0.1:${port}`,
      DRAIN_SECONDS: '120',
    });
    await eventually(async () => (await fetch(`${server.api}/readyz`)).status === 200, 'an upstream');
    const open = await fetch(`${server.proxy}/stream`);
    server.child.kill('SIGTERM');
    await eventually(async () => (await fetch(`${server.api}/readyz`)).status === 503, 'draining');
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(server.child.exitCode).toBe(null);
    const at = performance.now();
    server.child.kill('SIGTERM');
    expect(await server.ended).toBe(143);
    // Far from the 120 seconds that the stream was given.
    expect(performance.now() - at).toBeLessThan(20_000);
    await expect(open.text()).rejects.toThrow();
    upstream.closeAllConnections();
    upstream.close();
  }, 60_000);
});

describe('the configured key', () => {
  it('replaces the one of the last start, which is good no longer', async () => {
    const settings = { GPUPROXY_DATA_DIR: join(program.folder, 'rotated'), UPSTREAMS: 'http://127.0.0.1:9' };
    const status = async (server: Serving, apiKey: string) =>
      (await fetch(`${server.api}/api/v1/fleet`, { headers: { 'x-api-key': apiKey } })).status;
    for (const [now, before] of [['first-key-of-two'], ['second-key-of-two', 'first-key-of-two']] as const) {
      const server = await serve([], { ...settings, GPUPROXY_API_KEY: now });
      expect(await status(server, now)).toBe(200);
      if (before !== undefined) expect(await status(server, before)).toBe(401);
      server.child.kill('SIGTERM');
      expect(await server.ended).toBe(0);
    }
  });
});

describe('the dashboard without a terminal', () => {
  it('prints one frame of the living demo and exits 0', async () => {
    const { code, stdout, stderr } = await program.run(['tui'], {
      env: { GPUPROXY_PORT: '0', GPUPROXY_PROXY_PORT: '0', GPUPROXY_API_KEY: key },
    });
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout).toContain('SIMULATED FLEET: no money is spent');
    expect(stdout).toMatch(/INSTANCE +PROVIDER +ACTIVE +TOTAL +AVG RT +WEIGHT/);
    expect(stdout).toMatch(/vast-\d+ +vast\.ai/);
  });
});
