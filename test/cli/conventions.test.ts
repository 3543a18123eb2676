import { spawn } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { problem, startGuideServer, upstreamBody } from './guide-server.ts';
import { createProgram, type Program, type RunOptions } from './program.ts';

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

const at = (line: string, options: RunOptions = {}) =>
  program.run([...line.split(' '), '-u', server.url, '-key', 'YOUR_KEY'], options);
const sent = () => server.seen.map(({ method, path }) => `${method} ${path.replace('/api/v1', '')}`);
const one = 'GET /api/v1/fleet/vast-12345';

/** Runs on a terminal of its own, made by script(1), and types the answer at the first question. */
function onTerminal(line: string, { typed = '', env = {} }: { typed?: string; env?: Record<string, string> } = {}) {
  return new Promise<{ screen: string; code: number }>((resolve) => {
    const child = spawn(
      'script',
      [
        '-qec',
        `stty rows 20 cols 100; ${process.execPath} ${program.main} -u ${server.url} ${line}; echo rc=$?`,
        '/dev/null',
      ],
      {
        env: { ...program.environment(), TERM: 'xterm', SHELL: '/bin/sh', ...env },
        cwd: join(program.folder, 'empty'),
      },
    );
    let screen = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const before = screen.includes('[y/N]');
      screen += text;
      if (!before && screen.includes('[y/N]')) child.stdin.write(`${typed}\n`);
      if (screen.includes('rc=')) child.stdin.end();
    });
    child.on('close', () => resolve({ screen, code: Number(/rc=(\d+)/.exec(screen)?.[1]) }));
  });
}

describe('--plain', () => {
  it('is rows with tabs, no header, and figures as numbers', async () => {
    const [load, reserved] = await Promise.all([at('load server --plain'), at('reserve 16 --plain')]);
    expect(load.stdout).toBe(
      'vast-12345\tvast.ai\t3\t150\t250\t1.5\n' +
        'vast-67890\tvast.ai\t2\t120\t230\t1.5\n' +
        'ionet-abc\tio.net\t1\t80\t180\t2\n',
    );
    expect(reserved.stdout.split('\n')[0]).toBe('vast-12345\t54321\tvast.ai\tRTX 4090\t24\t0.79');
  });

  it('leaves a field empty that is not known, and takes control characters out of it', async () => {
    const row = upstreamBody('vast-1', { reason: 'a\tb\u001b[2Jc', gpu_model: '' });
    server.on('GET /api/v1/fleet', { body: { upstreams: [row], count: 1, foreign: [] } });
    const { stdout } = await at('fleet --plain');
    const fields = stdout.trimEnd().split('\t');
    expect(fields.slice(0, 5)).toEqual(['vast-1', 'vast.ai', 'OK', '', '24']);
    expect(fields.at(-1)).toBe('a b [2Jc');
  });

  it('excludes --json', async () => {
    const { code, stderr } = await at('load --plain --json');
    expect(code).toBe(2);
    expect(JSON.parse(stderr).error.message).toContain("'--plain' cannot be used with option '--json'");
  });
});

it('-q prints ids alone', async () => {
  server.on('GET /api/v1/fleet', { body: { upstreams: [upstreamBody('vast-1')], count: 1, foreign: [] } });
  const outcomes = await Promise.all([at('load server -q'), at('reserve 16 -q'), at('fleet -q')]);
  expect(outcomes.map(({ stdout, stderr }) => [stdout, stderr])).toEqual([
    ['vast-12345\nvast-67890\nionet-abc\n', ''],
    ['vast-12345\nvast-67890\nionet-abc\n', ''],
    ['vast-1\n', ''],
  ]);
});

describe('an answer that is not what its name promises', () => {
  it('is told with the field that is wrong, not shown as dashes', async () => {
    server.on('GET /api/v1/loadbalancer/strategy', { body: { strategy: 7 } });
    const { code, stdout, stderr } = await at('lb-strategy');
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/answered something else than this program knows\ncause: strategy: /);
  });

  it('may have fields that a newer server added', async () => {
    server.on(one, { body: { ...upstreamBody('vast-12345'), colour: 'red' } });
    const { code, stdout } = await at('fleet vast-12345');
    expect(code).toBe(0);
    expect(stdout).toContain('takes requests  yes');
  });

  it('is printed as it came with --json', async () => {
    server.on('GET /api/v1/loadbalancer/strategy', { body: { strategy: 7 } });
    expect((await at('lb-strategy --json')).stdout).toBe('{"strategy":7}\n');
  });
});

