import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createCommand } from '../../src/cli/command.ts';
import { commands } from '../../src/cli/index.ts';
import { guideReserved, startGuideServer, upstreamBody } from './guide-server.ts';
import { createProgram, type Program } from './program.ts';

let program: Program;
let server: Awaited<ReturnType<typeof startGuideServer>>;
beforeAll(async () => {
  [program, server] = await Promise.all([createProgram(), startGuideServer()]);
});
afterEach(() => server.reset());
afterAll(async () => {
  await server.close();
  program.remove();
});

const at = (line: string) => program.run([...line.split(' '), '-u', server.url, '-key', 'YOUR_KEY']);
const sent = () => server.seen.map(({ method, path }) => `${method} ${path.replace('/api/v1', '')}`);
const one = 'GET /api/v1/fleet/vast-12345';
const reservation = {
  reservation_id: 'res-1',
  created_at: '2026-11-20T10:00:00.000Z',
  by: 'operator',
  requested: 1,
  state: 'active',
  instances: ['vast-12345'],
  ended: [],
  price_per_hour: 0.79,
  errors: [],
};
const event = {
  id: 7,
  at: '2026-11-20T10:00:00.000Z',
  level: 'ok',
  kind: 'rental',
  subject: null,
  message: 'rented',
};
const events = () =>
  server.on('GET /api/v1/events', {
    body: `event: gap\ndata: {"missed":true}\n\nid: 7\nevent: rental\ndata: ${JSON.stringify(event)}\n\n`,
    type: 'text/event-stream; charset=utf-8',
  });
const batch = {
  vastai_instances: ['1', '2'],
  ionet_instances: [],
  total_created: 2,
  errors: [],
  reservation_id: 'res-1',
};

describe('--fields', () => {
  it('of a document without rows are fields of the document, empty lists in it or not', async () => {
    server.on('GET /api/v1/reservations/res-1', { body: reservation });
    server.on('POST /api/v1/gpu/instances/batch', { status: 201, body: batch });
    expect((await at('reservations show res-1 --fields state')).stdout).toBe('{"state":"active"}\n');
    expect((await at('batch --vastai 2 --fields total_created')).stdout).toBe('{"total_created":2}\n');
    server.on(one, { body: upstreamBody('vast-12345') });
    const dry = await at('weight vast-12345 3 --dry-run --fields to,plan_id');
    expect(Object.keys(JSON.parse(dry.stdout))).toEqual(['to', 'plan_id']);
  });

  it('narrow each event, and leave the gap before them', async () => {
    events();
    expect((await at('events --once --fields id,kind')).stdout).toBe('{"missed":true}\n{"id":7,"kind":"rental"}\n');
  });

  it.each([
    ['reservations show res-1', 'reservation_id'],
    ['reservations', 'reservation_id'],
    ['events', 'id'],
    ['batch --vastai 2', 'vastai_instances'],
    ['reserve 4', 'instance_id'],
    ['destroy vast-12345 --yes', 'instance_id'],
    ['fleet', 'instance_id'],
    ['keys', 'id'],
  ])('? of %s lists them and sends nothing', async (line, first) => {
    const { code, stdout } = await at(`${line} --fields ?`);
    expect([code, stdout.split('\n')[0]]).toEqual([0, first]);
    expect(sent()).toEqual([]);
  });

  it('? of a plan lists those of the plan', async () => {
    const { stdout } = await at('lb-strategy least_connections --dry-run --fields ?');
    expect(stdout).toBe('strategy\nwould_be\nplan_id\nrequests\n');
    expect(sent()).toEqual(['GET /loadbalancer/strategy']);
  });

  it('that are not known are refused before anything is rented', async () => {
    const { code, stderr } = await at('reserve 4 --fields contract');
    expect([code, sent()]).toEqual([2, []]);
    expect(stderr).toContain('unknown field "contract"; did you mean contract_id?');
  });
});

describe('--curl', () => {
  it('shows the request of events, and of a change that is only to be planned', async () => {
    const follow = await at('events --since 3 --curl');
    expect([follow.code, follow.stdout]).toEqual([0, expect.stringMatching(/^curl .*last-event-id: 3.*\/events\n$/)]);
    for (const line of ['lb-strategy least_connections', 'weight vast-12345 2', 'drain vast-12345']) {
      const { code, stdout } = await at(`${line} --dry-run --curl`);
      expect([code, stdout]).toEqual([0, expect.stringMatching(/^curl -sS -X P/)]);
    }
    expect((await at('lb-strategy least_connections --plan plan-0 --curl')).stdout).toContain('curl -sS -X PUT');
    expect(sent()).toEqual([]);
  });

  it.each(['doctor', 'simulate'])('is no option of %s, which is no one request', async (name) => {
    const { code, stdout, stderr } = await at(`${name} --curl`);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain("unknown option '--curl'");
  });
});

