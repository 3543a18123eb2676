import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { route } from '../../src/cli/arguments.ts';
import { createCommand } from '../../src/cli/command.ts';
import { commands } from '../../src/cli/index.ts';
import {
  guideLoads,
  guideProviders,
  guideReserved,
  problem,
  type Reply,
  startGuideServer,
  upstreamBody,
} from './guide-server.ts';
import { createProgram, type Program, type RunOptions, until } from './program.ts';

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
const reserve = 'POST /api/v1/gpu/instances/reserve';

describe('the output of the guide', () => {
  const loadServer = `Load Balancing Strategy: least_connections
Tracked Instances: 5

INSTANCE     PROVIDER  ACTIVE  TOTAL  AVG RT   WEIGHT
vast-12345   vast.ai   3       150    250ms    1.50
vast-67890   vast.ai   2       120    230ms    1.50
ionet-abc    io.net    1       80     180ms    2.00
`;
  const loadProvider = `Provider Load:
  vast.ai: 42 available instances
  io.net:  28 available instances
  Total:   70 instances
`;

  it('is that of load server, load provider and load, to the byte', async () => {
    const key = ['-key', 'YOUR_KEY', '-url', server.url];
    const outcomes = await Promise.all([
      program.run([...key, 'load', 'server']),
      program.run([...key, 'load', 'provider']),
      program.run([...key, 'load']),
    ]);
    expect(outcomes.map(({ stdout }) => stdout)).toEqual([loadServer, loadProvider, `${loadServer}\n${loadProvider}`]);
    expect(outcomes.map(({ code, stderr }) => [code, stderr])).toEqual([
      [0, ''],
      [0, ''],
      [0, ''],
    ]);
    expect(server.seen.every(({ headers }) => headers['x-api-key'] === 'YOUR_KEY')).toBe(true);
  });

  it('is that of reserve, to the byte, and needs no terminal and no --yes', async () => {
    const { stdout, code } = await program.run(['-key', 'YOUR_KEY', '-url', server.url, 'reserve', '16']);
    expect(stdout).toBe(`Reserved 16 GPUs (requested: 16)
INSTANCE     CONTRACT  PROVIDER  GPU         VRAM  PRICE
vast-12345   54321     vast.ai   RTX 4090    24GB  $0.79
vast-67890   54322     vast.ai   RTX 4090    24GB  $0.79
ionet-abc    xyz789    io.net    A100        80GB  $1.99
`);
    expect(code).toBe(0);
    expect(server.seen.map(({ method, path }) => `${method} ${path}`)).toEqual([reserve]);
    expect(server.seen[0]?.body).toEqual({ count: 16, filters: {}, config: {} });
    expect(server.seen[0]?.headers['idempotency-key']).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('of one GPU is not of several', async () => {
    server.on(reserve, {
      body: { ...guideReserved, reserved: guideReserved.reserved.slice(0, 1), count: 1, requested: 1 },
    });
    expect((await at('reserve 1')).stdout).toMatch(/^Reserved 1 GPU \(requested: 1\)\n/);
  });

  it('is the name of the strategy for lb-strategy, and a switch sends the body of the guide', async () => {
    server.on('PUT /api/v1/loadbalancer/strategy', {
      body: { strategy: 'least_response_time', message: 'Load balancing strategy updated' },
    });
    expect((await at('lb-strategy')).stdout).toBe('round_robin\n');
    const { stdout, stderr } = await at('lb-strategy least_response_time');
    expect(stdout).toBe('least_response_time\n');
    expect(stderr).toBe('Strategy: round_robin -> least_response_time. Undo: gpuproxy lb-strategy round_robin\n');
    expect(server.seen.at(-1)?.body).toEqual({ strategy: 'least_response_time' });
  });
});

describe('--json', () => {
  it('prints exactly the body of the answer and nothing else', async () => {
    const [loads, providers, both, reserved] = await Promise.all(
      ['load server --json', 'load provider --json', 'load --json', 'reserve 16 --json'].map((line) => at(line)),
    );
    expect(loads?.stdout).toBe(`${JSON.stringify(guideLoads)}\n`);
    expect(providers?.stdout).toBe(`${JSON.stringify(guideProviders)}\n`);
    expect(JSON.parse(both?.stdout ?? '')).toEqual({ ...guideLoads, ...guideProviders });
    expect(reserved?.stdout).toBe(`${JSON.stringify(guideReserved)}\n`);
  });

  it('is narrowed by --fields to those fields of each row, which ? lists', async () => {
    const loads = JSON.parse((await at('load server --fields instance_id,weight')).stdout);
    expect(loads.strategy).toBe(guideLoads.strategy);
    for (const [id, row] of Object.entries(loads.loads)) {
      expect(row, id).toEqual({ instance_id: id, weight: expect.any(Number) });
    }
    const rows = JSON.parse((await at('reserve 16 --fields contract_id')).stdout).reserved;
    expect(rows).toEqual(guideReserved.reserved.map(({ contract_id }) => ({ contract_id })));
    const listed = await at('load server --fields ?');
    expect([listed.code, listed.stdout.split('\n')[0]]).toEqual([0, 'instance_id']);
    const wrong = await at('load server --fields wieght');
    expect([wrong.code, wrong.stdout]).toEqual([2, '']);
    expect(wrong.stderr).toContain('unknown field "wieght"; did you mean weight?');
  });

  it('puts errors as one document on stderr and leaves stdout empty', async () => {
    server.on('GET /api/v1/loadbalancer/loads', problem(401, 'unauthorized', 'no'));
    const { stdout, stderr, code } = await at('load server --json');
    expect([stdout, code]).toEqual(['', 4]);
    expect(JSON.parse(stderr).error).toMatchObject({ code: 'unauthorized', status: 401 });
  });

  it('with --watch prints one document a line until it is interrupted', async () => {
    let lines = 0;
    const outcome = at('load server --json --watch 0.1', {
      onStart: (child) =>
        child.stdout?.on('data', (text: string) => {
          lines += text.split('\n').length - 1;
          if (lines >= 3) child.kill('SIGINT');
        }),
    });
    const { stdout, code } = await outcome;
    for (const line of stdout.trimEnd().split('\n')) expect(JSON.parse(line)).toEqual(guideLoads);
    expect(code).toBe(130);
  });
});

describe('exit codes', () => {
  it.each([
    ['a used-up budget', problem(409, 'budget_exceeded', 'it would cost $12 of $10'), 7],
    ['no offer', problem(409, 'no_offers', 'nothing matches'), 5],
    ['all or nothing that was not met', problem(409, 'incomplete', '3 of 4'), 5],
    ['a provider that failed', problem(502, 'provider_failed', 'vast.ai: 500'), 1],
    ['a key that is not known', problem(401, 'unauthorized', 'no'), 4],
    ['a key without the scope', problem(403, 'forbidden', 'no'), 4],
    ['a server that only reads', problem(403, 'read_only', 'no'), 7],
    [
      'a field that is not accepted',
      problem(400, 'invalid', 'no', { errors: [{ path: 'count', message: '1 to 16' }] }),
      2,
    ],
    ['fewer than requested', { status: 201, body: { ...guideReserved, count: 3, requested: 4, errors: ['gone'] } }, 6],
  ] as const)('tell of %s', async (_what, reply, exitCode) => {
    server.on(reserve, reply);
    const { code, stderr } = await at('reserve 4');
    expect(code).toBe(exitCode);
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  it('come with each reason said once', async () => {
    const said = async (detail: string, errors: { path: string; message: string }[]) => {
      server.on(reserve, problem(409, 'no_offers', detail, { errors }));
      return (await at('reserve 4')).stderr;
    };
    const why = { path: '', message: 'no offers match the filters' };
    const empty = await said('no offers match the filters', [why]);
    expect(empty).toMatch(/^error: no offers match the filters\nhint: /);
    const more = await said('no offers match the filters', [why, { path: '', message: 'vast.ai: timeout' }]);
    expect(more).toMatch(/^error: no offers match the filters\ncause: vast\.ai: timeout\nhint: /);
  });

  it('come with a cause only where it says more than the error', async () => {
    server.on(reserve, problem(409, 'conflict', 'the server is shutting down'));
    expect((await at('reserve 4')).stderr).toBe(
      'error: the server is shutting down\nhint: "gpuproxy fleet" shows what is there and in which state\n',
    );
    server.on(reserve, problem(409, 'no_credit', 'insufficient funds'));
    expect((await at('reserve 4')).stderr).toContain('\ncause: Title of no_credit (409)\n');
  });

  it.each([
    ['upstream add http://10.0.0.5:8000 --name lab', 'POST /api/v1/upstreams', 409, 'conflict', '--name'],
    ['adopt vast.ai 54321', 'POST /api/v1/fleet/adopt', 404, 'not_found', 'gpuproxy fleet'],
    ['rent vast.ai 7', 'POST /api/v1/gpu/instances/vast.ai/7', 404, 'not_found', 'gpuproxy list vast.ai'],
    ['keys revoke key-1', 'DELETE /api/v1/keys/key-1', 409, 'conflict', 'keys create --name <name> --scope admin'],
  ] as const)('come with what to do when %s is refused', async (line, request, status, code, hint) => {
    server.on(request, problem(status, code, 'it cannot be done'));
    const { stderr } = await at(line);
    expect(stderr).toMatch(/^error: it cannot be done\nhint: /);
    expect(stderr).toContain(hint);
  });

  it('tell of the data plane, which answers what its upstreams say, that it is the wrong address', async () => {
    server.on('GET /api/v1/loadbalancer/loads', {
      status: 404,
      body: { detail: 'Not Found' },
      type: 'application/json',
    });
    const { code, stderr } = await at('load server');
    expect(code).toBe(1);
    expect(stderr).toBe(
      `error: ${server.url} answered 404 (Not Found)\n` +
        'cause: it is no answer of the control plane: another program, the data plane or a proxy in between gave it\n' +
        'hint: check --url / GPUPROXY_URL: it is the control plane (default port 8080), not the data plane\n',
    );
  });

  it('tell that nothing listens, in three lines', async () => {
    const { code, stdout, stderr } = await program.run(['load', '-u', 'http://127.0.0.1:1']);
    expect([code, stdout]).toEqual([3, '']);
    expect(stderr).toBe(
      'error: could not reach http://127.0.0.1:1 (ECONNREFUSED)\n' +
        'cause: nothing listens on port 1\n' +
        'hint: start it with "gpuproxy serve", or set --url / GPUPROXY_URL\n',
    );
  });

  it('tell of a server that does not answer in time', async () => {
    server.on('GET /api/v1/loadbalancer/loads', () => new Promise(() => {}));
    const { code, stderr } = await at('load server --timeout 200ms');
    expect(code).toBe(3);
    expect(stderr).toContain('no answer within 0.2 s');
  });

  it('tell of a server that is something else', async () => {
    server.on('GET /api/v1/loadbalancer/loads', { body: '<html>', type: 'text/html' });
    const { code, stderr } = await at('load server');
    expect(code).toBe(1);
    expect(stderr).toContain('does not speak the API of gpuproxy');
  });

  it('are listed by help exit-codes', async () => {
    const { stdout } = await program.run(['help', 'exit-codes']);
    for (const code of [0, 1, 2, 3, 4, 5, 6, 7, 130, 143]) expect(stdout).toMatch(new RegExp(`^ +${code} {2}\\S`, 'm'));
  });
});

describe('wrong words', () => {
  it.concurrent.each([
    [['laod'], 'unknown command "laod"; did you mean load?'],
    [['lode'], 'unknown command "lode"; did you mean load?'],
    [['load', '--jsn'], "unknown option '--jsn'; did you mean --json?"],
    [['lb-strategy', 'least_conn'], 'unknown strategy "least_conn"; did you mean least_connections?'],
    [['load', 'sever'], 'unknown part "sever"; did you mean server?'],
    [['list', 'vastia'], 'unknown provider "vastia"; did you mean vast.ai?'],
    [['reserve', '17'], 'count: got "17", accepts a whole number from 1 to 16'],
    [['reserve', '0'], 'count: got "0", accepts a whole number from 1 to 16'],
    [['reserve', '4.5'], 'count: got "4.5", accepts a whole number from 1 to 16'],
    [['reserve'], "missing required argument 'count'"],
    [['batch', '--vastai', '9'], '--vastai: got "9", accepts a whole number from 0 to 8'],
    [['batch'], 'nothing to rent: --vastai and --ionet are both 0'],
    [['completion', 'bsh'], 'unknown shell "bsh"; did you mean bash?'],
    [['keys', 'crate'], 'unknown subcommand "crate"; did you mean create?'],
    [['load', '--timeout', 'soon'], '"soon" is not a time'],
    [['load', '-u', 'nowhere'], '--url: got "nowhere", accepts an http:// or https:// URL'],
    [['help', 'relaod'], 'no help on "relaod"'],
    [['config', 'set', 'url', 'x'], 'url: got "x", accepts an http:// or https:// URL'],
    [['weight', 'a', 'heavy'], 'weight: got "heavy", accepts a number from 0 to 1000, or auto'],
  ])('%j is exit 2 with a way out', async (args, message) => {
    const { code, stdout, stderr } = await program.run(args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(`error: ${message}`);
  });

  it('an instance that is not known gets the nearest that is', async () => {
    server.on('GET /api/v1/fleet', { body: { upstreams: [{ instance_id: 'vast-12345' }], count: 1, foreign: [] } });
    const { code, stderr } = await at('drain vast-12354');
    expect(code).toBe(1);
    expect(stderr).toContain('unknown instance "vast-12354"; did you mean vast-12345?');
  });
});

describe('configuration', () => {
  it('is flag before environment before .env before the conf file', async () => {
    const folder = mkdtempSync(join(program.folder, 'cwd-'));
    const conf = mkdtempSync(join(program.folder, 'conf-'));
    const keyAt = async (args: string[], env: Record<string, string>) => {
      await program.run(['lb-strategy', '-u', server.url, ...args], {
        cwd: folder,
        env: { GPUPROXY_CONFIG_DIR: conf, ...env },
      });
      return server.seen.at(-1)?.headers['x-api-key'];
    };
    expect(await keyAt([], {})).toBeUndefined();
    expect(
      (await program.run(['config', 'set', 'apiKey', 'conf-key'], { env: { GPUPROXY_CONFIG_DIR: conf } })).code,
    ).toBe(0);
    expect(await keyAt([], {})).toBe('conf-key');
    expect(statSync(join(conf, 'config.json')).mode & 0o777).toBe(0o600);
    writeFileSync(join(folder, '.env'), 'GPUPROXY_API_KEY=dotenv-key\n');
    expect(await keyAt([], {})).toBe('dotenv-key');
    expect(await keyAt([], { GPUPROXY_API_KEY: 'env-key-1' })).toBe('env-key-1');
    expect(await keyAt(['-key', 'flag-key'], { GPUPROXY_API_KEY: 'env-key-1' })).toBe('flag-key');
    expect(await keyAt(['--key-file', join(folder, 'key')], {})).toBe('flag-key');
    writeFileSync(join(folder, 'key'), 'file-key\n');
    expect(await keyAt(['--key-file', join(folder, 'key')], {})).toBe('file-key');
  });

  it('is shown with the origin of each value and without secrets', async () => {
    const { stdout } = await program.run(['config', 'show'], {
      env: {
        GPUPROXY_API_KEY: 'a-very-secret-key',
        LB_STRATEGY: 'least_connections',
        OTEL_EXPORTER_OTLP_HEADERS: 'tenant=very-secret-too',
      },
    });
    expect(stdout).toMatch(/^LB_STRATEGY +environment +least_connections$/m);
    expect(stdout).toMatch(/^HEALTH_PATH +default +\/health$/m);
    expect(stdout).toMatch(/^OTEL_EXPORTER_OTLP_HEADERS +environment +ten…$/m);
    expect(stdout).not.toContain('very-secret');
    const unset = await program.run(['config', 'show']);
    expect(unset.stdout).toMatch(/^OTEL_EXPORTER_OTLP_HEADERS +default *$/m);
  });

  it('that is wrong stops doctor and show with the name of the variable', async () => {
    const env = { LB_STRATEGY: 'fastest' };
    expect((await program.run(['doctor'], { env })).stdout).toContain('LB_STRATEGY: got "fastest", accepts one of');
    const { code, stderr } = await program.run(['config', 'show'], { env });
    expect(code).toBe(2);
    expect(stderr).toContain('LB_STRATEGY: got "fastest"');
  });

  it('with a conf file that is no JSON says so and not what is in it', async () => {
    const conf = mkdtempSync(join(program.folder, 'conf-'));
    writeFileSync(join(conf, 'config.json'), '{"apiKey":"planted-secret"');
    const { code, stderr } = await program.run(['load'], { env: { GPUPROXY_CONFIG_DIR: conf } });
    expect(code).toBe(2);
    expect(stderr).toContain('config.json is not a JSON object');
    expect(stderr).not.toContain('planted-secret');
  });
});

describe('a reservation', () => {
  it('that is interrupted is stopped at the server by its key, and what was rented is given back and told', async () => {
    let answer: ((reply: Reply) => void) | undefined;
    server.on(reserve, () => new Promise<Reply>((resolve) => (answer = resolve)));
    server.on('POST /api/v1/reservations/cancel', ({ body }) => {
      expect(body).toEqual({ idempotency_key: 'my-key-1' });
      answer?.(problem(409, 'incomplete', 'res-1 cancelled: 2 rented instances are given back'));
      return { body: { reservation_id: 'res-1', kept: [], released: ['vast-1', 'vast-2'], pending: ['ionet-1'] } };
    });
    const { code, stdout, stderr } = await at('reserve 4 --idempotency-key my-key-1', {
      onStart: (child) => void until(() => answer !== undefined, 'the request').then(() => child.kill('SIGINT')),
    });
    expect([code, stdout]).toEqual([130, '']);
    expect(stderr).toContain(
      'cancelled: 3 rented instances given back, 1 of them not confirmed yet: the server repeats it until the provider does',
    );
    expect(server.seen.map(({ path }) => path)).toEqual([
      '/api/v1/gpu/instances/reserve',
      '/api/v1/reservations/cancel',
    ]);
  });

  it('that is interrupted before the server knows of it is stopped once it does', async () => {
    let answer: (() => void) | undefined;
    let cancels = 0;
    server.on(reserve, async () => {
      await new Promise<void>((resolve) => {
        answer = resolve;
      });
      return { status: 201, body: guideReserved };
    });
    server.on('POST /api/v1/reservations/cancel', () => {
      cancels += 1;
      if (cancels > 1) return { body: { reservation_id: 'res-1', kept: [], released: ['vast-1'], pending: [] } };
      answer?.();
      return problem(404, 'not_found', 'no request with this Idempotency-Key has rented anything');
    });
    const { code, stderr } = await at('reserve 4', {
      onStart: (child) => void until(() => answer !== undefined, 'the request').then(() => child.kill('SIGINT')),
    });
    expect([code, cancels]).toEqual([130, 2]);
    expect(stderr).toContain('cancelled: 1 rented instance given back');
  });

  it('that takes long says how far it is, a line every ten seconds where stderr is no terminal', async () => {
    const renting = {
      reservation_id: 'res-1',
      created_at: '2026-01-12T10:30:00.000Z',
      by: 'me',
      requested: 4,
      state: 'renting',
      instances: ['vast-1', 'vast-2'],
      ended: [],
      price_per_hour: 0.79,
      errors: [],
    };
    const told = Promise.withResolvers<void>();
    server.on('GET /api/v1/reservations', { body: { reservations: [renting], count: 1 } });
    server.on('GET /api/v1/fleet', {
      body: {
        upstreams: [
          upstreamBody('vast-1', { reservation_id: 'res-1', contract_id: '1', gpu_count: 1 }),
          upstreamBody('vast-2', { reservation_id: 'res-1', contract_id: null, gpu_count: 1 }),
          upstreamBody('vast-3', { reservation_id: 'res-0', contract_id: '3', gpu_count: 1 }),
        ],
        count: 3,
        foreign: [],
      },
    });
    server.on(reserve, async () => {
      await told.promise;
      return { status: 201, body: guideReserved };
    });
    const { code, stderr } = await at('reserve 4', {
      onStart: (child) => child.stderr?.on('data', () => told.resolve()),
    });
    expect(code).toBe(0);
    expect(stderr).toMatch(/^reserve: 1\/4 GPUs rented \(\d+ s\)\n/);
  }, 60_000);

  it('that is interrupted twice leaves at once and says how to look', async () => {
    let asked = false;
    server.on(reserve, () => {
      asked = true;
      return new Promise(() => {});
    });
    const { code, stderr } = await at('reserve 4 --idempotency-key my-key-1', {
      onStart: (child) => {
        child.stderr?.once('data', () => child.kill('SIGINT'));
        void until(() => asked, 'the request').then(() => child.kill('SIGINT'));
      },
    });
    expect(code).toBe(130);
    expect(stderr).toContain('the server may still rent');
    expect(stderr).toContain('--idempotency-key my-key-1');
  });

  it('whose connection breaks says how to look, and is not sent again', async () => {
    server.on(reserve, (_request, response) => {
      response.socket?.destroy();
      return undefined;
    });
    const { code, stderr } = await at('reserve 4');
    expect(code).toBe(3);
    expect(stderr).toContain('gpuproxy reservations');
    expect(server.seen).toHaveLength(1);
  });

  it('on a terminal asks with the total price per hour, and no is exit 7 and rents nothing', async () => {
    server.on('POST /api/v1/gpu/instances/plan', {
      body: {
        instances: [
          {
            id: '1',
            provider: 'vast.ai',
            gpu_name: 'RTX 4090',
            gpu_count: 1,
            vram_gb: 24,
            price_per_hour: 0.79,
            available: 1,
            location: null,
          },
        ],
        count: 1,
        requested: 1,
        price_per_hour: 0.79,
        prepaid_usd: 0,
        errors: [],
      },
    });
    const onTerminal = (answer: string) =>
      new Promise<string>((resolve) => {
        // script(1) gives the program a terminal of its own.
        void import('node:child_process').then(({ spawn }) => {
          const child = spawn(
            'script',
            ['-qec', `${process.execPath} ${program.main} reserve 1 -u ${server.url}; echo rc=$?`, '/dev/null'],
            { env: { ...program.environment(), TERM: 'xterm', SHELL: '/bin/sh' }, cwd: join(program.folder, 'empty') },
          );
          let screen = '';
          child.stdout.setEncoding('utf8').on('data', (text: string) => {
            const before = screen.includes('[y/N]');
            screen += text;
            if (!before && screen.includes('[y/N]')) child.stdin.write(`${answer}\n`);
            if (screen.includes('rc=')) child.stdin.end();
          });
          child.on('close', () => resolve(screen));
        });
      });
    const no = await onTerminal('n');
    expect(no).toContain('Rent 1 instance for $0.79 per hour in total? [y/N]');
    expect(no).toContain('rc=7');
    expect(server.seen.filter(({ path }) => path.endsWith('/reserve'))).toEqual([]);
    const yes = await onTerminal('y');
    expect(yes).toContain('rc=0');
    expect(server.seen.filter(({ path }) => path.endsWith('/reserve'))).toHaveLength(1);
  });
});

/** The help of every command and subcommand. */
async function helps(): Promise<{ name: string; help: string }[]> {
  const found: { name: string; help: string }[] = [];
  for (const entry of commands) {
    const command = await createCommand(entry);
    for (const each of [command, ...command.commands]) {
      let help = '';
      each.configureOutput({ writeOut: (text) => void (help += text) }).outputHelp();
      found.push({ name: each === command ? entry.name : `${entry.name} ${each.name()}`, help });
    }
  }
  return found;
}

describe('the program', () => {
  it('ends quietly when its reader leaves', async () => {
    const command = `${process.execPath} ${program.main} --help | head -n 1; echo "\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = spawnSync('bash', ['-c', command], { encoding: 'utf8', env: program.environment() });
    expect(stdout).toBe('Usage: gpuproxy <command> [options]\n0\n');
    expect(stderr).toBe('');
  });

  it('has help with examples for every command and subcommand', async () => {
    const named: string[] = [];
    for (const { name, help } of await helps()) {
      expect(help).toContain(`Usage: gpuproxy ${name}`);
      expect(help, name).toContain('Examples:');
      named.push(name);
    }
    expect(named).toEqual(expect.arrayContaining([...commands.map((each) => each.name), 'keys create']));
    const [asOption, asTopic] = await Promise.all([
      program.run(['reserve', '--help']),
      program.run(['help', 'reserve']),
    ]);
    expect(asOption.code).toBe(0);
    expect(asOption.stdout).toContain('Usage: gpuproxy reserve');
    expect(asTopic.stdout).toBe(asOption.stdout);
  });

  it('shows only examples that it understands', async () => {
    const broken: string[] = [];
    for (const { help } of await helps()) {
      for (const line of help.split('Examples:\n')[1]?.split('\n') ?? []) {
        const [words = ''] = line.trim().split(/ {2,}/);
        if (!words.startsWith('gpuproxy ') || /[|<>$]/.test(words)) continue;
        const { command: name, rest } = route(
          [...words.matchAll(/"([^"]*)"|(\S+)/g)].map((m) => m[1] ?? m[2] ?? '').slice(1),
        );
        const target = commands.find((each) => each.name === name);
        if (target === undefined) {
          if (!rest.includes('--version')) broken.push(words);
          continue;
        }
        const parsed = await createCommand(target);
        const quiet = (each: typeof parsed) => each.action(() => {});
        for (const each of [parsed, ...parsed.commands]) if (each.commands.length === 0) quiet(each);
        await parsed
          .parseAsync(rest, { from: 'user' })
          .catch((error: Error) => broken.push(`${words}: ${error.message}`));
      }
    }
    expect(broken).toEqual([]);
  });

  it('lists every command in its help', async () => {
    const { stdout, code } = await program.run([]);
    expect(code).toBe(0);
    for (const { name } of commands) expect(stdout).toMatch(new RegExp(`^ {2}${name}\\b`, 'm'));
  });

  it('says its version in one line', async () => {
    const { version } = JSON.parse(readFileSync(join(program.package, 'package.json'), 'utf8')) as { version: string };
    expect((await program.run(['--version'])).stdout).toBe(`${version}\n`);
  });

  it('says with version --json which commit it was built of', async () => {
    const commit = execFileSync(process.execPath, [join(import.meta.dirname, '..', '..', 'src', 'build', 'commit.ts')]);
    const { stdout } = await program.run(['version', '--json', '-u', 'http://127.0.0.1:1']);
    expect(JSON.parse(stdout).commit).toBe(JSON.parse(commit.toString()));
  });

  it('prints the request as curl with --curl, without the key, and sends nothing', async () => {
    const { stdout } = await at('reserve 2 --min-vram 24 --curl');
    expect(stdout).toContain(`-d '{"count":2,"filters":{"min_vram":24},"config":{}}'`);
    expect(stdout).not.toContain('YOUR_KEY');
    expect(server.seen).toEqual([]);
  });

  const old = ['/usr/bin/node', '/usr/local/bin/node'].find(
    (node) =>
      existsSync(node) &&
      Number.parseInt(execFileSync(node, ['-p', 'process.versions.node'], { encoding: 'utf8' }), 10) < 24,
  );
  it.skipIf(old === undefined)('started by an old Node goes on with the pinned one beside it', async () => {
    const { stdout, code } = await at('lb-strategy', { node: old ?? '' });
    expect([stdout, code]).toEqual(['round_robin\n', 0]);
    const failed = await program.run(['laod'], { node: old ?? '' });
    expect(failed.code).toBe(2);
  });

  it.skipIf(old === undefined)(
    'a server started by an old Node ends with its launcher, even when that is killed',
    async () => {
      const launcher = spawn(old ?? '', [program.main, 'serve', '--port', '0', '--proxy-port', '0'], {
        cwd: join(program.folder, 'empty'),
        env: program.environment({
          UPSTREAMS: 'http://127.0.0.1:9',
          GPUPROXY_DATA_DIR: join(program.folder, 'launched'),
        }),
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let log = '';
      launcher.stderr.setEncoding('utf8').on('data', (text: string) => {
        log += text;
      });
      await until(() => log.includes('control plane'), 'the server');
      launcher.kill('SIGKILL');
      // The pipe closes when the last process that holds it has ended.
      await new Promise((resolve) => launcher.stderr.once('close', resolve));
      expect(log).toContain('SIGTERM: draining');
    },
  );

  it.skipIf(old === undefined)('started by an old Node alone says which one it needs', async () => {
    const alone = mkdtempSync(join(program.folder, 'alone-'));
    execFileSync('cp', ['-r', join(program.package, 'dist'), alone]);
    const { status, stderr } = spawnSync(old ?? '', [join(alone, 'dist', 'main.js'), 'load'], {
      encoding: 'utf8',
      env: program.environment(),
    });
    expect(status).toBe(2);
    expect(stderr).toContain('gpuproxy needs Node 24 or newer');
  });

  it('loads neither the dashboard nor the server for a client command', async () => {
    const loaded = spawnSync(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        `import { registerHooks } from 'node:module';
         const seen = [];
         registerHooks({ load(url, context, next) { seen.push(url); return next(url, context); } });
         process.argv.push('load', '--json', '-u', 'http://127.0.0.1:1');
         process.on('exit', () => console.log(JSON.stringify(seen.filter((url) => url.startsWith('file:')))));
         await import(process.env.MAIN);`,
      ],
      { encoding: 'utf8', env: program.environment({ MAIN: program.main }) },
    );
    const files = (JSON.parse(loaded.stdout) as string[]).map((url) => readFileSync(new URL(url), 'utf8'));
    expect(files.length).toBeGreaterThan(3);
    const all = files.join('');
    for (const heavy of ['react-reconciler', 'ZodObject', 'FST_ERR_', 'DatabaseSync']) expect(all).not.toContain(heavy);
  });
});