describe('what cannot be undone', () => {
  const destroy = 'DELETE /api/v1/fleet/vast-12345';
  const gone = () => {
    server.on(one, { body: upstreamBody('vast-12345') });
    server.on(destroy, { body: { instance_id: 'vast-12345', status: 'destroyed' } });
  };

  it('without a terminal is refused with exit 7 unless the command line confirms it', async () => {
    gone();
    const refused = await at('destroy vast-12345');
    expect([refused.code, refused.stdout]).toEqual([7, '']);
    expect(refused.stderr).toContain('error: not confirmed: add --yes (would destroy vast-12345)');
    expect(sent()).toEqual([]);
    expect((await at('destroy vast-12345 --confirm vast-99')).code).toBe(7);
    expect(sent()).toEqual([]);
    expect((await at('destroy vast-12345 --confirm vast-12345')).stdout).toBe('vast-12345  destroyed\n');
    expect((await at('destroy vast-12345 --yes')).code).toBe(0);
  });

  it('of several is confirmed by their number', async () => {
    gone();
    const several = await at('destroy vast-12345 vast-2 --confirm vast-12345');
    expect([several.code, sent()]).toEqual([7, []]);
    expect(several.stderr).toContain('these are 2 instances');
  });

  it('of a reservation is confirmed by its id', async () => {
    server.on('GET /api/v1/reservations/res-1', { body: reservation });
    server.on('DELETE /api/v1/reservations/res-1', {
      body: { reservation_id: 'res-1', released: ['vast-12345'], failed: [] },
    });
    expect((await at('reservations release res-1')).code).toBe(7);
    const other = await at('reservations release res-1 --confirm res-2');
    expect([other.code, other.stderr]).toEqual([7, expect.stringContaining('the reservation is res-1')]);
    expect(sent()).not.toContain('DELETE /reservations/res-1');
    const done = await at('reservations release res-1 --confirm res-1');
    expect([done.code, done.stdout]).toEqual([0, 'Released 1 instance of res-1\n  vast-12345\n']);
  });

  it('on a terminal is asked about, with what is open, and --no-input forbids to ask', async () => {
    gone();
    const no = await onTerminal('destroy vast-12345', { typed: 'n' });
    expect(no.screen).toContain('$0.79 per hour  3 open requests');
    expect([no.code, sent()]).toEqual([7, ['GET /fleet/vast-12345']]);
    expect((await onTerminal('destroy vast-12345 --no-input')).code).toBe(7);
    expect((await onTerminal('destroy vast-12345', { env: { CI: '1' } })).code).toBe(7);
    expect((await onTerminal('destroy vast-12345', { typed: 'y' })).code).toBe(0);
  });

  it('renting with --no-input is refused with its price, though a script may reserve without asking', async () => {
    const instance = { id: '1', provider: 'vast.ai', gpu_name: 'RTX 4090', gpu_count: 1, vram_gb: 24, available: 1 };
    server.on('POST /api/v1/gpu/instances/plan', {
      body: {
        instances: [{ ...instance, price_per_hour: 1.4, location: null }],
        count: 1,
        requested: 1,
        price_per_hour: 1.4,
        prepaid_usd: 0,
        errors: [],
      },
    });
    const { code, stderr } = await at('reserve 1 --no-input');
    expect(code).toBe(7);
    expect(stderr).toContain('not confirmed: add --yes (would spend $1.40 per hour in total)');
    expect(sent()).toEqual(['POST /gpu/instances/plan']);
  });

  it('renting under CI with a terminal asks nobody and rents nothing unless it is confirmed', async () => {
    const offer = { id: '7', provider: 'io.net', gpu_name: 'H100', gpu_count: 1, vram_gb: 80, available: 1 };
    const instances = [{ ...offer, price_per_hour: 1.4, location: null }];
    const plan = { instances, count: 1, requested: 1, price_per_hour: 1.4, prepaid_usd: 0, errors: [] };
    server.on('POST /api/v1/gpu/instances/plan', { body: plan });
    server.on('POST /api/v1/gpu/instances/batch/plan', { body: plan });
    server.on('GET /api/v1/gpu/instances', { body: { instances, count: 1, provider: 'io.net', errors: [] } });
    for (const line of ['reserve 1', 'batch --ionet 1', 'rent io.net 7']) {
      const { screen, code } = await onTerminal(line, { env: { CI: '1' } });
      expect([line, code]).toEqual([line, 7]);
      expect(screen).toContain('not confirmed: add --yes (would spend $1.40 per hour in total)');
    }
    expect(sent().filter((line) => !/^GET|plan$/.test(line))).toEqual([]);
    expect((await onTerminal('reserve 1 --yes', { env: { CI: '1' } })).code).toBe(0);
  });

  it('renting asks with what is charged at once, and does it for a yes alone', async () => {
    const instance = { id: '7', provider: 'io.net', gpu_name: 'H100', gpu_count: 1, vram_gb: 80, available: 1 };
    server.on('POST /api/v1/gpu/instances/plan', {
      body: {
        instances: [{ ...instance, price_per_hour: 1.4, location: null }],
        count: 1,
        requested: 1,
        price_per_hour: 1.4,
        prepaid_usd: 4.2,
        errors: [],
      },
    });
    const no = await onTerminal('reserve 1 --hours 3', { typed: 'n' });
    expect(no.screen).toContain('Rent 1 instance for $1.40 per hour in total, $4.20 charged at once? [y/N]');
    expect([no.code, sent()]).toEqual([7, ['POST /gpu/instances/plan']]);
    expect((await onTerminal('reserve 1 --hours 3', { typed: 'y' })).code).toBe(0);
    expect(sent()).toContain('POST /gpu/instances/reserve');
  });
});

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

