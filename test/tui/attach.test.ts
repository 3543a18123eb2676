import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createProgram, type Program } from '../cli/program.ts';
import { eventually } from '../helpers/eventually.ts';

const hasTmux = spawnSync('tmux', ['-V']).status === 0;
const socket = `gpuproxy-attach-${process.pid}`;
const tmux = (...args: string[]): string =>
  execFileSync('tmux', ['-L', socket, '-f', '/dev/null', ...args], { encoding: 'utf8' });

describe.skipIf(!hasTmux)('a dashboard in a real terminal', () => {
  let program: Program;
  let server: ChildProcess;
  let port = '';

  beforeAll(async () => {
    program = await createProgram();
    server = spawn(process.execPath, [program.main, 'serve', '--demo', '--port', '0', '--proxy-port', '0'], {
      env: program.environment({ GPUPROXY_API_KEY: 'an-admin-key-for-tests' }),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    // Without a session that stays, tmux ends with the last of them.
    tmux('new-session', '-d', '-s', 'stays', 'cat');
    let log = '';
    server.stderr?.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
    await eventually(() => /control plane +http/.test(log), 'the server');
    port = /control plane +http:\/\/[0-9.]+:(\d+)/.exec(log)?.[1] ?? '';
  }, 60_000);
  afterAll(async () => {
    spawnSync('tmux', ['-L', socket, 'kill-server']);
    server?.kill('SIGKILL');
    program?.remove();
  });

  /** A terminal of its own in which the dashboard runs. */
  function open(
    name: string,
    args: string,
    environment: Record<string, string> = {},
    [columns, rows]: readonly [number, number] = [120, 35],
  ): (text: RegExp) => Promise<unknown> {
    const variables = Object.entries(program.environment({ CI: '', LANG: 'C.UTF-8', ...environment }))
      .map(([key, value]) => `export ${key}='${value ?? ''}'`)
      .join('\n');
    const script = join(program.folder, `${name}.sh`);
    writeFileSync(
      script,
      `${variables}\n'${process.execPath}' '${program.main}' tui ${args}\necho ended with $?\nread line\n`,
    );
    tmux('new-session', '-d', '-s', name, '-x', String(columns), '-y', String(rows), `sh ${script}`);
    return (text) => eventually(() => text.test(tmux('capture-pane', '-p', '-t', name)), `${text} on the screen`);
  }

  test('when the port is served already offers to follow that gpuproxy, and does', async () => {
    const data = join(program.folder, 'data-of-another');
    const shows = open('attach', `--demo --port ${port} --proxy-port 0 --data-dir ${data}`, {
      GPUPROXY_API_KEY: 'an-admin-key-for-tests',
    });
    await shows(/a gpuproxy already runs at http:\/\/127\.0\.0\.1:\d+\s+follow it\? \[y\/N\]/);
    expect(tmux('display', '-p', '-t', 'attach', '#{alternate_on}').trim()).toBe('0');
    tmux('send-keys', '-t', 'attach', 'y', 'Enter');
    await shows(new RegExp(`http://127\\.0\\.0\\.1:${port} [\\s\\S]*INSTANCE +PROVIDER`));
    tmux('send-keys', '-t', 'attach', '4');
    await shows(/strategy is now least_connections/);
    tmux('send-keys', '-t', 'attach', 'q');
    await shows(/ended with 0/);
    tmux('kill-session', '-t', 'attach');
  }, 60_000);

  test('when the port is served already and nobody can be asked, says so once', async () => {
    const there = ['--demo', '--port', `${port}`, '--proxy-port', '0'];
    const { code, stderr } = await program.run(['tui', '--once', ...there]);
    expect(code).toBe(1);
    expect(stderr.match(/a gpuproxy already runs at/g)).toHaveLength(1);
    expect(stderr).toContain(`hint: gpuproxy tui --url http://127.0.0.1:${port}`);
  }, 60_000);

  test('is usable at every usual size', async () => {
    for (const [columns, rows, alone] of [
      [80, 24, /\[Instances 6\]/],
      [100, 30, /PROVIDERS \(P\)[\s\S]*STRATEGY \(s\)[\s\S]*EVENTS \(E\)/],
      [160, 45, /RESERVATIONS \(V\)[\s\S]*PEEK/],
    ] as const) {
      const name = `size-${columns}`;
      const url = `--url http://127.0.0.1:${port} -k an-admin-key-for-tests`;
      const shows = open(name, url, {}, [columns, rows]);
      await shows(/INSTANCE +PROVIDER +ACTIVE +TOTAL +AVG RT +WEIGHT/);
      await shows(alone);
      tmux('send-keys', '-t', name, 'Enter');
      await shows(/\[overview\][\s\S]*traffic says/);
      tmux('send-keys', '-t', name, 'Escape');
      tmux('send-keys', '-t', name, '?');
      await shows(/HELP/);
      tmux('send-keys', '-t', name, 'q', 'q');
      await shows(/ended with 0/);
      tmux('kill-session', '-t', name);
    }
  }, 90_000);

  test('over a server with a key that may only read says so from the start', async () => {
    const made = await fetch(`http://127.0.0.1:${port}/api/v1/keys`, {
      method: 'POST',
      headers: { 'x-api-key': 'an-admin-key-for-tests', 'content-type': 'application/json' },
      body: '{"name": "looker", "scope": "read"}',
    });
    const { key } = (await made.json()) as { key: string };
    const shows = open('reads', `--url http://127.0.0.1:${port} -k ${key}`);
    await shows(/\[READ-ONLY\][\s\S]*INSTANCE +PROVIDER/);
    tmux('send-keys', '-t', 'reads', '4');
    await shows(/4: this dashboard is read-only/);
    tmux('send-keys', '-t', 'reads', 'q');
    await shows(/ended with 0/);
  }, 60_000);

  test('ends in order when its terminal is closed', async () => {
    const data = join(program.folder, 'data-of-a-closed-one');
    const shows = open('closed', `--demo --port 0 --proxy-port 0 --data-dir ${data}`);
    await shows(/INSTANCE +PROVIDER/);
    const running = () =>
      execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
        .split('\n')
        .filter((line) => line.includes(`${program.main} tui`) && line.includes(data));
    expect(running()).toHaveLength(1);
    tmux('kill-session', '-t', 'closed');
    await eventually(() => running().length === 0, 'the end of the process');
    const logs = [join(program.folder, '.local', 'state', 'gpuproxy'), data, join(program.folder, 'data')];
    const crashes = logs.filter((folder) => existsSync(folder)).flatMap((folder) => readdirSync(folder));
    expect(crashes.filter((name) => name.startsWith('crash'))).toEqual([]);
  }, 60_000);
});
