import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';

const root = new URL('../..', import.meta.url).pathname;
const hasTmux = spawnSync('tmux', ['-V']).status === 0;
const socket = `gpuproxy-test-${process.pid}`;

const tmux = (...args: string[]): string =>
  execFileSync('tmux', ['-L', socket, '-f', '/dev/null', ...args], { encoding: 'utf8' });
const screen = () => tmux('capture-pane', '-p');
const flag = (name: string) => tmux('display', '-p', `#{${name}}`).trim();
const send = (...keys: string[]) => void tmux('send-keys', ...keys);
const shows = (text: string | RegExp) =>
  vi.waitFor(() => expect(screen()).toMatch(text), { timeout: 15_000, interval: 50 });

/** What `gpuproxy tui` does after it has started its system, with a fleet in memory. */
const program = `
  import { createFakeApp } from './test/tui/fake-app.ts';
  import { runDashboard } from './src/tui/run-dashboard.tsx';
  const app = createFakeApp({ now: Date.now, at: Date.now() });
  const timer = setInterval(() => app.tick(), 250);
  process.on('SIGUSR2', () => { throw new Error('crash on purpose'); });
  const code = await runDashboard({ app, stdin: process.stdin, stdout: process.stdout, env: process.env, label: 'pid ' + process.pid });
  clearInterval(timer);
  console.log('ended with ' + code);
  process.exitCode = code;
`;

describe.skipIf(!hasTmux)('in a real terminal', () => {
  let folder = '';

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'gpuproxy-tui-'));
    await build({
      stdin: { contents: program, resolveDir: root, loader: 'ts' },
      bundle: true,
      splitting: true,
      format: 'esm',
      platform: 'node',
      target: 'node24',
      outdir: folder,
      entryNames: 'try',
      outExtension: { '.js': '.mjs' },
      jsx: 'automatic',
      logLevel: 'error',
      define: { 'process.env.NODE_ENV': '"production"' },
      alias: { 'react-devtools-core': join(root, 'src/tui/no-devtools.ts') },
      banner: { js: "import{createRequire as __cr}from'node:module';const require=__cr(import.meta.url);" },
    });
    tmux(
      'new-session',
      '-d',
      '-x',
      '100',
      '-y',
      '30',
      `env PS1='$ ' LANG=C.UTF-8 PATH=${root}node_modules/.bin:$PATH bash --norc --noprofile`,
    );
    // A key that comes before the shell is ready would end it.
    await shows(/^\$/);
  }, 60_000);

  afterAll(() => {
    if (folder === '') return;
    spawnSync('tmux', ['-L', socket, 'kill-server']);
    rmSync(folder, { recursive: true, force: true });
  });

  beforeEach(async () => {
    send('C-c');
    // A shell that is still busy with Ctrl-C may lose the first letters: the line is typed again until it was heard.
    await vi.waitFor(
      async () => {
        send('C-u', 'clear', 'Enter');
        await new Promise((done) => setTimeout(done, 200));
        expect(screen().trim()).toBe('$');
      },
      { timeout: 10_000 },
    );
  });

  const start = async () => {
    // With CI set the dashboard prints one frame, and the shell in tmux has the variables of this process.
    send(`CI= node ${folder}/try.mjs`, 'Enter');
    await shows(/INSTANCE +PROVIDER/);
    expect(flag('alternate_on')).toBe('1');
    return Number(/pid (\d+)/.exec(screen())?.[1]);
  };

  const restored = async (said: RegExp) => {
    await shows(said);
    expect(flag('alternate_on')).toBe('0');
    expect(flag('cursor_flag')).toBe('1');
    expect(flag('mouse_any_flag')).toBe('0');
    send('stty -a | grep -o " icanon" ; stty -a | grep -o " echo "', 'Enter');
    await shows(/ icanon\n echo/);
  };

  test('q leaves the terminal as it was', async () => {
    await start();
    send('q');
    await restored(/ended with 0/);
  });

  test('SIGTERM and SIGHUP leave the terminal as it was and say so in the exit code', async () => {
    for (const [signal, code] of [
      ['SIGTERM', 143],
      ['SIGHUP', 129],
    ] as const) {
      process.kill(await start(), signal);
      await restored(new RegExp(`ended with ${code}`));
      send('clear', 'Enter');
    }
  });

  test('a crash leaves the terminal as it was, with the error to read', async () => {
    process.kill(await start(), 'SIGUSR2');
    await restored(/crash on purpose/);
  });

  test('Ctrl-Z gives the shell back, fg brings the dashboard back', async () => {
    await start();
    send('C-z');
    await restored(/Stopped/);
    send('fg', 'Enter');
    await shows(/was away \d+ s/);
    expect(flag('alternate_on')).toBe('1');
    await shows(/INSTANCE +PROVIDER/);
    send('4');
    await shows(/strategy is now least_connections/);
    send('q');
    await restored(/ended with 0/);
  });

  test('a stop signal from outside gives the shell back too', async () => {
    process.kill(await start(), 'SIGTSTP');
    await restored(/Stopped/);
    send('fg', 'Enter');
    await shows(/was away \d+ s/);
    send('q');
    await restored(/ended with 0/);
  });

  test('a resize while it runs shows the frame of the new size', async () => {
    await start();
    for (const [columns, rows, text] of [
      [160, 45, /PEEK/],
      [80, 24, /\[Instances/],
      [50, 10, /panes need 60x15, now 50x10/],
      [100, 30, /PROVIDERS/],
    ] as const) {
      tmux('resize-window', '-x', String(columns), '-y', String(rows));
      await shows(text);
    }
    send('q');
    await shows(/ended with 0/);
  });
});