describe('--dry-run and --plan', () => {
  it('show what would be sent under an id, and send just that', async () => {
    server.on(one, { body: upstreamBody('vast-12345') });
    server.on('POST /api/v1/fleet/vast-12345/drain', { body: upstreamBody('vast-12345', { state: 'DRAIN' }) });
    const dry = JSON.parse((await at('drain vast-12345 --deadline 2m --dry-run --json')).stdout);
    expect(dry.requests).toEqual([
      { method: 'POST', path: '/api/v1/fleet/vast-12345/drain', body: { deadline_seconds: 120 } },
    ]);
    expect(dry.instances[0].instance_id).toBe('vast-12345');
    expect(sent()).toEqual(['GET /fleet/vast-12345']);
    const done = await at(`drain vast-12345 --deadline 2m --plan ${dry.plan_id}`);
    expect([done.code, done.stdout]).toEqual([0, 'vast-12345  DRAIN\n']);
    expect(server.seen.at(-1)?.body).toEqual({ deadline_seconds: 120 });
  });

  it.each([
    ['the command is another one', 'drain vast-12345 --deadline 3m', {}],
    ['the instance has changed', 'drain vast-12345', { admin: { mode: 'drain', deadline: null } }],
  ])('refuse with exit 7 when %s', async (_what, command, change) => {
    server.on(one, { body: upstreamBody('vast-12345') });
    const { plan_id } = JSON.parse((await at('drain vast-12345 --dry-run --json')).stdout);
    server.on(one, { body: upstreamBody('vast-12345', change) });
    server.seen.length = 0;
    const { code, stderr } = await at(`${command} --plan ${plan_id}`);
    expect(code).toBe(7);
    expect(stderr).toContain(`it would no longer be ${plan_id}`);
    expect(sent()).toEqual(['GET /fleet/vast-12345']);
  });

  it('know the price of what is rented: another offer or price is another plan', async () => {
    const plan = (price: number) => ({
      body: {
        instances: [
          {
            id: '1',
            provider: 'vast.ai',
            gpu_name: 'A100',
            gpu_count: 1,
            vram_gb: 80,
            price_per_hour: price,
            available: 1,
            location: null,
          },
        ],
        count: 1,
        requested: 1,
        price_per_hour: price,
        prepaid_usd: 0,
        errors: [],
      },
    });
    server.on('POST /api/v1/gpu/instances/plan', plan(1));
    const dry = await at('reserve 1 --dry-run --json');
    const { plan_id, price_per_hour, requests } = JSON.parse(dry.stdout);
    expect([dry.code, price_per_hour]).toEqual([0, 1]);
    server.on('POST /api/v1/gpu/instances/plan', plan(2));
    expect((await at(`reserve 1 --plan ${plan_id}`)).code).toBe(7);
    expect(sent()).not.toContain('POST /gpu/instances/reserve');
    server.on('POST /api/v1/gpu/instances/plan', plan(1));
    expect((await at(`reserve 1 --plan ${plan_id}`)).code).toBe(0);
    expect(sent().at(-1)).toBe('POST /gpu/instances/reserve');
    expect(server.seen.at(-1)?.body).toEqual(requests[0].body);
  });

  it('--max-total rents without asking up to that price, which the server is told too, and refuses with exit 7 above', async () => {
    server.on('POST /api/v1/gpu/instances/plan', {
      body: {
        instances: [
          {
            id: '1',
            provider: 'vast.ai',
            gpu_name: 'A100',
            gpu_count: 1,
            vram_gb: 80,
            price_per_hour: 1.5,
            available: 1,
            location: null,
          },
        ],
        count: 1,
        requested: 1,
        price_per_hour: 1.5,
        prepaid_usd: 0,
        errors: [],
      },
    });
    const over = await at('reserve 1 --max-total 1.4 --no-input');
    expect(over.code).toBe(7);
    expect(over.stderr).toContain('it would cost $1.50 per hour in total, $1.40 are allowed');
    expect(sent()).toEqual(['POST /gpu/instances/plan']);
    expect((await at('reserve 1 --max-total 1.6 --no-input')).code).toBe(0);
    expect(server.seen.at(-1)?.body).toMatchObject({ count: 1, max_total_price: 1.6 });
  });

  it('go with every command that changes what runs or what it costs', async () => {
    server.on(one, { body: upstreamBody('vast-12345') });
    server.on('GET /api/v1/reservations/res-1', { body: reservation });
    const commands = [
      'destroy vast-12345',
      'weight vast-12345 3',
      'extend vast-12345 2',
      'lb-strategy least_connections',
      'reservations release res-1',
    ];
    for (const command of commands) {
      const { code, stdout } = await at(`${command} --dry-run --json`);
      expect([command, code]).toEqual([command, 0]);
      expect(JSON.parse(stdout).plan_id, command).toMatch(/^plan-[0-9a-f]{16}$/);
      const { code: refused } = await at(`${command} --plan plan-0000000000000000`);
      expect([command, refused]).toEqual([command, 7]);
    }
    expect(sent().filter((line) => !line.startsWith('GET '))).toEqual([]);
  });
});

