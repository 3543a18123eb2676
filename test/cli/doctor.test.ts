import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
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
      env: program.environment({ GPUPROXY_DATA_DIR: folder, GPUPROXY_CONFIG_DIR: folder }),
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
    expect(log).toMatch(/api key +gp_\S+ {2}\(shown once, not stored/);
  } finally {
    child.kill('SIGTERM');
    expect(await ended, log).toBe(0);
  }
});
