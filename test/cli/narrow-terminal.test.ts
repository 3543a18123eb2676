import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startGuideServer, upstreamBody } from './guide-server.ts';
import { createProgram, type Program } from './program.ts';

let program: Program;
let server: Awaited<ReturnType<typeof startGuideServer>>;
beforeAll(async () => {
  [program, server] = await Promise.all([createProgram(), startGuideServer()]);
  server.on('GET /api/v1/fleet', { body: { upstreams: fleet, count: fleet.length, foreign: [] } });
  server.on('GET /api/v1/reservations', { body: { reservations: [reservation], count: 1 } });
  server.on('GET /api/v1/reservations/res-4ea8bcbc2f', { body: reservation });
  server.on('GET /api/v1/providers', { body: { providers, total_available: 64 } });
  server.on('GET /api/v1/keys', { body: { keys, count: keys.length } });
  server.on('GET /api/v1/cost', { body: cost });
  server.on('GET /api/v1/gpu/instances', { body: { instances: offers, count: 2, provider: 'all', errors: [] } });
  server.on('POST /api/v1/gpu/instances/reserve', { status: 201, body: reserved });
});
afterAll(async () => {
  await server.close();
  program.remove();
});

const ids = ['ionet-206-12-x1', 'ionet-206-12-x1-2', 'vast-21000004'];
const contracts = ['d5dfbc3b-a481-43b5-ad25-2277aaa7f8fb', '0d1aed8f-3eb6-4dc0-a2be-5c5ec49a660c', '21000004'];
const fleet = ids.map((id) =>
  upstreamBody(id, {
    provider: id.startsWith('io') ? 'io.net' : 'vast.ai',
    gpu_model: 'GeForce RTX 4090',
    state: 'DESTROYING',
    reason: 'slow start, 10 %, and what else there is to say of it',
    expires_at: new Date(Date.now() + 11 * 3_600_000 + 59 * 60_000).toISOString(),
  }),
);
const soon = new Date(Date.now() + 59 * 60_000).toISOString();
const well = fleet.map((row) => ({ ...row, state: 'OK', reason: '', expires_at: soon }));
const reservation = {
  reservation_id: 'res-4ea8bcbc2f',
  created_at: '2026-11-20T10:00:00.000Z',
  by: 'somebody-with-a-long-name',
  requested: 3,
  state: 'releasing',
  instances: ids,
  ended: [],
  price_per_hour: 1.58,
  errors: [],
};
const providers = ['vast.ai', 'io.net'].map((provider) => ({
  provider,
  status: 'error',
  available: 1038,
  more: true,
  offers: 900,
  min_price: 0.15,
  max_price: 21.84,
  cheapest: [],
  rented: 12,
  price_per_hour: 12.34,
  credit_usd: 1249.97,
  latency_ms: 1234,
  next_refresh_at: null,
  refreshed_at: new Date(Date.now() - 50_000).toISOString(),
  last_error: { at: '2026-11-20T10:00:00.000Z', code: 'timeout', message: 'no answer' },
}));
const keys = ['key-9149f6a5dc61', 'key-0149f6a5dc61'].map((id) => ({
  id,
  name: 'the dashboards of the second floor',
  scope: 'admin',
  created_at: '2026-11-20T10:00:00.000Z',
  last_used_at: new Date(Date.now() - 10 * 3_600_000 - 59 * 60_000).toISOString(),
  expires_at: new Date(Date.now() + 30 * 86_400_000 - 600_000).toISOString(),
  revoked_at: null,
  requests_per_minute: 600,
  max_concurrent: 16,
}));
const cost = {
  usd_per_hour: 1.58,
  max_usd_per_hour: 12,
  spent_usd: 3,
  spent_today_usd: 2,
  instances: ids.map((id) => ({ instance_id: id, provider: 'io.net', usd_per_hour: 0.79, spent_usd: 1 })),
};
const offers = ['206-12-x1', '21000267'].map((id) => ({
  id,
  provider: 'io.net',
  gpu_name: 'GeForce RTX 4090',
  gpu_count: 8,
  vram_gb: 24,
  price_per_hour: 12.64,
  prepaid_hours: 24,
  available: 16,
  location: 'California, United States of America',
}));
const plan = {
  instances: offers,
  count: 2,
  requested: 2,
  price_per_hour: 25.28,
  prepaid_usd: 25.28,
  errors: [],
};
const reserved = {
  reserved: ids.map((instance_id, i) => ({
    instance_id,
    contract_id: contracts[i],
    provider: 'io.net',
    gpu_model: 'GeForce RTX 4090',
    gpu_count: 1,
    vram: 24,
    price: 0.64,
  })),
  count: 3,
  requested: 3,
  errors: [],
  reservation_id: 'res-4ea8bcbc2f',
};

const at = (line: string, columns = 80) =>
  program.run([...line.split(' '), '-u', server.url, '-key', 'YOUR_KEY'], {
    env: { GPUPROXY_FORCE_TTY: String(columns) },
  });
