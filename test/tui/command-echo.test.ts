import type { Command } from 'commander';
import { afterAll, expect, test, vi } from 'vitest';
import { createCommand } from '../../src/cli/command.ts';
import { commandNamed } from '../../src/cli/index.ts';
import { commands } from '../../src/tui/commands.ts';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { createFakeApp } from './fake-app.ts';

const dashboards: Dashboard[] = [];
afterAll(() => {
  for (const dashboard of dashboards) dashboard.dispose();
});

function start() {
  const app = createFakeApp();
  const dashboard = createDashboard({ app, columns: 200, rows: 50, color: 0, now: app.now });
  dashboards.push(dashboard);
  return { app, dashboard };
}

/** Words as a shell would split them. */
const words = (line: string): string[] =>
  [...line.matchAll(/'((?:[^']|'\\'')*)'|(\S+)/g)].map((match) => match[1]?.replaceAll("'\\''", "'") ?? match[2] ?? '');

/** Parses one command line with the program's own parser, without running it. */
async function parses(line: string): Promise<void> {
  const [program, name, ...rest] = words(line);
  expect(program).toBe('gpuproxy');
  const entry = commandNamed(name ?? '');
  expect(entry, line).toBeDefined();
  if (!entry) return;
  const command = await createCommand(entry);
  const quiet = (one: Command) => {
    one.exitOverride().configureOutput({ writeErr: () => undefined, writeOut: () => undefined });
    one.action(() => undefined);
    for (const sub of one.commands) quiet(sub);
  };
  quiet(command);
  await expect(command.parseAsync(rest, { from: 'user' }), line).resolves.toBeDefined();
}

test('every command line that the dashboard shows is one that the program understands', async () => {
  const lines = new Set<string>();
  for (const command of commands) {
    if (command.keys.length === 0 && command.cli === undefined) continue;
    const { app, dashboard } = start();
    if (command.scope !== 'global' && command.scope !== 'list') dashboard.update({ focus: command.scope });
    const cli = command.cli?.(dashboard) ?? null;
    if (cli !== null) lines.add(cli);
    if (command.keys[0] !== undefined && command.id !== 'suspend') {
      dashboard.press([command.keys[0]]);
      // Dialogs: confirm whatever they ask for.
      app.tick(400);
      const shownNow = dashboard.lines().map(textOf).join('\n');
      for (const [, line = ''] of shownNow.matchAll(/CLI (gpuproxy [^│~]*?) +│/g)) lines.add(line);
      const typed = /Type (\S+), |Type the last 4/.exec(shownNow);
      const id = dashboard.view().selected?.id ?? '';
      if (typed) dashboard.press([...(typed[1] ?? id.slice(-4)), 'enter']);
      else if (dashboard.view().prompt !== null) dashboard.press(['3', 'enter']);
      for (let i = 0; i < 3; i += 1) await new Promise((done) => setImmediate(done));
      const shown = dashboard.view().toast?.cli ?? null;
      if (shown !== null) lines.add(shown);
    }
  }
  expect(lines.size).toBeGreaterThan(12);
  for (const line of lines) for (const part of line.split(' && ')) await parses(part);
});

test('the reservation form shows the command line with every filter', async () => {
  const { dashboard } = start();
  const screen = () => dashboard.lines().map(textOf).join('\n');
  dashboard.press(['r', '2', 'tab', ...'rtx 4090'].map((key) => (key === ' ' ? 'space' : key)));
  dashboard.press(['tab', 'right', 'tab', ...'0.9', 'tab', '2', '4', 'tab', ...'SE', 'tab', '1']);
  await vi.waitFor(() => expect(screen()).toContain("CLI gpuproxy reserve 2 --gpu 'rtx 4090' --provider vast.ai"));
  // The dialog breaks it into two lines between its borders.
  const line = /CLI (gpuproxy reserve .*?--yes)/s.exec(screen())?.[1]?.replace(/ +│[^│]*(?:│[^│]*)?│ +/g, ' ') ?? '';
  expect(line).toBe(
    "gpuproxy reserve 2 --gpu 'rtx 4090' --provider vast.ai --max-price 0.9 --min-vram 24 --location SE --gpu-count 1 --yes",
  );
  await parses(line);
});