describe('--until ready', () => {
  it('looks until the instance takes requests, and shows it once', async () => {
    let looks = 0;
    server.on(one, () => {
      looks += 1;
      return {
        body: upstreamBody('vast-12345', looks < 3 ? { eligible: false, lifecycle: phase('booting') } : {}),
      };
    });
    const { code, stdout } = await at('fleet vast-12345 --until ready --timeout 60s --watch 0.1 --json');
    expect(code).toBe(0);
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line).eligible),
    ).toEqual([false, false, true]);
  });

  it('ends with exit 1 when the time is over, and at once when it never will be', async () => {
    server.on(one, { body: upstreamBody('vast-12345', { eligible: false, lifecycle: phase('booting') }) });
    const late = await at('fleet vast-12345 --until ready --timeout 300ms');
    expect([late.code, late.stdout]).toEqual([1, '']);
    expect(late.stderr).toContain('not ready in time: 0 of 1 ready');
    server.on(one, {
      body: upstreamBody('vast-12345', { eligible: false, lifecycle: phase('ended'), reason: 'outbid' }),
    });
    const never = await at('fleet vast-12345 --until ready');
    expect(never.code).toBe(1);
    expect(never.stderr).toContain('will not be ready: vast-12345 is not: outbid');
  });

  it('of a reservation waits for all its instances', async () => {
    server.on('GET /api/v1/reservations/res-1', {
      body: {
        reservation_id: 'res-1',
        created_at: '2026-11-20T10:00:00.000Z',
        by: 'operator',
        requested: 2,
        state: 'active',
        instances: ['vast-1', 'vast-2'],
        ended: [],
        price_per_hour: 1.58,
        errors: [],
      },
    });
    let looks = 0;
    server.on('GET /api/v1/fleet', () => {
      looks += 1;
      const second = looks < 2 ? { eligible: false, lifecycle: phase('booting') } : {};
      const upstreams = [upstreamBody('vast-1'), upstreamBody('vast-2', second)];
      return { body: { upstreams, count: 2, foreign: [] } };
    });
    const { code, stdout } = await at('reservations show res-1 --until ready -q');
    expect([code, stdout, looks]).toEqual([0, 'vast-1\nvast-2\n', 2]);
  });

  const phase = (name: string) => ({ phase: name, since: '2026-11-20T10:00:00.000Z', detail: null });
});

