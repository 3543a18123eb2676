import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import { eventually } from '../helpers/eventually.ts';
import { createProgram, type Program } from './program.ts';

let program: Program;
let simulator: Simulator;
const servers: Server[] = [];
beforeAll(async () => {
  [program, simulator] = await Promise.all([createProgram(), startSimulator({ credit: { vast: 2 } })]);
});
afterAll(async () => {
  for (const server of servers) server.close();
  await simulator[Symbol.asyncDispose]();
  program.remove();
});

async function listen(listener: RequestListener): Promise<{ url: string; port: number }> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  servers.push(server);
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, port };
}

type Check = { name: string; status: string; detail: string; hint: string | null };

async function doctor(env: Record<string, string>): Promise<{ code: number | null; checks: Check[] }> {
  const { code, stdout } = await program.run(['doctor', '--json'], {
    env: { GPUPROXY_URL: 'http://127.0.0.1:9', GPUPROXY_PORT: '0', GPUPROXY_PROXY_PORT: '0', ...env },
  });
  return { code, checks: (JSON.parse(stdout) as { checks: Check[] }).checks };
}
const named = (checks: Check[], name: string) => checks.filter((check) => check.name === name);
const vast = (): Record<string, string> => ({ VASTAI_API_KEY: simulator.vastKey, VASTAI_URL: simulator.vastUrl });

