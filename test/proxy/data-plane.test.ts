import { createHash } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import { monotonicMs } from '../../src/clock.ts';
import { createBalancer } from '../../src/core/balancer.ts';
import type { DirectoryEntry } from '../../src/core/directory.ts';
import { LoadTable } from '../../src/core/load-table.ts';
import type { DataPlaneReport, Decision } from '../../src/core/report.ts';
import { type DataPlaneVariables, startDataPlane } from '../../src/proxy/data-plane.ts';
import { echo, startBackend, until } from './rig.ts';

const variables: DataPlaneVariables = {
  CONNECT_TIMEOUT_SECONDS: 5,
  FIRST_BYTE_TIMEOUT_SECONDS: 120,
  IDLE_TIMEOUT_SECONDS: 120,
  TOTAL_TIMEOUT_SECONDS: 0,
  QUEUE_LIMIT: 1024,
  QUEUE_TIMEOUT_SECONDS: 30,
  MAX_RETRIES: 2,
  RETRY_BODY_BYTES: 65_536,
  MAX_CONNECTIONS: 16_384,
  INSTANCE_HEADER: true,
  ACCESS_LOG: 'off',
  GPUPROXY_HOST: '127.0.0.1',
  GPUPROXY_PROXY_PORT: 0,
  PROXY_AUTH: 'auto',
  EJECT_AFTER_FAILURES: 3,
  EJECT_BASE_SECONDS: 5,
  EJECT_MAX_SECONDS: 300,
  MAX_EJECTED_FRACTION: 0.5,
  SLOW_START_SECONDS: 0,
};

/** The part of the fleet that the data plane needs, made of a real load table. */
function fleet() {
  const table = LoadTable.create(16);
  const balancer = createBalancer(new LoadTable(table.buffer), { slowStartMs: 0 });
  let entries: DirectoryEntry[] = [];
  let listeners: ((entries: readonly DirectoryEntry[]) => void)[] = [];
  let keyListeners: (() => void)[] = [];
  let hashes: string[] = [];
  const usedHashes = new Set<string>();
  const reports: DataPlaneReport[] = [];
  return {
    reports,
    usedHashes,
    app: {
      table,
      directory: () => entries,
      onDirectory: (listener: (entries: readonly DirectoryEntry[]) => void) => {
        listeners.push(listener);
        return () => {
          listeners = listeners.filter((other) => other !== listener);
        };
      },
      report: (report: DataPlaneReport) => void reports.push(report),
    },
    keys: {
      proxyHashes: () => hashes,
      used: (used: readonly string[]) => {
        for (const one of used) usedHashes.add(one);
      },
      onChange: (listener: () => void) => {
        keyListeners.push(listener);
        return () => {
          keyListeners = keyListeners.filter((other) => other !== listener);
        };
      },
    },
    allow(key: string) {
      hashes = [...hashes, createHash('sha256').update(key).digest('hex')];
      for (const listener of keyListeners) listener();
    },
    join(id: string, origin: string) {
      const ref = table.join({ weight: 1, ceiling: 0, now: monotonicMs() });
      table.setRunning(ref, true, monotonicMs());
      balancer.probed(ref, true, monotonicMs(), '');
      entries = [...entries, { ...ref, id, provider: 'static', origin, models: null }];
      for (const listener of listeners) listener(entries);
      return ref;
    },
  };
}

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test('two threads share one port, one load table and the directory', async () => {
  const backend = await startBackend(echo);
  cleanups.push(backend.close);
  const { app, keys, reports, join } = fleet();
  const plane = await startDataPlane({ app, keys, config: variables, tls: null, threads: 2 });
  cleanups.push(plane.close);
  const ref = join('a', backend.origin);
  await until(() => app.table.read(ref)?.health === 'up');
  let answered = 0;
  // Each new connection may land on either thread.
  for (let i = 0; i < 200 && new Set(reports.map((report) => report.thread)).size < 2; i++) {
    const answer = await fetch(`http://127.0.0.1:${plane.port}/x`, { headers: { connection: 'close' } });
    await answer.text();
    if (answer.status === 200) answered++;
    else expect(answer.status).toBe(503); // the directory was still on its way to that thread
  }
  await until(() => new Set(reports.map((report) => report.thread)).size === 2);
  expect(app.table.read(ref)).toMatchObject({ active: 0, total: answered });
});