describe('connection', () => {
  it('--retry asks again so often, and never repeats a change', async () => {
    const cut = (_request: unknown, response: { socket: { destroy(): void } | null }) => {
      response.socket?.destroy();
      return undefined;
    };
    server.on('GET /api/v1/loadbalancer/strategy', cut);
    server.on('PUT /api/v1/loadbalancer/strategy', cut);
    expect((await at('lb-strategy --retry 3')).code).toBe(3);
    expect(server.seen).toHaveLength(4);
    server.seen.length = 0;
    expect((await at('lb-strategy --retry 0')).code).toBe(3);
    expect(server.seen).toHaveLength(1);
    server.seen.length = 0;
    expect((await at('lb-strategy least_connections --retry 3 -q')).code).toBe(3);
    expect(sent()).toEqual(['PUT /loadbalancer/strategy']);
  });

  it('--curl sends nothing, whatever else the command would look up first', async () => {
    const lines = ['lb-strategy least_connections', 'destroy vast-12345', 'weight vast-12345 2', 'drain vast-12345'];
    for (const line of lines) {
      const { code, stdout } = await at(`${line} --curl`);
      expect([code, stdout]).toEqual([0, expect.stringContaining('curl -sS -X ')]);
      expect(stdout).toContain('$GPUPROXY_API_KEY');
    }
    expect(server.seen).toEqual([]);
  });

  it('--debug tells each request on stderr, without the key', async () => {
    const { stdout, stderr } = await at('lb-strategy --debug');
    expect(stdout).toBe('round_robin\n');
    expect(stderr).toMatch(/^debug: GET \/api\/v1\/loadbalancer\/strategy 200 \d+ ms\n$/);
  });
});

