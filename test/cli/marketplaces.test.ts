import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Simulator, startSimulator } from '../../src/sim/simulator.ts';
import { eventually } from '../helpers/eventually.ts';
import { createProgram, type Program } from './program.ts';

/** The program against marketplaces as they are: keys and URLs from the environment, documented pace. */

let simulator: Simulator;
let program: Program;
let server: ChildProcess;
let api = '';
const key = 'an-admin-key-for-tests';

beforeAll(async () => {
  [simulator, program] = await Promise.all([
    startSimulator({ offers: { vast: 2000, ionet: 40 }, bootMs: { min: 0, max: 0 }, speed: 50 }),
    createProgram(),
  ]);
  server = spawn(process.execPath, [program.main, 'serve', '--port', '0', '--proxy-port', '0'], {
    cwd: join(program.folder, 'empty'),
    env: program.environment({
      GPUPROXY_API_KEY: key,
      VASTAI_API_KEY: simulator.vastKey,
      VASTAI_URL: simulator.vastUrl,
      IONET_API_KEY: simulator.ionetKey,
      IONET_URL: simulator.ionetUrl,
      REFRESH_SECONDS: '5',
      RECONCILE_SECONDS: '5',
      HEALTH_INTERVAL_SECONDS: '1',
    }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  server.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await eventually(() => /data plane +http/.test(text) || server.exitCode !== null, 'the addresses');
  api = /control plane +(http:\/\/[0-9.:]+)/.exec(text)?.[1] ?? '';
}, 60_000);
afterAll(async () => {
  if (server.exitCode === null) {
    const ended = new Promise((resolve) => server.once('close', resolve));
    server.kill('SIGKILL');
    await ended;
  }
  await simulator.close();
  program.remove();
});

const run = (...args: string[]) => program.run([...args, '--url', api, '--key', key]);
const json = async (...args: string[]) => JSON.parse((await run(...args, '--json')).stdout);
/** Cells of the table's row that begins with the word, by their headings. */
const rowOf = (table: string, word: string): Record<string, string> => {
  const [head = '', ...rows] = table.split('\n');
  const row = rows.find((line) => line.startsWith(word)) ?? '';
  const titles = [...head.matchAll(/\S+( \S+)*/g)].map((match) => ({ title: match[0], at: match.index }));
  return Object.fromEntries(titles.map(({ title, at }, index) => [title, row.slice(at, titles[index + 1]?.at).trim()]));
};

it('shows prepaid time as such, with the time left, and an outbid instance as that', async () => {
  await eventually(async () => (await json('providers')).total_available > 40, 'both markets');
  const offers = (await run('list', 'io.net')).stdout;
  expect(rowOf(offers, offers.split('\n')[1] ?? '').PREPAID).toBe('1 h');
  const paid = (await json('reserve', '1', '--provider', 'io.net', '--hours', '3', '--yes')).reserved[0].instance_id;
  const bid = (await json('reserve', '1', '--provider', 'vast.ai', '--max-bid', '5', '--yes')).reserved[0];
  await eventually(async () => {
    const { upstreams } = await json('fleet');
    return upstreams.every((one: { eligible: boolean }) => one.eligible);
  }, 'both in rotation');
  const fleet = (await run('fleet')).stdout;
  expect(rowOf(fleet, paid).LEFT).toMatch(/^(2 h 5\d m|3 h)$/);
  expect(rowOf(fleet, bid.instance_id).LEFT).toBe('-');
  expect((await run('fleet', paid)).stdout).toMatch(/prepaid until +\S+Z \((2 h 5\d m|3 h) left\)/);
  const wire = await json('fleet', paid);
  expect(Date.parse(wire.expires_at) - Date.now()).toBeGreaterThan(2.8 * 3_600_000);

  // Output of the machines, from both.
  const fromVast = await run('logs', bid.instance_id, '--tail', '3');
  expect([fromVast.code, fromVast.stdout.trimEnd().split('\n').length]).toEqual([0, 3]);
  expect(fromVast.stdout).toContain('Uvicorn running');
  const fromIonet = await json('logs', paid, '--tail', '4');
  expect(fromIonet).toEqual({ instance_id: paid, lines: expect.any(Array) });
  expect(fromIonet.lines).toHaveLength(4);
  expect(fromIonet.lines[0]).toMatch(/stdout \d+ GET \/health 200/);

  simulator.faults.add({ kind: 'outbid', instance: bid.contract_id });
  await eventually(async () => (await json('fleet', bid.instance_id)).state === 'OUTBID', 'OUTBID');
  const row = rowOf((await run('fleet')).stdout, bid.instance_id);
  expect(row.STATE).toBe('OUTBID');
  expect(row.REASON).toContain('somebody bids more');
  const one = (await run('fleet', bid.instance_id)).stdout;
  expect(one).toMatch(/state +OUTBID: somebody bids more/);
  expect(one).toMatch(/interruptible +yes/);

  await run('destroy', paid, '--now', '--yes');
  await eventually(async () => (await json('fleet', paid)).state === 'ENDED', 'the end');
  const logs = await run('logs', paid);
  expect([logs.code, logs.stdout]).toEqual([1, '']);
  expect(logs.stderr).toMatch(new RegExp(`^error: ${paid} has ended at \\S+Z: by command\n`));
  expect(logs.stderr).not.toContain('did you mean');
}, 60_000);

it('says where a market has more than could be read, and finds the rest with a filter', async () => {
  const load = (await run('load', 'provider')).stdout;
  expect(load).toMatch(
    /vast\.ai: \d+\+ available instances\n {2}io\.net: {2}\d+ available instances\n {2}Total: {3}\d+\+ inst/,
  );
  expect((await run('providers')).stdout).toMatch(/vast\.ai +ok +\d+\+ /);
  const all = await run('list', '--json');
  expect(JSON.parse(all.stdout).more).toEqual(['vast.ai']);
  expect((await run('list')).stderr).toContain('vast.ai may have more of them');
  // The dearest class of cards has more offers than the pages that were read of it.
  const known = new Set(JSON.parse(all.stdout).instances.map((offer: { id: string }) => offer.id));
  const found = (await json('list', 'vast.ai', '--gpu', 'B200', '--gpu-count', '8')).instances;
  expect(found.length).toBeGreaterThan(0);
  expect(found.some((offer: { id: string }) => !known.has(offer.id))).toBe(true);
}, 60_000);

it('shows the last good data of a provider that fails, with their age, and the other as ever', async () => {
  simulator.faults.add({ kind: 'error', status: 503, provider: 'vast' });
  await eventually(async () => {
    const { providers } = await json('providers');
    return providers.some((one: { status: string }) => one.status === 'error');
  }, 'the failure');
  const load = await run('load', 'provider');
  expect(load.stdout).toMatch(/vast\.ai: \d+\+ available/);
  expect(load.stderr).toMatch(/^warning: vast\.ai: HTTP 503: .*; its number is \d+ (s|m) old\n/);
  const list = await run('list', '--json');
  const answer = JSON.parse(list.stdout);
  expect(new Set(answer.instances.map((one: { provider: string }) => one.provider))).toEqual(
    new Set(['vast.ai', 'io.net']),
  );
  expect(list.stderr).toMatch(/warning: vast\.ai: .*HTTP 503: .*; its offers are \d+ (s|m) old\n/);
  const [error] = answer.errors;
  expect(error).toMatchObject({
    provider: 'vast.ai',
    code: expect.stringMatching(/^(server_error|timeout)$/),
    stale_ms: expect.any(Number),
  });
  const { providers } = await json('providers');
  expect(providers).toMatchObject([
    { provider: 'vast.ai', status: 'error', refreshed_at: expect.any(String), last_error: { code: 'server_error' } },
    { provider: 'io.net', status: 'ok', last_error: null },
  ]);
}, 60_000);