test('the picks of all threads can be looked at, open ones too, with the newest first', async () => {
  const backend = await startBackend((req, res) => {
    if (req.url === '/open') res.write('begun');
    else res.end();
  });
  cleanups.push(backend.close);
  const { app, keys, join } = fleet();
  join('a', backend.origin);
  let ask = async (): Promise<readonly Decision[]> => [];
  const traced = {
    ...app,
    traceFrom(decisions: typeof ask) {
      ask = decisions;
    },
  };
  const plane = await startDataPlane({ app: traced, keys, config: variables, tls: null, threads: 2 });
  cleanups.push(plane.close);
  const url = `http://127.0.0.1:${plane.port}`;
  for (let i = 0; i < 20; i++) await (await fetch(url, { headers: { connection: 'close' } })).text();
  const open = await fetch(`${url}/open`);
  const decisions = await ask();
  expect(decisions).toHaveLength(21);
  expect(decisions[0]).toMatchObject({ winner: 'a', ending: null });
  expect(decisions.slice(1).every(({ ending }) => ending === 'complete')).toBe(true);
  expect(decisions.map(({ at }) => at)).toEqual(decisions.map(({ at }) => at).sort((a, b) => b - a));
  await open.body?.cancel();
  await until(() => app.table.totals().active === 0);
  expect((await ask())[0]).toMatchObject({ ending: 'client_gone' });
});

test('a thread that dies is replaced and its leases are given back', async () => {
  const backend = await startBackend((_req, res) => {
    res.writeHead(200);
    res.write('begun');
  });
  cleanups.push(backend.close);
  const { app, keys, join } = fleet();
  const ref = join('a', backend.origin);
  const plane = await startDataPlane({ app, keys, config: variables, tls: null, threads: 1 });
  cleanups.push(plane.close);
  const url = `http://127.0.0.1:${plane.port}/`;
  const answer = await fetch(url);
  expect(app.table.read(ref)?.active).toBe(1);
  plane.crash(0);
  await expect(answer.text()).rejects.toThrow();
  await until(() => app.table.read(ref)?.active === 0);
  let status = 0;
  await until(() => {
    fetch(url).then(
      (again) => {
        status = again.status;
        again.body?.cancel();
      },
      () => {},
    );
    return status === 200;
  });
});

test('keys that are made and revoked while it runs count at once in every thread', async () => {
  const backend = await startBackend(echo);
  cleanups.push(backend.close);
  const { app, keys, join, allow } = fleet();
  join('a', backend.origin);
  const config = { ...variables, PROXY_AUTH: 'required' as const };
  const plane = await startDataPlane({ app, keys, config, tls: null, threads: 1 });
  cleanups.push(plane.close);
  const ask = () => fetch(`http://127.0.0.1:${plane.port}/`, { headers: { 'x-api-key': 'sesame-open' } });
  const refused = await ask();
  expect(refused.status).toBe(401);
  expect(refused.headers.get('content-type')).toBe('application/problem+json');
  expect(await refused.json()).toMatchObject({ status: 401, code: 'unauthorized' });
  allow('sesame-open');
  let status = 0;
  await until(() => {
    ask().then(
      (answer) => {
        status = answer.status;
      },
      () => {},
    );
    return status === 200;
  });
});

test('a known key that a client sends counts as used, also where none is asked for', async () => {
  const backend = await startBackend(echo);
  cleanups.push(backend.close);
  const { app, keys, join, allow, usedHashes } = fleet();
  join('a', backend.origin);
  allow('sesame-open');
  const plane = await startDataPlane({ app, keys, config: variables, tls: null, threads: 1 });
  cleanups.push(plane.close);
  for (const key of ['sk-dummy', 'sesame-open']) {
    const answer = await fetch(`http://127.0.0.1:${plane.port}/`, { headers: { authorization: `Bearer ${key}` } });
    expect(answer.status).toBe(200);
    await answer.text();
  }
  await until(() => usedHashes.size > 0);
  expect([...usedHashes]).toEqual([createHash('sha256').update('sesame-open').digest('hex')]);
});

test('a port in use is a clear error, with one thread and with several', async () => {
  const taken = await startBackend(echo);
  cleanups.push(taken.close);
  const { app, keys } = fleet();
  for (const threads of [1, 2]) {
    const config = { ...variables, GPUPROXY_PROXY_PORT: taken.port };
    await expect(startDataPlane({ app, keys, config, tls: null, threads })).rejects.toMatchObject({
      name: 'ListenError',
      code: 'EADDRINUSE',
      message: expect.stringContaining(`127.0.0.1:${taken.port} (the port is in use)`),
    });
  }
});