describe('a terminal', () => {
  const offers = Array.from({ length: 70 }, (_, n) => ({
    id: `offer-${n}`,
    provider: 'vast.ai',
    gpu_name: 'RTX 4090',
    gpu_count: 1,
    vram_gb: 24,
    price_per_hour: 0.3 + n / 100,
    available: 1,
    location: 'Norway, a place with a name that is much too long for any line of a terminal',
  }));
  const list = () =>
    server.on('GET /api/v1/gpu/instances', { body: { instances: offers, count: 70, provider: 'all', errors: [] } });

  it('is fitted into; GPUPROXY_FORCE_TTY stands for one', async () => {
    list();
    const wide = await at('list --limit 1');
    expect(wide.stdout).toContain('too long for any line of a terminal');
    const narrow = await at('list --limit 1', { env: { GPUPROXY_FORCE_TTY: '72' } });
    expect(Math.max(...narrow.stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(72);
    expect(narrow.stdout).toContain('…');
  });

  it('gets the first 50 offers as a table; --all, --json, --plain and -q give all', async () => {
    list();
    const table = await at('list');
    expect(table.stdout.trimEnd().split('\n')).toHaveLength(51);
    expect(table.stderr).toContain('50 of 70 offers; --all shows the others');
    expect((await at('list --all')).stdout.trimEnd().split('\n')).toHaveLength(71);
    expect((await at('list --plain')).stdout.trimEnd().split('\n')).toHaveLength(70);
    expect((await at('list -q --limit 3')).stdout).toBe('offer-0\noffer-1\noffer-2\n');
    expect(JSON.parse((await at('list --json')).stdout).instances).toHaveLength(70);
    expect(JSON.parse((await at('list --json --limit 2')).stdout)).toMatchObject({ count: 2 });
  });

  it('that is too low for the text gets a pager, a pipe and JSON never do', async () => {
    list();
    const pager = join(program.folder, 'pager');
    writeFileSync(pager, '#!/bin/sh\necho "PAGED $(wc -l)"\n');
    chmodSync(pager, 0o755);
    const env = { GPUPROXY_PAGER: pager };
    expect((await onTerminal('list', { env })).screen).toContain('PAGED 51');
    expect((await onTerminal('list --limit 3', { env })).screen).not.toContain('PAGED');
    expect((await onTerminal('list --json', { env })).screen).not.toContain('PAGED');
    expect((await at('list', { env })).stdout).not.toContain('PAGED');
    expect((await onTerminal('list', { env: { GPUPROXY_PAGER: '/does/not/exist' } })).screen).toContain('offer-49');
  });

  it('shows --watch in place, a pipe one after the other', async () => {
    let looks = 0;
    server.on('GET /api/v1/loadbalancer/strategy', (_request, response) => {
      looks += 1;
      if (looks < 4) return { body: { strategy: 'round_robin' } };
      response.socket?.destroy();
      return undefined;
    });
    let out = '';
    await at('lb-strategy --watch=0.1s', {
      onStart: (child) =>
        child.stdout?.on('data', (text: string) => {
          out += text;
          if (out.split('round_robin').length > 3) child.kill('SIGTERM');
        }),
    });
    expect(out).toMatch(/^round_robin\n(\nround_robin\n)+$/);
    looks = 0;
    const inPlace = await at('lb-strategy --watch 0.1', {
      env: { GPUPROXY_FORCE_TTY: '80' },
      onStart: (child) => child.stderr?.once('data', () => child.kill('SIGTERM')),
    });
    expect(inPlace.stdout.startsWith('\u001b[2J\u001b[Hround_robin')).toBe(true);
    expect(inPlace.stdout.split('\u001b[2J')).toHaveLength(2);
  });
});

describe('events', () => {
  const event = (id: number, subject: string | null, message: string) =>
    `id: ${id}\nevent: rental\ndata: ${JSON.stringify({ id, at: '2026-11-20T10:00:00.000Z', level: 'ok', kind: 'rental', subject, message })}\n\n`;
  const stream = (body: string) =>
    server.on('GET /api/v1/events', { body, type: 'text/event-stream; charset=utf-8', status: 200 });

  it('are lines for people, rows with --plain, documents with --json, ids with -q', async () => {
    stream(
      `event: gap\ndata: {"missed":true}\n\n${event(1, 'vast-1', 'vast-1 rented')}${event(2, 'vast-2', 'is\u001b[2J up')}`,
    );
    const [people, plain, json, ids] = await Promise.all(
      ['', ' --plain', ' --json', ' -q'].map((more) => at(`events --once${more}`, { env: { TZ: 'UTC' } })),
    );
    expect(people?.stdout).toBe(
      '...  older events are no longer kept\n10:00:00  ok     rental  vast-1 rented\n10:00:00  ok     rental  vast-2  is [2J up\n',
    );
    expect(plain?.stdout).toBe(
      '2026-11-20T10:00:00.000Z\tok\trental\tvast-1\tvast-1 rented\n2026-11-20T10:00:00.000Z\tok\trental\tvast-2\tis [2J up\n',
    );
    expect(
      json?.stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line).id),
    ).toEqual([undefined, 1, 2]);
    expect(ids?.stdout).toBe('1\n2\n');
  });

  it('that make no sense are told, not left out', async () => {
    stream('id: 1\nevent: rental\ndata: {"id":"one"}\n\n');
    const { code, stderr } = await at('events --once');
    expect(code).toBe(1);
    expect(stderr).toContain('answered something else than this program knows');
  });
});

