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

it('names what is charged at once before prepaid time is bought, and buys none unasked', async () => {
  const offers = (await json('list', 'io.net')).instances;
  const price = Math.min(...offers.map((offer: { price_per_hour: number }) => offer.price_per_hour));
  const before = simulator.ledger().length;
  const words = (perHour: number, hours: number) =>
    `$${perHour.toFixed(2)} per hour in total, $${(perHour * hours).toFixed(2)} charged at once`;
  const wish = ['reserve', '1', '--provider', 'io.net', '--hours', '3'];
  const dry = await run(...wish, '--dry-run');
  const perHour = (await json(...wish, '--dry-run')).price_per_hour;
  expect(perHour).toBeGreaterThanOrEqual(price);
  expect(dry.stdout).toContain(`for ${words(perHour, 3)}\n`);
  const refused = await run(...wish, '--no-input');
  expect([refused.code, refused.stdout]).toEqual([7, '']);
  expect(refused.stderr).toContain(`not confirmed: add --yes (would spend ${words(perHour, 3)})`);
  const batch = await run('batch', '--ionet', '2', '--hours', '2', '--no-input');
  expect(batch.code).toBe(7);
  expect(batch.stderr).toMatch(/would spend \$[\d.]+ per hour in total, \$[\d.]+ charged at once/);
  const one = await run('rent', 'io.net', offers[0].id, '--hours', '5', '--no-input');
  expect(one.code).toBe(7);
  expect(one.stderr).toContain(words(offers[0].price_per_hour, 5));
  expect(simulator.ledger()).toHaveLength(before);
}, 60_000);

it('adopts a contract of the account that was rented elsewhere, once, and says what cannot be adopted', async () => {
  const [offer] = (await json('list', 'vast.ai')).instances;
  const answer = await fetch(`${simulator.vastUrl}/api/v0/asks/${offer.id}/`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${simulator.vastKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ client_id: 'me', image: 'x:y', disk: 10, env: { '-p 8000:8000': '1' }, label: 'by hand' }),
  });
  const contract = String(((await answer.json()) as { new_contract: number }).new_contract);
  const adopted = await run('adopt', 'vast.ai', contract);
  expect([adopted.code, adopted.stderr]).toEqual([0, '']);
  expect(adopted.stdout).toMatch(new RegExp(`^vast-${contract} {2}[A-Z]+\n$`));
  await eventually(async () => (await json('fleet', `vast-${contract}`)).eligible, 'in rotation');
  const twice = await run('adopt', 'vast.ai', contract);
  expect([twice.code, twice.stdout]).toEqual([1, '']);
  expect(twice.stderr).toContain(`contract ${contract} is ours already (vast-${contract})`);
  const nobody = await run('adopt', 'vast.ai', '999');
  expect([nobody.code, nobody.stdout]).toEqual([1, '']);
  expect(nobody.stderr).toContain('vast.ai lists no contract 999');
  const word = await run('adopt', 'lambda', contract);
  expect([word.code, word.stdout]).toEqual([2, '']);
  expect(word.stderr).toContain('io.net');
  await run('destroy', `vast-${contract}`, '--now', '--yes');
  await eventually(async () => (await json('fleet', `vast-${contract}`)).state === 'ENDED', 'the end');
}, 60_000);

it('counts what exists of a reservation and names what has ended of it', async () => {
  const made = await json('reserve', '2', '--provider', 'io.net', '--yes');
  const [gone, stays] = made.reserved.map((item: { instance_id: string }) => item.instance_id);
  const listed = async () => rowOf((await run('reservations')).stdout, made.reservation_id).INSTANCES;
  expect(await listed()).toBe('2');
  await run('destroy', gone, '--now', '--yes');
  await eventually(async () => (await json('fleet', gone)).state === 'ENDED', 'the end');
  expect(await listed()).toBe('1');
  const shown = (await run('reservations', 'show', made.reservation_id)).stdout;
  expect(shown).toContain(`  ${stays}\n  ${gone}  ended\n`);
  const wire = await json('reservations', 'show', made.reservation_id);
  expect(wire).toMatchObject({ instances: [stays], ended: [gone] });
  await run('reservations', 'release', made.reservation_id, '--now', '--yes');
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
