import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createProgram, type Program, until } from './program.ts';

let program: Program;
let child: ChildProcess;
let log = '';
let url = '';

beforeAll(async () => {
  program = await createProgram();
  child = spawn(
    process.execPath,
    [program.main, 'serve', '--demo', '--port', '0', '--proxy-port', '0', '--threads', '1'],
    {
      cwd: join(program.folder, 'empty'),
      env: program.environment(),
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  await until(() => /control plane (\S+)\/api\/v1/.test(log) && /api key/.test(log), `the server to start:\n${log}`);
  url = /control plane (http:\S+)\/api\/v1/.exec(log)?.[1] ?? '';
});
afterAll(async () => {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  // Twice: the demo's own traffic need not be drained.
  child.kill('SIGTERM');
  child.kill('SIGTERM');
  const forced = setTimeout(() => child.kill('SIGKILL'), 5000);
  await ended;
  clearTimeout(forced);
  program.remove();
});

const run = (...args: string[]) => program.run([...args, '-u', url]);
const json = async (...args: string[]) => {
  const outcome = await run(...args, '--json');
  expect(outcome, args.join(' ')).toMatchObject({ code: 0 });
  return JSON.parse(outcome.stdout);
};

describe('the client commands against the whole system', () => {
  it('find the key that the server made at its first start', async () => {
    const { code, stdout } = await run('lb-strategy');
    expect([code, stdout]).toEqual([0, 'round_robin\n']);
    expect((await run('lb-strategy', '-key', 'not-the-key')).code).toBe(4);
  });

  it('a log holds no key that is stored, but where it is; each of its lines is one JSON object', async () => {
    const file = join(program.folder, 'conf', 'config.json');
    const { apiKey } = JSON.parse(readFileSync(file, 'utf8')) as { apiKey: string };
    expect(apiKey).toMatch(/^gp_/);
    expect(log).not.toContain(apiKey);
    const lines = log
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { msg: string });
    expect(lines.filter(({ msg }) => msg.includes('api key'))).toMatchObject([{ msg: expect.stringContaining(file) }]);
    const revealed = await program.run(['config', 'get', 'apiKey', '--reveal']);
    expect(revealed.stdout).toBe(`${apiKey}\n`);
  });

  it('on a terminal the key is shown, once', { timeout: 60_000 }, async () => {
    const env = program.environment({
      GPUPROXY_CONFIG_DIR: join(program.folder, 'seen'),
      GPUPROXY_DATA_DIR: join(program.folder, 'seen'),
      SHELL: '/bin/sh',
    });
    const start = async () => {
      const command = `exec ${process.execPath} ${program.main} serve --upstreams http://127.0.0.1:9 --port 0 --proxy-port 0 --threads 1`;
      // script(1) gives the program a terminal of its own.
      const terminal = spawn('script', ['-qec', command, '/dev/null'], { env, cwd: join(program.folder, 'empty') });
      let screen = '';
      terminal.stdout.setEncoding('utf8').on('data', (text: string) => {
        screen += text;
      });
      const ended = new Promise((resolve) => terminal.once('close', resolve));
      await until(() => /dashboard: gpuproxy tui/.test(screen), `the server to start:\n${screen}`);
      terminal.stdin.write('\u0003');
      await ended;
      return screen;
    };
    const first = await start();
    const { apiKey } = JSON.parse(readFileSync(join(program.folder, 'seen', 'config.json'), 'utf8')) as {
      apiKey: string;
    };
    expect(first.split(apiKey)).toHaveLength(2);
    expect(first).toContain(`api key       ${apiKey}  (shown once, stored for this user's commands)`);
    expect(await start()).not.toContain(apiKey);
  });

  it('know the version of the server, and without its key only that it runs', async () => {
    const { version, node, server } = await json('version');
    expect(server).toMatchObject({ url, status: 'running', version, node });
    const stranger = JSON.parse((await run('version', '--json', '-key', 'not-the-key')).stdout);
    expect(stranger.server).toEqual({ url, status: 'running', version: null, node: null });
    const nobody = await program.run(['version', '--json', '-u', 'http://127.0.0.1:9']);
    expect([nobody.code, JSON.parse(nobody.stdout).server.status]).toEqual([0, 'not reachable']);
  });

  it('print with --json what "schema" says', async () => {
    const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false });
    const names = (await program.run(['schema'])).stdout.trimEnd().split('\n');
    const [first] = (await json('fleet')).upstreams;
    const commands: readonly (readonly [name: string, ...words: string[]])[] = [
      ['load', 'load'],
      ['load server', 'load', 'server'],
      ['load provider', 'load', 'provider'],
      ['lb-strategy', 'lb-strategy'],
      ['list', 'list'],
      ['providers', 'providers'],
      ['cost', 'cost'],
      ['fleet', 'fleet'],
      ['fleet <id>', 'fleet', first.instance_id],
      ['reservations', 'reservations'],
      ['keys', 'keys'],
      ['version', 'version'],
      ['simulate', 'simulate', '--requests', '200'],
      ['--dry-run', 'drain', first.instance_id, '--dry-run'],
      ['--dry-run', 'reserve', '1', '--dry-run'],
      ['config show', 'config', 'show'],
    ];
    for (const [name, ...words] of commands) {
      expect(names).toContain(name);
      const schema = JSON.parse((await program.run(['schema', '--', ...name.split(' ')])).stdout);
      const { stdout } = await (words[0] === 'config' ? program.run([...words, '--json']) : run(...words, '--json'));
      const check = ajv.compile(schema);
      check(JSON.parse(stdout));
      expect(check.errors, `${name}: ${JSON.stringify(check.errors)}`).toBeNull();
      // It must be able to fail.
      expect(check({}) && name !== 'config show', name).toBe(false);
    }
    const failed = await run('fleet', 'nobody', '--json');
    const check = ajv.compile(JSON.parse((await program.run(['schema', 'error'])).stdout));
    check(JSON.parse(failed.stderr));
    expect(check.errors).toBeNull();
    expect((await program.run(['schema', 'laod'])).stderr).toContain('no schema of "laod"; did you mean load?');
  });

  it('switch the strategy live', async () => {
    expect((await run('lb-strategy', 'least_connections')).stdout).toBe('least_connections\n');
    expect((await run('load', 'server')).stdout).toMatch(
      /^Load Balancing Strategy: least_connections\nTracked Instances: \d+\n\nINSTANCE/,
    );
  });

  it('reserve, show, weigh, drain, resume, and give back', async () => {
    const reserved = await json('reserve', '2', '--provider', 'vast.ai', '--gpu-count', '1');
    expect(reserved).toMatchObject({ count: 2, requested: 2, errors: [] });
    const [{ instance_id: first }, { instance_id: second }] = reserved.reserved;
    expect((await run('fleet', '-q')).stdout.split('\n')).toEqual(expect.arrayContaining([first, second]));
    expect((await run('fleet', first)).stdout).toContain(`instance        ${first}`);
    expect((await run('weight', first, '3')).stdout).toBe(`${first}  3.00  operator\n`);
    expect((await run('weight', first, 'auto')).stdout).toMatch(/formula\n$/);
    expect((await json('drain', first)).admin.mode).toBe('drain');
    expect((await json('resume', first)).admin.mode).toBe('ready');
    expect((await run('reservations')).stdout).toContain(reserved.reservation_id);
    expect((await run('destroy', second, '--now', '--yes')).stdout).toMatch(
      new RegExp(`^${second}  (destroyed|destroying)\\n$`),
    );
    const released = await json('reservations', 'release', reserved.reservation_id, '--now', '--yes');
    expect(released.released).toContain(first);
  });

  it('rent one offer of the list', async () => {
    const { instances } = await json('list', 'vast.ai', '--gpu-count', '1');
    const { id } = instances.at(-1);
    expect((await run('rent', 'vast.ai', id, '--dry-run')).stdout).toContain(id);
    const { instance_id } = await json('rent', 'vastai', id);
    expect((await run('fleet', '-q')).stdout.split('\n')).toContain(instance_id);
    expect((await run('destroy', instance_id, '--now', '--confirm', instance_id)).code).toBe(0);
  });

  it('tell what would be rented and rent nothing with --dry-run', async () => {
    const before = await json('fleet');
    const { code, stdout } = await run('reserve', '3', '--dry-run');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Would reserve 3 GPUs \(requested: 3\) for \$\d/);
    expect((await run('batch', '--vastai', '2', '--ionet', '1', '--dry-run')).stdout).toMatch(
      /^Would rent 3 instances \(requested: 3\) for \$\d[^\n]*\nOFFER [\s\S]*io\.net/,
    );
    expect((await json('fleet')).upstreams.length).toBe(before.upstreams.length);
  });

  it('say 5 when nothing matches and 6 when only some do', async () => {
    expect((await run('reserve', '1', '--gpu', 'RTX 9999')).code).toBe(5);
    expect((await run('list', '--gpu', 'RTX 9999')).code).toBe(5);
    const offers = await json('list', 'vast.ai', '--gpu-count', '8');
    const few = offers.instances.length;
    if (few > 0 && few < 2) {
      const { code, stderr } = await run('reserve', '16', '--provider', 'vast.ai', '--gpu-count', '8');
      expect([code, stderr.includes('warning:')]).toEqual([6, true]);
    }
  });

  it('make a key that only reads, and end it', async () => {
    const { key, id } = await json('keys', 'create', '--name', 'reader', '--scope', 'read', '--expires', '1h');
    expect((await run('load', 'server', '-key', key)).code).toBe(0);
    const refused = await run('lb-strategy', 'round_robin', '-key', key);
    expect(refused.code).toBe(4);
    expect((await run('keys', 'list')).stdout).toContain(id);
    expect((await run('keys')).stdout).not.toContain(key);
    expect((await run('keys', 'revoke', id)).code).toBe(0);
    expect((await run('load', 'server', '-key', key)).code).toBe(4);
  });

  it('show providers, cost, logs and the version', async () => {
    expect((await run('providers')).stdout).toMatch(/^PROVIDER +STATE/);
    expect((await run('cost')).stdout).toMatch(/^Per hour: +\$\d/);
    expect((await run('version')).stdout).toContain('(running)');
    expect((await run('list')).stdout.split('\n').length).toBeGreaterThan(10);
  });

  it('add and remove a server that one already has', async () => {
    const name = `lab${Date.now()}`;
    const added = await run('upstream', 'add', 'http://127.0.0.1:9', '--name', name, '-q');
    expect(added.code).toBe(0);
    const id = added.stdout.trim();
    expect((await run('fleet', '-q')).stdout.split('\n')).toContain(id);
    expect((await run('upstream', 'remove', id)).code).toBe(0);
    expect((await run('upstream', 'remove', id)).code).toBe(1);
  });

  it('follow events, from the first that is kept', async () => {
    const { code, stdout } = await program.run(['events', '--since', '0', '--json', '-u', url], {
      onStart: (follower) => follower.stdout?.once('data', () => follower.kill('SIGTERM')),
    });
    expect(code).toBe(143);
    expect(JSON.parse(stdout.split('\n')[0] ?? '')).toMatchObject({
      kind: expect.any(String),
      message: expect.any(String),
    });
  });

  it('let doctor see a server that is well', async () => {
    const { checks } = await json('doctor');
    expect(checks).toContainEqual(expect.objectContaining({ name: 'key', status: 'ok' }));
    expect(checks).toContainEqual(expect.objectContaining({ name: 'clock', status: 'ok' }));
  });
});