it('--watch on a terminal shows as much as it is high', async () => {
  const rows = Array.from({ length: 40 }, (_, n) => upstreamBody(`vast-${n}`));
  const seen = join(program.folder, 'seen');
  let looks = 0;
  server.on('GET /api/v1/fleet', () => {
    looks += 1;
    if (looks === 3) writeFileSync(seen, '');
    return { body: { upstreams: rows, count: 40, foreign: [] } };
  });
  const wait = `while [ ! -e ${seen} ]; do sleep 0.1; done`;
  const { screen } = await onTerminal(`fleet --watch 0.1 & ${wait}; kill $!; wait $!`);
  expect(screen).toContain('… 23 more lines');
  expect(screen).not.toContain('vast-30');
});

describe('doctor', () => {
  it.each([
    ['a wrong address', ['doctor', '-u', 'nowhere'], {}, '--url: got "nowhere"'],
    ['a wrong key', ['doctor', '-k', 'with blank'], {}, '--key: got a value that is hidden'],
    ['a wrong variable', ['doctor'], { GPUPROXY_URL: 'nowhere' }, 'GPUPROXY_URL'],
    ['another wrong variable', ['doctor'], { LB_STRATEGY: 'fastest' }, 'LB_STRATEGY'],
  ])('lists %s as a failed check among the others', async (_what, args, env, detail) => {
    // A server may well run at the default address of the machine that tests.
    const nowhere = { GPUPROXY_URL: 'http://127.0.0.1:9' };
    const { code, stdout, stderr } = await program.run(args, {
      env: { GPUPROXY_PORT: '0', GPUPROXY_PROXY_PORT: '0', ...nowhere, ...env },
    });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^ok {4}node /m);
    const failed = stdout.split('\n').filter((line) => line.startsWith('fail'));
    expect(failed).toHaveLength(1);
    expect(failed[0]).toContain(detail);
    expect(stdout).toMatch(/do: \S/);
    expect(stderr).toContain('1 failed');
    expect(stdout).not.toContain('with blank');
  });

  it('does so with a conf file that is none', async () => {
    const conf = join(program.folder, 'conf', 'config.json');
    writeFileSync(conf, 'no json');
    try {
      const { code, stdout } = await program.run(['doctor', '--json']);
      expect(code).toBe(1);
      const failed = JSON.parse(stdout).checks.filter(({ status }: { status: string }) => status === 'fail');
      expect(failed).toMatchObject([{ detail: expect.stringContaining('is not a JSON object') }]);
    } finally {
      writeFileSync(conf, '{}');
    }
  });
});

it.each([
  ['load --color alway', 'Allowed choices are auto, always, never; did you mean always?'],
  ['keys create --name a --scope amdin', 'did you mean admin?'],
  ['fleet --until redy', 'did you mean ready?'],
])('%s gets the nearest value that is known', async (line, message) => {
  const { code, stderr } = await at(line);
  expect(code).toBe(2);
  expect(stderr).toContain(message);
});

it('key and URL may stand before a command that asks no server', async () => {
  for (const line of ['help exit-codes', 'schema load', 'completion bash']) {
    const { code, stdout } = await program.run(['-key', 'K', '-url', 'http://127.0.0.1:1', ...line.split(' ')]);
    expect([line, code]).toEqual([line, 0]);
    expect(stdout).not.toBe('');
  }
  expect((await program.run(['help', 'help'])).stdout).not.toContain('--key');
});

it('help knows subcommands', async () => {
  const [{ stdout }, wrong] = await Promise.all([
    program.run(['help', 'keys', 'create']),
    program.run(['help', 'keys', 'crate']),
  ]);
  expect(stdout).toContain('--requests-per-minute');
  expect(wrong.stderr).toContain('no help on "keys crate"; did you mean create?');
});

it('a refusal that is no problem document is told by its status', async () => {
  server.on('GET /api/v1/loadbalancer/loads', { status: 502, body: 'bad gateway', type: 'text/plain' });
  const { code, stderr } = await at('load server');
  expect(code).toBe(1);
  expect(stderr).toContain('answered 502');
  server.on('GET /api/v1/loadbalancer/loads', problem(429, 'rate_limited', 'too many', {}));
  expect((await at('load server')).stderr).toContain('too many');
});