const widest = (text: string) => Math.max(...text.split('\n').map((line) => line.length));
const words = (text: string) => new Set(text.split(/\s+/));

describe('a terminal of 80 columns', () => {
  it.each([
    ['fleet', ids],
    ['load server', ['vast-12345', 'vast-67890', 'ionet-abc']],
    ['reservations', ['res-4ea8bcbc2f']],
    ['reservations show res-4ea8bcbc2f', ['res-4ea8bcbc2f', ...ids]],
    ['providers', ['vast.ai', 'io.net']],
    ['keys list', keys.map(({ id }) => id)],
    ['cost', ids],
    ['list', offers.map(({ id }) => id)],
  ])('holds the table of %s with every id whole', async (line, whole) => {
    const { code, stdout } = await at(line);
    expect(code).toBe(0);
    expect(widest(stdout), stdout).toBeLessThanOrEqual(80);
    for (const id of whole) expect(words(stdout), stdout).toContain(id);
  });

  it('leaves the contracts of a reservation whole, though its lines be longer for it', async () => {
    const { stdout } = await at('reserve 3');
    for (const id of [...ids, ...contracts]) expect(words(stdout), stdout).toContain(id);
    expect(stdout).toContain('  RTX 4090  ');
    expect(stdout).not.toContain('…');
  });

  it('gives up what can be looked up elsewhere before what tells why, and the GPUs keep their names', async () => {
    const { stdout } = await at('fleet');
    const [title = ''] = stdout.split('\n');
    expect(title.trim().split(/ {2,}/)).toEqual(['INSTANCE', 'STATE', 'GPU', 'PRICE', 'ACTIVE', 'AVG RT', 'REASON']);
    expect(stdout.match(/ RTX 4090 /g)).toHaveLength(ids.length);
    const [wide = ''] = (await at('fleet', 140)).stdout.split('\n');
    expect(wide).toMatch(/^INSTANCE +PROVIDER +STATE +GPU +VRAM +PRICE +LEFT +ACTIVE +AVG RT +REASON$/);
  });

  it('does without the reasons where there are none, before anything else gives way', async () => {
    server.on('GET /api/v1/fleet', { body: { upstreams: well, count: well.length, foreign: [] } });
    const { stdout } = await at('fleet');
    server.on('GET /api/v1/fleet', { body: { upstreams: fleet, count: fleet.length, foreign: [] } });
    const [title = '', first] = stdout.split('\n');
    expect(title).toMatch(/^INSTANCE +PROVIDER +STATE +GPU +VRAM +PRICE +LEFT +ACTIVE +AVG RT$/);
    expect(first).toMatch(/ OK +RTX 4090 +24GB /);
    expect(stdout).not.toContain('…');
  });

  it('shows who reserved and how long ago, nothing of it cut', async () => {
    server.on('GET /api/v1/reservations', { body: { reservations: [{ ...reservation, by: 'operator' }], count: 1 } });
    const { stdout } = await at('reservations');
    expect(stdout).toMatch(/ AGE +BY\n.* releasing .* \d+ d( \d+ h)? +operator\n$/);
  });

  it('holds what the doctor says, and the prices of a plan, in lines that break no word', async () => {
    server.on('POST /api/v1/gpu/instances/plan', { body: plan });
    const [doctor, reserve] = await Promise.all([at('doctor --offline --color never'), at('reserve 2 --dry-run')]);
    expect(widest(doctor.stdout), doctor.stdout).toBeLessThanOrEqual(80);
    expect(doctor.stdout).toMatch(/\n( +)do: set VASTAI_API_KEY.*\n\1 {4}\S/);
    expect(reserve.stdout).toMatch(/^Would reserve 2 GPUs .*, \$25\.28 charged\nat once\nOFFER /);
    expect(widest(reserve.stdout + reserve.stderr), reserve.stdout).toBeLessThanOrEqual(80);
  });

  it('holds the comparison of the strategies with the names of the instances whole', async () => {
    const { stdout } = await at('simulate --requests 1000');
    const table = stdout.split('\n\n')[0] ?? '';
    expect(widest(stdout), stdout).toBeLessThanOrEqual(80);
    expect(table).toMatch(/^round_robin .* \d+ % h100-1 +\d+ % 3090-\d$/m);
    expect(table).not.toContain('…');
  });
});

it('shows the limits of each key', async () => {
  const { stdout } = await at('keys list', 140);
  expect(stdout).toMatch(/^ID .* STATE +PER MIN +OPEN\n/);
  expect(stdout).toMatch(/ in 29 d 23 h +live +600 +16$/m);
});

it('a terminal that was never told its size counts as one of 80 columns', async () => {
  // The list stands for all. In no columns at all it would be as narrow as it can.
  const line = `stty rows 0 cols 0; ${process.execPath} ${program.main} list -u ${server.url}`;
  const { stdout } = await promisify(execFile)('script', ['-qec', line, '/dev/null'], {
    env: { ...program.environment(), TERM: 'xterm', SHELL: '/bin/sh' },
  });
  expect(widest(stdout.replaceAll('\r', ''))).toBe(80);
});
