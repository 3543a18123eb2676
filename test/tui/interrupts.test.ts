import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createProgram, type Program } from '../cli/program.ts';
import { createStage, type Stage } from '../fleet/fixture.ts';
import { eventually } from '../helpers/eventually.ts';

const hasTmux = spawnSync('tmux', ['-V']).status === 0;
const socket = `gpuproxy-interrupts-${process.pid}`;
const tmux = (...args: string[]): string =>
  execFileSync('tmux', ['-L', socket, '-f', '/dev/null', ...args], { encoding: 'utf8' });
const screen = () => tmux('capture-pane', '-p');
const flag = (name: string) => tmux('display', '-p', `#{${name}}`).trim();
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe.skipIf(!hasTmux)('Ctrl-C while the dashboard starts', () => {
  let program: Program;
  let stage: Stage;
  let silent: Server;
  let port = 0;

  beforeAll(async () => {
    program = await createProgram();
    stage = await createStage({ seed: 11 });
    const app = await stage.start();
    await eventually(() => app.state.get().providers.every((provider) => provider.status === 'ok'), 'offers');
    await app.reserve({ count: 2, filter: { gpuCount: 1 }, config: {} });
    await app[Symbol.asyncDispose]();
    silent = createServer(() => {}).listen(0, '127.0.0.1');
    await eventually(() => silent.listening, 'a server that never answers');
    port = (silent.address() as { port: number }).port;
    tmux('new-session', '-d', '-x', '100', '-y', '30', `env PS1='$ ' LANG=C.UTF-8 bash --norc --noprofile`);
    await eventually(() => /^\$/.test(screen()), 'the shell');
  }, 60_000);
  afterAll(async () => {
    spawnSync('tmux', ['-L', socket, 'kill-server']);
    silent?.close();
    await stage?.[Symbol.asyncDispose]();
    program?.remove();
  });

  /** Starts the dashboard, waits, presses Ctrl-C; what the shell says of the end. The terminal must be as it was. */
  async function interrupted(args: string, wait: () => Promise<unknown>): Promise<number> {
    const environment = Object.entries({
      HOME: program.folder,
      GPUPROXY_CONFIG_DIR: `${program.folder}/conf`,
      GPUPROXY_DATA_DIR: stage.dataDir,
      VASTAI_API_KEY: stage.simulator.vastKey,
      VASTAI_URL: stage.simulator.vastUrl,
      IONET_API_KEY: stage.simulator.ionetKey,
      IONET_URL: stage.simulator.ionetUrl,
    });
    const variables = environment.map(([name, value]) => `${name}='${value}'`).join(' ');
    // A shell with a trap goes on after Ctrl-C, so that it can tell how its child ended.
    const script = join(program.folder, 'try.sh');
    writeFileSync(
      script,
      `cd '${program.folder}/empty'; trap : INT; echo begun
CI= ${variables} '${process.execPath}' '${program.main}' tui --port 0 --proxy-port 0 ${args}
echo ended with $?; stty -a | grep -wo -e -icanon -e -echo; echo checked
`,
    );
    await eventually(async () => {
      tmux('send-keys', 'C-u');
      tmux('send-keys', 'clear', 'Enter');
      await sleep(100);
      return screen().trim() === '$';
    }, 'an empty screen');
    tmux('send-keys', `bash ${script}`, 'Enter');
    await eventually(() => flag('alternate_on') === '1' || /^begun/m.test(screen()), 'the script');
    await wait();
    tmux('send-keys', 'C-c');
    await eventually(() => /checked$/m.test(screen()), 'the end of the program');
    expect(screen()).not.toMatch(/^-(icanon|echo)$/m);
    expect(flag('alternate_on')).toBe('0');
    expect(flag('cursor_flag')).toBe('1');
    expect(flag('mouse_any_flag')).toBe('0');
    expect(running()).toEqual([]);
    return Number(/ended with (\d+)/.exec(screen())?.[1]);
  }

  /** Processes of this file's dashboards: others run the same program, with folders of their own. */
  const running = (): string[] =>
    execFileSync('ps', ['-eo', 'pid=,args='], { encoding: 'utf8' })
      .split('\n')
      .filter((each) => each.includes(`${program.main} tui`))
      .filter((each) => {
        try {
          return readFileSync(`/proc/${Number.parseInt(each, 10)}/environ`, 'utf8').includes(program.folder);
        } catch {
          return false;
        }
      });

  test('ends with 130 while a server is asked that never answers', async () => {
    const code = await interrupted(`--url http://127.0.0.1:${port}`, () =>
      eventually(() => screen().includes('connecting to'), 'the first line'),
    );
    expect(code).toBe(130);
  });

  test('at any moment leaves the terminal as it was, nothing running and every rented instance alone', async () => {
    const rented = stage.simulator.instances().map((instance) => instance.contract);
    expect(rented).toHaveLength(2);
    for (const args of ['', '--demo']) {
      for (const ms of [0, 60, 130, 200, 300, 420, 600, 900]) {
        // Once the dashboard is there, Ctrl-C is the key that quits.
        expect([130, 0], `after ${ms} ms ${args}`).toContain(await interrupted(args, () => sleep(ms)));
      }
    }
    expect(stage.simulator.instances().map((instance) => instance.contract)).toEqual(rented);
    // The data folder is free again, and what was rented is taken up.
    const again = await program.run(['tui', '--once', '--port', '0', '--proxy-port', '0'], {
      env: {
        GPUPROXY_DATA_DIR: stage.dataDir,
        VASTAI_API_KEY: stage.simulator.vastKey,
        VASTAI_URL: stage.simulator.vastUrl,
        IONET_API_KEY: stage.simulator.ionetKey,
        IONET_URL: stage.simulator.ionetUrl,
      },
    });
    expect(again.code).toBe(0);
    expect(again.stdout).toMatch(/INSTANCES 2/);
  }, 180_000);
});