describe('doctor', () => {
  it('asks each provider for its credit, and warns when it is low', async () => {
    const { code, checks } = await doctor({
      ...vast(),
      IONET_API_KEY: simulator.ionetKey,
      IONET_URL: simulator.ionetUrl,
    });
    expect(code).toBe(0);
    expect(named(checks, 'vast.ai')).toMatchObject([
      { status: 'warn', detail: expect.stringContaining('credit $2.00'), hint: expect.stringContaining('add credit') },
    ]);
    expect(named(checks, 'io.net')).toMatchObject([{ status: 'ok', detail: expect.stringContaining('key accepted') }]);
    expect(named(checks, 'vast.ai clock')).toMatchObject([{ status: 'ok' }]);
  });

  it('says of a key that is refused where to set another', async () => {
    const { code, checks } = await doctor({ ...vast(), VASTAI_API_KEY: 'not-the-key' });
    expect(code).toBe(1);
    expect(named(checks, 'vast.ai')).toMatchObject([
      { status: 'fail', detail: 'the key was refused', hint: expect.stringContaining('VASTAI_API_KEY') },
    ]);
  });

  it('says of a provider that cannot be reached which variable to look at', async () => {
    const { code, checks } = await doctor({ ...vast(), VASTAI_URL: 'http://127.0.0.1:9' });
    expect(code).toBe(1);
    expect(named(checks, 'vast.ai')).toMatchObject([
      { status: 'fail', detail: expect.stringContaining('ECONNREFUSED'), hint: expect.stringContaining('VASTAI_URL') },
    ]);
  });

  it('sees that the clock is wrong', async () => {
    const { url } = await listen((_req, res) => {
      res.setHeader('date', new Date(Date.now() - 3_600_000).toUTCString());
      res.writeHead(401).end();
    });
    const { checks } = await doctor({ ...vast(), VASTAI_URL: url });
    const [clock] = named(checks, 'vast.ai clock');
    expect(clock).toMatchObject({ status: 'fail', hint: expect.stringContaining('set the clock') });
    expect(clock?.detail).toMatch(/differs by 3\d{3} s/);
  });

  it('sees a port that another program has, and an upstream that is not well', async () => {
    const { url, port } = await listen((_req, res) => {
      res.writeHead(500).end();
    });
    const { code, checks } = await doctor({
      GPUPROXY_PORT: String(port),
      UPSTREAMS: `sick=${url},gone=http://127.0.0.1:9`,
    });
    expect(code).toBe(1);
    expect(named(checks, 'control plane')).toMatchObject([
      { status: 'fail', detail: expect.stringContaining('in use'), hint: expect.stringContaining('GPUPROXY_PORT') },
    ]);
    expect(named(checks, 'upstream sick')).toMatchObject([{ status: 'fail', detail: expect.stringContaining('500') }]);
    expect(named(checks, 'upstream gone')).toMatchObject([
      { status: 'fail', detail: expect.stringContaining('ECONNREFUSED') },
    ]);
  });

  it.each([
    [
      'a certificate that cannot be read',
      { TLS_CERT: '/nowhere/cert.pem', TLS_KEY: '/nowhere/key.pem' },
      'TLS',
      'TLS_CERT',
    ],
    ['a certificate that is none', { TLS_CERT: '/etc/hostname', TLS_KEY: '/etc/hostname' }, 'TLS', 'PEM certificate'],
    ['an access log that cannot be written', { ACCESS_LOG: '/proc/nowhere/access.log' }, 'access log', 'ACCESS_LOG'],
    ['a data folder that cannot be made', { GPUPROXY_DATA_DIR: '/proc/nowhere/data' }, 'data folder', 'cannot be made'],
    ['a data folder that is a file', { GPUPROXY_DATA_DIR: '/etc/hostname' }, 'data folder', 'ENOTDIR'],
  ])('fails with %s, as serve does', async (_what, env, name, detail) => {
    const { code, checks } = await doctor(env);
    expect(code).toBe(1);
    expect(named(checks, name)).toMatchObject([{ status: 'fail', detail: expect.stringContaining(detail) }]);
    expect(named(checks, name)[0]?.hint).not.toContain('make room');
    const started = await program.run(['serve', '--upstreams', 'http://127.0.0.1:9'], {
      env: { GPUPROXY_PORT: '0', GPUPROXY_PROXY_PORT: '0', ...env },
    });
    expect([started.code, started.stdout]).toEqual([2, '']);
  });

  it('leaves nothing behind of what it tried', async () => {
    const folder = mkdtempSync(join(program.folder, 'tried-'));
    const { checks } = await doctor({
      GPUPROXY_DATA_DIR: join(folder, 'state', 'data'),
      ACCESS_LOG: join(folder, 'logs', 'access.log'),
    });
    expect(named(checks, 'data folder')).toMatchObject([{ status: 'ok' }]);
    expect(named(checks, 'access log')).toMatchObject([{ status: 'ok' }]);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('says that nothing is configured, and what to set', async () => {
    const { code, checks } = await doctor({});
    expect(code).toBe(0);
    expect(named(checks, 'configuration')).toMatchObject([
      { status: 'warn', hint: expect.stringContaining('VASTAI_API_KEY') },
    ]);
    expect(named(checks, 'server')).toMatchObject([
      { status: 'warn', hint: expect.stringContaining('gpuproxy serve') },
    ]);
  });
});

describe('serve --dry-run', () => {
  const dry = (more: string[], env: Record<string, string>) =>
    program.run(['serve', '--dry-run', ...more], { env: { GPUPROXY_PROXY_PORT: '0', ...env } });

  it('shows what would run with the configuration in force, its secrets masked, and starts nothing', async () => {
    const env = { ...vast(), UPSTREAMS: 'lab=http://10.0.0.5:8000', LB_STRATEGY: 'least_connections' };
    const before = simulator.calls().length;
    const { code, stdout, stderr } = await dry(['--port', '18980'], env);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /^control plane +http:\/\/127\.0\.0\.1:18980\ndata plane +http:\/\/127\.0\.0\.1, a free port\n/,
    );
    expect(stdout).toMatch(/\nproviders +vast\.ai\nupstreams +lab http:\/\/10\.0\.0\.5:8000\n/);
    expect(stdout).toMatch(/\nLB_STRATEGY +environment +least_connections\n/);
    expect(stdout).toMatch(/\nGPUPROXY_PORT +flag +18980\n/);
    expect(stdout).not.toContain(simulator.vastKey);
    expect(simulator.calls().length).toBe(before);
    const document = JSON.parse((await dry(['--json', '--demo'], {})).stdout);
    expect(document).toMatchObject({
      port: 8080,
      proxy_port: 0,
      data_dir: null,
      simulated: true,
      providers: ['vast.ai', 'io.net'],
      config: { GPUPROXY_PROXY_PORT: { value: '0', origin: 'environment' } },
    });
  });

  it.each([
    ['nothing to balance', {}, 'nothing to balance'],
    ['a wrong variable', { UPSTREAMS: 'http://x:1', LB_STRATEGY: 'fastest' }, 'LB_STRATEGY: got "fastest"'],
    ['a file that cannot be read', { UPSTREAMS: 'http://x:1', TLS_CERT: '/no', TLS_KEY: '/no' }, 'TLS_CERT'],
    ['a folder that cannot be made', { UPSTREAMS: 'http://x:1', GPUPROXY_DATA_DIR: '/proc/no' }, '/proc/no'],
  ])('ends with exit 2 and the error of %s', async (_what, env, message) => {
    const { code, stdout, stderr } = await dry([], env);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(message);
  });

  it('is what --json needs', async () => {
    const { code, stderr } = await program.run(['serve', '--json', '--demo']);
    expect([code, JSON.parse(stderr).error.message]).toEqual([2, '--json: only with --dry-run']);
  });
});

it('the server runs under the permissions of Node with its own folders alone', async () => {
  const folder = mkdtempSync(join(program.folder, 'permission-'));
  const reads = [program.package, join(program.package, 'node_modules'), folder].map(
    (path) => `--allow-fs-read=${path}`,
  );
  const child = spawn(
    process.execPath,
    ['--permission', ...reads, `--allow-fs-write=${folder}`, '--allow-worker', '--allow-net', program.main].concat([
      ...['serve', '--upstreams', 'http://127.0.0.1:9', '--port', '0', '--proxy-port', '0', '--threads', '1'],
    ]),
    {
      cwd: folder,
      // Nothing beside the program may be read, so nothing is preloaded.
      env: program.environment({ GPUPROXY_DATA_DIR: folder, GPUPROXY_CONFIG_DIR: folder, NODE_OPTIONS: '' }),
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  try {
    await eventually(() => /data plane +http/.test(log) || child.exitCode !== null, 'the addresses');
    const proxy = /data plane +(http:\S+?)"/.exec(log)?.[1] ?? log;
    expect((await fetch(proxy)).status).toBe(503);
    // Its way of writing the conf file needs fsync, which Node does not grant.
    const told = log.split('\n').flatMap((line) => (line.includes('api key') ? [JSON.parse(line)] : []));
    expect(told).toMatchObject([
      {
        level: 'warn',
        msg: expect.stringMatching(/^api key +gp_\S+ {2}\(shown once, not stored, \S+config\.json cannot/),
      },
    ]);
  } finally {
    child.kill('SIGTERM');
    expect(await ended, log).toBe(0);
  }
});