describe('--plain', () => {
  const figures = (text: string) => text.trimEnd().split('\t');

  it('of load is the rows of the instances alone, those of the providers have their own command', async () => {
    const both = await at('load --plain');
    expect(both.stdout).toBe((await at('load server --plain')).stdout);
    expect(both.stdout.split('\n')[0]).toBe('vast-12345\tvast.ai\t3\t150\t250\t1.5');
    expect((await at('load provider --plain')).stdout).toBe('vast.ai\t42\nio.net\t28\n');
  });

  it('has times in ms, prices in USD and no sentences', async () => {
    server.on('GET /api/v1/fleet', { body: { upstreams: [upstreamBody('vast-12345')], count: 1, foreign: [] } });
    server.on(one, { body: upstreamBody('vast-12345') });
    const row = 'vast-12345\tvast.ai\tOK\tRTX 4090\t24\t0.79\t\t3\t250\t\n';
    expect((await at('fleet --plain')).stdout).toBe(row);
    expect((await at('fleet vast-12345 --plain')).stdout).toBe(row);
    expect((await at('destroy vast-12345 --dry-run --plain')).stdout).toBe('vast-12345\tRTX 4090\t0.79\t3\t\n');
    expect((await at('weight vast-12345 3 --dry-run --plain')).stdout).toBe('vast-12345\t1.5\t3\n');
    expect((await at('weight vast-12345 auto --dry-run --plain')).stdout).toBe('vast-12345\t1.5\tauto\n');
    expect((await at('drain vast-12345 --dry-run --plain')).stdout).toBe('vast-12345\tOK\t3\n');
    expect((await at('extend vast-12345 2 --dry-run --plain')).stdout).toBe('vast-12345\t2\t1.58\n');
  });

  it('of what would be lost with prepaid time is its price', async () => {
    const end = new Date(Date.now() + 2 * 3_600_000).toISOString();
    server.on(one, { body: upstreamBody('vast-12345', { expires_at: end }) });
    expect(figures((await at('destroy vast-12345 --dry-run --plain')).stdout).at(-1)).toBe('1.58');
  });

  it('of simulate is figures alone', async () => {
    const { stdout } = await at('simulate --requests 1000 --strategy round_robin --plain');
    expect(figures(stdout)).toEqual([
      'round_robin',
      ...Array.from({ length: 4 }, () => expect.stringMatching(/^\d+(\.\d+)?$/)),
      '0',
      expect.stringMatching(/^0\.\d+$/),
      'h100-1',
      expect.stringMatching(/^\d+\.\d+$/),
      expect.stringMatching(/^3090-/),
    ]);
  });
});

describe('-q', () => {
  it('is what rows are called by, with every command', async () => {
    server.on(one, { body: upstreamBody('vast-12345') });
    server.on('GET /api/v1/version', { body: { version: '9.9.9', node: '26.0.0' } });
    const said = async (line: string) => {
      const { stdout, stderr } = await at(`${line} -q`);
      expect([line, stderr]).toEqual([line, '']);
      return stdout;
    };
    expect(await said('load')).toBe('vast-12345\nvast-67890\nionet-abc\n');
    expect(await said('load provider')).toBe('vast.ai\nio.net\n');
    expect(await said('weight vast-12345 3 --dry-run')).toBe('vast-12345\n');
    expect(await said('version')).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect(await said('simulate --requests 1000 --strategy round_robin')).toBe('round_robin\n');
    expect(guideReserved.reserved.map(({ instance_id }) => `${instance_id}\n`).join('')).toBe(await said('reserve 16'));
  });
});

it('every command but those of the server and of the help prints documents, rows and ids', async () => {
  for (const entry of commands) {
    const command = await createCommand(entry);
    const known = command.options.map(({ long }) => long);
    const others = ['tui', 'serve', 'sim', 'schema', 'completion', 'help'];
    if (others.includes(entry.name)) continue;
    expect(known, entry.name).toEqual(expect.arrayContaining(['--json', '--plain', '--quiet']));
  }
});

it('the documentation names the commands that have --watch', async () => {
  const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'command-line.md'), 'utf8');
  const [, list = ''] = /\n(.*) have `--watch \[time\]`/.exec(page) ?? [];
  const watching: string[] = [];
  for (const entry of commands) {
    const { options } = await createCommand(entry);
    if (options.some(({ long }) => long === '--watch')) watching.push(entry.name);
  }
  expect(
    list
      .match(/[a-z-]{3,}/g)
      ?.filter((word) => word !== 'and')
      .sort(),
  ).toEqual(watching.sort());
});

it('config and doctor print rows with --plain and names with -q', async () => {
  const run = async (line: string) =>
    (
      await program.run(line.split(' '), {
        env: { GPUPROXY_PORT: '0', GPUPROXY_PROXY_PORT: '0', UPSTREAMS: 'http://127.0.0.1:9' },
      })
    ).stdout;
  expect(await run('config get --plain')).toContain('url\t\n');
  expect((await run('config get -q')).split('\n')).toContain('apiKey');
  expect(await run('config show --plain')).toContain('\nHEALTH_PATH\tdefault\t/health\n');
  expect((await run('config show -q')).split('\n')[0]).toBe('LB_STRATEGY');
  const checks = await run('doctor --plain -u http://127.0.0.1:9');
  expect(checks).toMatch(/^ok\tnode\t\S.*\t\n/);
  expect(checks).toMatch(/\nwarn\tserver\t.*\tstart it with "gpuproxy serve"/);
  expect(await run('doctor -q -u http://127.0.0.1:9')).toBe('server\nupstream 127.0.0.1-9\n');
});
