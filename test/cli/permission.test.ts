import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../helpers/eventually.ts';
import { createProgram, type Program } from './program.ts';

let program: Program;
const children: ChildProcess[] = [];
beforeAll(async () => {
  program = await createProgram();
});
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  program.remove();
});

/** Runs the command line of docs/running.md, with the folders of this test in the place of those there. */
function restricted(more: readonly string[], settings: Readonly<Record<string, string>>) {
  const state = mkdtempSync(join(program.folder, 'state-'));
  const documented = /^node (--permission [\s\S]*? serve)$/m.exec(readFileSync('docs/running.md', 'utf8'))?.[1] ?? '';
  const args = documented
    .replaceAll('\\\n', ' ')
    .replaceAll('/opt/gpuproxy', program.package)
    .replaceAll('/var/lib/gpuproxy', state)
    .split(/\s+/);
  expect(args).toContain(`--allow-fs-write=${state}`);
  const child = spawn(process.execPath, [...args, ...more], {
    cwd: state,
    env: {
      PATH: process.env.PATH,
      HOME: join(program.folder, 'home-that-is-not-there'),
      GPUPROXY_DATA_DIR: state,
      GPUPROXY_CONFIG_DIR: join(state, 'config'),
      GPUPROXY_PORT: '0',
      GPUPROXY_PROXY_PORT: '0',
      GPUPROXY_API_KEY: 'a-key-for-tests',
      ...settings,
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  children.push(child);
  const exited = once(child, 'exit');
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const address = (name: string) => new RegExp(`${name} +(http://[0-9.:]+)`).exec(log)?.[1] ?? '';
  return {
    state,
    log: () => log,
    exited,
    started: () => eventually(() => address('data plane') !== '', `the addresses in: ${log}`),
    api: () => address('control plane'),
    proxy: () => address('data plane'),
    stop: async () => {
      child.kill('SIGTERM');
      return (await exited)[0] as number | null;
    },
  };
}

it('serves with the rights that the documentation grants, and has no others', { timeout: 60_000 }, async () => {
  const backend = createServer((_req, res) => res.end('served')).listen(0, '127.0.0.1');
  await once(backend, 'listening');
  try {
    const upstream = `http://127.0.0.1:${(backend.address() as AddressInfo).port}`;
    const server = restricted([], { UPSTREAMS: upstream, HEALTH_PATH: '/', ACCESS_LOG: 'access.log' });
    await server.started();
    await eventually(async () => (await (await fetch(server.proxy())).text()) === 'served', 'an answer');
    expect((await fetch(`${server.api()}/readyz`)).status).toBe(200);
    expect(await server.stop(), server.log()).toBe(0);
    expect(readdirSync(server.state)).toContain('access.log');
    expect(readFileSync(join(server.state, 'access.log'), 'utf8')).toContain('"status":200');
    expect(server.log()).not.toMatch(/ERR_ACCESS_DENIED|has been restricted/);
  } finally {
    backend.closeAllConnections();
    backend.close();
  }
  // A file elsewhere is out of its reach.
  const refused = restricted([], {
    UPSTREAMS: 'http://127.0.0.1:9',
    TLS_CERT: join(process.cwd(), 'package.json'),
    TLS_KEY: join(process.cwd(), 'package.json'),
  });
  expect((await refused.exited)[0]).toBe(2);
  expect(refused.log()).toContain('cannot be read (ERR_ACCESS_DENIED)');
});

it('shows the simulated fleet with them too', { timeout: 60_000 }, async () => {
  const refused = restricted(['--demo'], {});
  expect((await refused.exited)[0]).toBe(2);
  expect(refused.log()).toMatch(/error: .* cannot be made or written \(ERR_ACCESS_DENIED\)\n(.*\n)*.*TMPDIR/);
  const server = restricted(['--demo'], { TMPDIR: '.' });
  await server.started();
  await eventually(async () => (await fetch(`${server.api()}/readyz`)).status === 200, 'an upstream in rotation');
  expect(await server.stop(), server.log()).toBe(0);
});
