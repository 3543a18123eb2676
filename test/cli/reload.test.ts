import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../helpers/eventually.ts';
import { createProgram, type Program } from './program.ts';

let program: Program;
const backends: Server[] = [];
const children: ChildProcess[] = [];
beforeAll(async () => {
  program = await createProgram();
});
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  for (const backend of backends) backend.closeAllConnections();
  program.remove();
});

/** A server that answers with its name; `/stream` sends events until the test ends it. */
async function backend(name: string): Promise<{ url: string; open: ServerResponse[] }> {
  const open: ServerResponse[] = [];
  const server = createServer((req, res) => {
    if (req.url === '/stream') {
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      res.write(`data: ${name} begins\n\n`);
      open.push(res);
    } else res.end(name);
  });
  backends.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, open };
}

/** `gpuproxy serve` in a folder whose `.env` says what it does. */
async function serve(settings: Record<string, string>) {
  const folder = mkdtempSync(join(program.folder, 'serve-'));
  const write = (next: Record<string, string>) =>
    writeFileSync(
      join(folder, '.env'),
      Object.entries(next)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(''),
    );
  write(settings);
  const child = spawn(process.execPath, [program.main, 'serve', '--port', '0', '--proxy-port', '0'], {
    cwd: folder,
    env: program.environment({ GPUPROXY_DATA_DIR: join(folder, 'data') }),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  children.push(child);
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  await eventually(() => /data plane +http/.test(log), 'the addresses');
  const address = (name: string) => new RegExp(`${name} +(https?://[0-9.:]+)`).exec(log)?.[1] ?? '';
  return {
    api: address('control plane'),
    proxy: address('data plane'),
    log: () => log,
    /** Sends SIGHUP and resolves with what was logged about it. */
    async reload(next: Record<string, string>): Promise<string> {
      const before = log.length;
      write(next);
      child.kill('SIGHUP');
      await eventually(() => /configuration (read again|not taken up)[^\n]*\n/.test(log.slice(before)), 'the reload');
      return log.slice(before);
    },
  };
}

it('SIGHUP takes up what changed while a stream stays open, and says what waits for the next start', async () => {
  const [old, kept, fresh] = await Promise.all([backend('old'), backend('kept'), backend('fresh')]);
  const first = 'first-admin-key';
  const settings = {
    GPUPROXY_API_KEY: first,
    HEALTH_INTERVAL_SECONDS: '0.2',
    SLOW_START_SECONDS: '0',
    HEALTH_PATH: '/',
  };
  const server = await serve({ ...settings, UPSTREAMS: `a=${old.url}`, VASTAI_API_KEY: 'vast-one' });
  const get = (path: string, key: string) => fetch(`${server.api}/api/v1${path}`, { headers: { 'x-api-key': key } });
  const body = async (path = '/') => (await fetch(server.proxy + path)).text();
  await eventually(async () => (await body()) === 'old', 'the upstream in rotation');

  let streamed = '';
  let type: string | undefined;
  const ended = new Promise<boolean>((resolve) => {
    request(`${server.proxy}/stream`, (answer) => {
      type = answer.headers['content-type'];
      answer.setEncoding('utf8').on('data', (text: string) => {
        streamed += text;
      });
      answer.on('close', () => resolve(answer.complete));
    }).end();
  });
  await eventually(() => streamed === 'data: old begins\n\n', 'the stream to begin');

  // Its upstream leaves, another comes, and what is left takes the strategy, the budget and the key of the new file.
  const second = 'second-admin-key';
  const log = await server.reload({
    ...settings,
    GPUPROXY_API_KEY: second,
    UPSTREAMS: `b=${kept.url}`,
    LB_STRATEGY: 'least_connections',
    MAX_USD_PER_HOUR: '3.5',
    LB_ENABLED: 'false',
    INSTANCE_HEADER: 'false',
    VASTAI_API_KEY: 'vast-two',
    GPUPROXY_THREADS: '7',
  });
  expect(log).toMatch(
    /configuration read again: LB_STRATEGY, LB_ENABLED, UPSTREAMS, GPUPROXY_API_KEY, INSTANCE_HEADER, MAX_USD_PER_HOUR/,
  );
  expect(log).toContain('take effect at the next start: VASTAI_API_KEY, GPUPROXY_THREADS');
  expect(log).not.toMatch(/admin-key|vast-two/);
  await eventually(async () => (await body()) === 'kept', 'the new upstream to answer');
  expect((await get('/loadbalancer/strategy', first)).status).toBe(401);
  expect(await (await get('/loadbalancer/strategy', second)).json()).toEqual({ strategy: 'least_connections' });
  const state = (await (await get('/state', second)).json()) as {
    mode: { balancing: boolean };
    cost: { maxUsdPerHour: number };
  };
  expect(state.mode.balancing).toBe(false);
  expect(state.cost.maxUsdPerHour).toBe(3.5);
  const answer = await fetch(server.proxy);
  expect(answer.headers.get('x-gpuproxy-instance')).toBeNull();
  await answer.text();

  // The same name at another place: new requests go there at once.
  await server.reload({ ...settings, GPUPROXY_API_KEY: second, UPSTREAMS: `b=${fresh.url}` });
  await eventually(async () => (await body()) === 'fresh', 'the moved upstream to answer');

  // A wrong file changes nothing.
  expect(await server.reload({ ...settings, LB_STRATEGY: 'fastest', UPSTREAMS: '' })).toContain(
    'configuration not taken up, the old one stays: LB_STRATEGY: got \\"fastest\\"',
  );
  expect(await body()).toBe('fresh');

  // All the while the stream was open, at an upstream that is in no list any more.
  const fleet = async () =>
    ((await (await get('/fleet', second)).json()) as { upstreams: { instance_id: string }[] }).upstreams.map(
      (row) => row.instance_id,
    );
  expect(await fleet()).toEqual(['static-a', 'static-b']);
  old.open[0]?.write('data: still here\n\n');
  await eventually(() => streamed.endsWith('data: still here\n\n'), 'more of the stream');
  old.open[0]?.end('data: done\n\n');
  expect(await ended).toBe(true);
  expect(type).toBe('text/event-stream');
  expect(streamed).toBe('data: old begins\n\ndata: still here\n\ndata: done\n\n');
  await eventually(async () => (await fleet()).join() === 'static-b', 'the old upstream to leave');
});

it('SIGHUP reads renewed certificates, and keeps the old ones when the new do not fit', async () => {
  const folder = mkdtempSync(join(program.folder, 'tls-'));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const certify = (name: string) =>
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1'].concat([
        ...['-subj', `/CN=${name}`, '-keyout', key, '-out', cert],
      ]),
      { stdio: 'ignore' },
    );
  certify('first.example');
  const target = await backend('target');
  const settings = { GPUPROXY_API_KEY: 'an-admin-key', UPSTREAMS: target.url, TLS_CERT: cert, TLS_KEY: key };
  const server = await serve(settings);
  const presented = (url: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port: Number(new URL(url).port), rejectUnauthorized: false }, () => {
        resolve(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      });
      socket.on('error', reject);
    });
  expect([await presented(server.api), await presented(server.proxy)]).toEqual(['first.example', 'first.example']);
  certify('second.example');
  await server.reload(settings);
  await eventually(async () => (await presented(server.proxy)) === 'second.example', 'the new certificate');
  expect(await presented(server.api)).toBe('second.example');

  const other = readFileSync(key, 'utf8');
  certify('third.example');
  writeFileSync(key, other);
  expect(await server.reload(settings)).toContain('not taken up, the old one stays: TLS_CERT, TLS_KEY');
  expect(await presented(server.api)).toBe('second.example');
});

it('refuses an access log that cannot be written, at the start and at a reload, and goes on with the old one', async () => {
  const target = await backend('up');
  const settings = { GPUPROXY_API_KEY: 'an-admin-key', UPSTREAMS: target.url, HEALTH_PATH: '/' };
  const refused = spawnSync(process.execPath, [program.main, 'serve', '--port', '0', '--proxy-port', '0'], {
    cwd: program.folder,
    env: program.environment({ ...settings, ACCESS_LOG: join(program.main, 'access.log') }),
    encoding: 'utf8',
  });
  expect(refused).toMatchObject({ status: 2, stdout: '' });
  expect(refused.stderr).toContain('ACCESS_LOG: got');
  const server = await serve(settings);
  const log = await server.reload({ ...settings, ACCESS_LOG: join(program.main, 'access.log') });
  expect(log).toContain('ACCESS_LOG: got');
  expect(log).toContain('accepts off, - for stderr, or a file that can be written');
});
