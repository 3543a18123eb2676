import { execFileSync, spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createProgram, type Program } from '../cli/program.ts';
import { createStage, type Stage } from '../fleet/fixture.ts';
import { eventually } from '../helpers/eventually.ts';

const hasTmux = spawnSync('tmux', ['-V']).status === 0;
const socket = `gpuproxy-renting-${process.pid}`;
const tmux = (...args: string[]): string =>
  execFileSync('tmux', ['-L', socket, '-f', '/dev/null', ...args], { encoding: 'utf8' });
const screen = () => tmux('capture-pane', '-p');
const send = (...keys: string[]) => void tmux('send-keys', ...keys);
const shows = async (text: RegExp) => {
  // A give-back takes its turns at the marketplace, which are seconds apart.
  await eventually(() => text.test(screen()), String(text), 90_000).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${screen()}`);
  });
};

describe.skipIf(!hasTmux)('renting in a real terminal, from marketplaces that take their time', () => {
  let program: Program;
  let stage: Stage;

  beforeAll(async () => {
    program = await createProgram();
    stage = await createStage({ seed: 12 });
    stage.simulator.faults.add({ kind: 'latency', ms: 5000, route: 'rent' });
    tmux('new-session', '-d', '-x', '110', '-y', '32', `env PS1='$ ' LANG=C.UTF-8 bash --norc --noprofile`);
    await eventually(() => /^\$/.test(screen()), 'the shell');
    const environment = Object.entries({
      CI: '',
      HOME: program.folder,
      GPUPROXY_CONFIG_DIR: `${program.folder}/conf`,
      GPUPROXY_DATA_DIR: stage.dataDir,
      VASTAI_API_KEY: stage.simulator.vastKey,
      VASTAI_URL: stage.simulator.vastUrl,
      IONET_API_KEY: stage.simulator.ionetKey,
      IONET_URL: stage.simulator.ionetUrl,
    });
    const variables = environment.map(([name, value]) => `${name}='${value}'`).join(' ');
    send(
      `cd ${program.folder}/empty && ${variables} ${process.execPath} ${program.main} tui --port 0 --proxy-port 0; echo ended with $?`,
      'Enter',
    );
    await shows(/PROVIDERS[\s\S]*vast\.ai +\d\d+/);
  }, 90_000);
  afterAll(async () => {
    spawnSync('tmux', ['-L', socket, 'kill-server']);
    await stage?.[Symbol.asyncDispose]();
    program?.remove();
  });

  /** Keys that come with a dialog are not meant for it: it takes none in its first 300 ms. */
  const seen = () => new Promise((resolve) => setTimeout(resolve, 500));
  const rent = async (count: string) => {
    send('r');
    await shows(/RESERVE/);
    send('C-u', count);
    await shows(new RegExp(`${count} of ${count} GPUs: `));
    send('Enter');
    await shows(/step 2 of 2/);
    await seen();
    send(count, 'Enter');
    await shows(new RegExp(`Renting ${count} GPUs: \\d+ of ${count} instances rented`));
  };
  const ask = async () => {
    await seen();
    send('Escape');
    await shows(/STOP RENTING\?/);
    await seen();
  };

  test('Esc and "give everything back" leave nothing rented and say so', async () => {
    await rent('8');
    await ask();
    send('Down', 'Down', 'Enter');
    await shows(/cancelled: (\d+ instances? given back|.*not confirmed yet)/);
    await eventually(() => stage.simulator.instances().length === 0, 'nothing rented', 90_000);
    // The paid calls that were under way were waited for, and no other was made.
    expect(stage.simulator.ledger().length).toBeLessThan(8);
    expect(screen()).toMatch(/EVENTS[\s\S]*cancelled: \d+ rented instances are given back/);
  }, 180_000);

  test('Esc and "keep what is rented" keep just that; q asks while something is rented in the background', async () => {
    const before = stage.simulator.ledger().length;
    await rent('8');
    await ask();
    send('Down', 'Enter');
    await shows(/cancelled: \d+ instances? kept/);
    const kept = stage.simulator.instances().length;
    expect(kept).toBeGreaterThan(0);
    expect(kept).toBeLessThan(8);
    expect(stage.simulator.ledger().length - before).toBe(kept);
    await eventually(() => {
      // Lost while the dialog is new; without it the key only moves the cursor.
      if (/k keep/.test(screen())) send('k');
      return !/RESERVE ─/.test(screen());
    }, 'the dialog to be gone');

    await rent('8');
    await ask();
    send('Enter');
    await eventually(() => !/STOP RENTING|RESERVE ─/.test(screen()), 'the dialogs to be gone');
    send('q');
    await shows(/QUIT\?[\s\S]*Still being rented: 8 GPUs/);
    await seen();
    send('Down', 'Down', 'Enter');
    await shows(/ended with 0/);
    await eventually(() => stage.simulator.instances().length === kept, 'only what was kept');
  }, 180_000);
});