describe('serve', () => {
  it('with nothing configured exits 2 and says which variables to set', async () => {
    const { code, stderr } = await program.run(['serve', '--port', '0', '--proxy-port', '0']);
    expect(code).toBe(2);
    expect(stderr).toContain('VASTAI_API_KEY');
  });

  it('with a port in use exits 1 and names the port', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const { port } = taken.address() as { port: number };
    const { code, stderr } = await program.run(['serve', '--demo', '--port', String(port), '--proxy-port', '0']);
    taken.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^error: .*${port}`));
    expect(stderr).toContain('in use');
    expect(stderr).toContain('cause: something listens there already');
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  it('with the port of a gpuproxy names it, whichever of its two ports it meets', async () => {
    const { port } = new URL(url);
    const [, proxyPort = ''] = /data plane +http:\/\/[\d.]+:(\d+)/.exec(log) ?? [];
    for (const second of ['0', proxyPort]) {
      const { code, stderr } = await program.run(['serve', '--demo', '--port', port, '--proxy-port', second]);
      expect(code).toBe(1);
      expect(stderr).toContain(`cause: a gpuproxy already runs at ${url}\n`);
      expect(stderr).toContain(`hint: "gpuproxy tui --url ${url}" follows it`);
    }
  });

  it('with a wrong value exits 2 and names the variable', async () => {
    const { code, stderr } = await program.run(['serve', '--strategy', 'fastest']);
    expect(code).toBe(2);
    expect(stderr).toContain('LB_STRATEGY: got "fastest"');
  });
});
