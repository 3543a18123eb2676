import fc from 'fast-check';
import { render } from 'ink-testing-library';
import { createElement } from 'react';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createDashboard } from '../../src/tui/dashboard.ts';
import { lineWidth, textOf } from '../../src/tui/line.ts';
import { createPainter } from '../../src/tui/painter.ts';
import { runDashboard } from '../../src/tui/run-dashboard.tsx';
import { Screen } from '../../src/tui/screen.ts';
import { themes } from '../../src/tui/theme.ts';
import { createFakeApp } from './fake-app.ts';
import { createTestTerminal, type TestTerminal } from './terminal.ts';

const terminals: TestTerminal[] = [];
afterEach(() => {
  for (const terminal of terminals.splice(0)) terminal.dispose();
});

function terminalOf(columns = 100, rows = 30): TestTerminal {
  const terminal = createTestTerminal(columns, rows);
  terminals.push(terminal);
  return terminal;
}

const env = { TERM: 'xterm-256color', LANG: 'C.UTF-8' };

async function shows(terminal: TestTerminal, text: string | RegExp): Promise<void> {
  await vi.waitFor(async () => expect((await terminal.screen()).join('\n')).toMatch(text), {
    timeout: 5000,
    interval: 20,
  });
}

describe('on a terminal', () => {
  test('runs on the alternate screen and leaves everything as it was', async () => {
    const terminal = terminalOf();
    terminal.stdout.write('$ gpuproxy tui\r\n');
    const ended = runDashboard({ app: createFakeApp(), ...terminal, env });
    await shows(terminal, /INSTANCE +PROVIDER/);
    expect(terminal.alternate()).toBe(true);
    expect(terminal.stdin.isRaw).toBe(true);
    terminal.type('q');
    expect(await ended).toBe(0);
    await terminal.screen();
    expect(terminal.alternate()).toBe(false);
    expect(terminal.cursorVisible()).toBe(true);
    expect(terminal.stdin.isRaw).toBe(false);
    expect((await terminal.screen())[0]).toBe('$ gpuproxy tui');
    expect(terminal.taken()).toContain('\u001b[?2004l');
  });

  test('Ctrl-C quits, an abort from outside too', async () => {
    for (const how of ['key', 'signal'] as const) {
      const terminal = terminalOf();
      const abort = new AbortController();
      const ended = runDashboard({ app: createFakeApp(), ...terminal, env, signal: abort.signal });
      await shows(terminal, /INSTANCE/);
      if (how === 'key') terminal.type('\u0003');
      else abort.abort();
      expect(await ended).toBe(0);
      await terminal.screen();
      expect(terminal.alternate()).toBe(false);
    }
  });

  test('keys typed in one chunk all count, Escape and arrows are understood', async () => {
    const terminal = terminalOf();
    const app = createFakeApp();
    const ended = runDashboard({ app, ...terminal, env });
    const ids = [...app.state.get().upstreams].map((row) => row.id).sort((a, b) => a.localeCompare(b));
    await shows(terminal, new RegExp(`▸ ${ids[0]}`));
    terminal.type('jjj');
    await shows(terminal, new RegExp(`▸ ${ids[3]}`));
    terminal.type('\u001b[A');
    await shows(terminal, new RegExp(`▸ ${ids[2]}`));
    terminal.type('?');
    await shows(terminal, /HELP/);
    terminal.type('\u001b');
    await vi.waitFor(async () => expect((await terminal.screen()).join('\n')).not.toMatch(/HELP/));
    terminal.type('q');
    await ended;
  });

  test('Ctrl-Z in a process that carries traffic asks first', async () => {
    const terminal = terminalOf();
    const ended = runDashboard({ app: createFakeApp(), ...terminal, env, carriesTraffic: true });
    await shows(terminal, /INSTANCE/);
    terminal.type('\u001a');
    await shows(terminal, /Ctrl-Z again suspends; traffic through this process stops with it/);
    expect(terminal.alternate()).toBe(true);
    terminal.type('q');
    expect(await ended).toBe(0);
  });

  test('pasted text runs nothing', async () => {
    const terminal = terminalOf();
    const app = createFakeApp();
    const ended = runDashboard({ app, ...terminal, env });
    await shows(terminal, /INSTANCE/);
    terminal.type('\u001b[200~4\rxq\r\u001b[201~');
    terminal.type('?');
    await shows(terminal, /HELP/);
    expect(app.calls).toEqual([]);
    terminal.type('qq');
    expect(await ended).toBe(0);
  });

  test('writes nothing while nothing changes', async () => {
    const terminal = terminalOf();
    let now = 1_800_000_000_000;
    const app = createFakeApp({ now: () => now });
    const dashboard = createDashboard({ app, columns: 100, rows: 30, color: 16, now: () => now });
    const painter = createPainter(terminal.stdout, 16);
    const show = () => painter.show(dashboard.lines(), themes.terminal);
    show();
    const first = terminal.taken().length;
    expect(first).toBeGreaterThan(1000);
    for (let i = 0; i < 5; i += 1) {
      dashboard.changed();
      show();
    }
    expect(terminal.taken()).toBe('');
    now += 1000;
    dashboard.changed();
    show();
    const second = terminal.taken().length;
    expect(second).toBeGreaterThan(0);
    expect(second).toBeLessThan(first / 4);
    dashboard.dispose();
  });

  test('a resize at any moment leaves exactly the frame of the new size', async () => {
    const terminal = terminalOf(160, 45);
    const app = createFakeApp();
    const ended = runDashboard({ app, ...terminal, env });
    await shows(terminal, /PEEK/);
    for (const [columns, rows] of [
      [80, 24],
      [100, 30],
      [50, 10],
      [200, 60],
      [60, 15],
    ] as const) {
      terminal.resize(columns, rows);
      app.tick();
      await shows(terminal, columns < 60 ? /panes need 60x15/ : /INSTANCE +PROVIDER/);
      await vi.waitFor(async () => {
        const screen = await terminal.screen();
        expect(screen.length).toBe(rows);
        expect(screen.filter((line) => /req\/s/.test(line)).length).toBe(columns < 60 ? 0 : 1);
        if (columns >= 60) expect(screen[rows - 1]).toMatch(/enter/);
      });
    }
    terminal.type('q');
    await ended;
  });

  test('a dashboard that cannot be drawn ends with an error that can be read', async () => {
    const terminal = terminalOf();
    const app = createFakeApp();
    const errors: string[] = [];
    const stderr = { write: (text: string) => errors.push(text) } as unknown as NodeJS.WritableStream;
    const ended = runDashboard({ app, ...terminal, env, stderr });
    await shows(terminal, /INSTANCE/);
    app.show(() => ({ broken: true }) as never);
    expect(await ended).toBe(1);
    await terminal.screen();
    expect(terminal.alternate()).toBe(false);
    expect(errors.join('')).toMatch(/gpuproxy: the dashboard failed: /);
  });

  test('NO_COLOR and TERM=dumb write no colours, and the cursor is still visible as text', async () => {
    for (const quiet of [{ NO_COLOR: '1', TERM: 'xterm-256color' }, { TERM: 'dumb' }]) {
      const terminal = terminalOf();
      const ended = runDashboard({ app: createFakeApp(), ...terminal, env: { LANG: 'C.UTF-8', ...quiet } });
      await shows(terminal, /[▸>] /);
      terminal.type('q');
      await ended;
      expect(terminal.taken()).not.toMatch(/\u001b\[[1-9;][0-9;]*m/);
    }
  });
});

describe('without a terminal', () => {
  test('prints one frame and ends with 0', async () => {
    const terminal = terminalOf();
    Object.assign(terminal.stdout, { isTTY: false, columns: undefined, rows: undefined });
    expect(await runDashboard({ app: createFakeApp(), ...terminal, env: {} })).toBe(0);
    const text = terminal.taken();
    expect(text).toContain('INSTANCE');
    expect(text).not.toContain('\u001b');
    expect(text.trimEnd().split('\n').length).toBe(35);
  });

  test('in CI prints one frame too, unless told otherwise', async () => {
    const terminal = terminalOf();
    expect(await runDashboard({ app: createFakeApp(), ...terminal, env: { ...env, CI: 'true' } })).toBe(0);
    expect(terminal.taken()).not.toContain('\u001b[?1049h');
  });
});

test('painting only what changed gives the same screen as painting everything', async () => {
  const keys = ['j', 'k', 'tab', 's', 'enter', 'escape', '?', 'z', 'o', 'r', 'x', 't', 'T', 'p', '/', 'a', '深', 'W'];
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(fc.constantFrom(...keys), fc.constant('tick')), { maxLength: 25 }),
      async (steps) => {
        const terminal = terminalOf(100, 30);
        const app = createFakeApp();
        app.show((snapshot) => ({
          ...snapshot,
          upstreams: snapshot.upstreams.map((row, index) =>
            index === 3 ? { ...row, id: 'vast-深圳', gpuModel: '显卡 4090' } : row,
          ),
        }));
        const dashboard = createDashboard({ app, columns: 100, rows: 30, color: 256, now: app.now });
        const painter = createPainter(terminal.stdout, 256);
        let shown = dashboard.lines();
        try {
          for (const step of steps) {
            if (step === 'tick') app.tick();
            else dashboard.press([step]);
            dashboard.changed();
            shown = dashboard.lines();
            painter.show(shown, themes[dashboard.ui.theme]);
          }
          painter.show(shown, themes[dashboard.ui.theme]);
          expect((await terminal.screen()).map((line) => line.trimEnd())).toEqual(
            shown.map((line) => textOf(line).trimEnd()),
          );
        } finally {
          dashboard.dispose();
        }
      },
    ),
    { numRuns: 25 },
  );
});

test('rows can be rendered as elements where no painter may write', async () => {
  const app = createFakeApp();
  const dashboard = createDashboard({ app, columns: 100, rows: 24, color: 0, now: app.now });
  const view = render(createElement(Screen, { dashboard }));
  await vi.waitFor(() => expect(view.lastFrame()).toContain('INSTANCE'));
  for (const line of dashboard.lines()) expect(lineWidth(line)).toBe(100);
  view.stdin.write('4');
  await vi.waitFor(() => expect(app.state.get().strategy.name).toBe('least_connections'));
  view.unmount();
  dashboard.dispose();
});
