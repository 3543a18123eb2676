import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { openTerminal } from '../../src/tui/opening.ts';
import { runDashboard } from '../../src/tui/run-dashboard.tsx';
import { createTerminalInput, type TerminalReport } from '../../src/tui/terminal-input.ts';
import { createFakeApp } from './fake-app.ts';
import { createTestTerminal } from './terminal.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function startInput() {
  const terminal = createTestTerminal();
  const reports: TerminalReport[] = [];
  const input = createTerminalInput(terminal.stdin, (report) => reports.push(report));
  let keys = '';
  input.setEncoding('utf8').on('data', (text: string) => {
    keys += text;
  });
  input.setRawMode(true);
  const settled = () => new Promise((done) => setTimeout(done, 5));
  return { terminal, input, reports, keys: () => keys, settled };
}

describe('input of a terminal', () => {
  test('reports of focus and mouse are told and never become keys', async () => {
    const { terminal, reports, keys, settled } = startInput();
    terminal.type('j\u001b[I\u001b[<0;12;5Mk\u001b[<0;12;5m\u001b[<64;1;1M\u001b[<65;300;40M\u001b[O漢\u001b[Aq');
    await settled();
    expect(keys()).toBe('jk漢\u001b[Aq');
    expect(reports).toEqual([
      { kind: 'focus', on: true },
      { kind: 'press', x: 11, y: 4 },
      { kind: 'wheel-up', x: 0, y: 0 },
      { kind: 'wheel-down', x: 299, y: 39 },
      { kind: 'focus', on: false },
    ]);
    terminal.dispose();
  });

  test('wherever a chunk ends, the keys are the same', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom('j', 'é', '漢', '\u001b[<0;12;5M', '\u001b[<65;3;4M', '\u001b[B'), { maxLength: 8 }),
        fc.nat(40),
        async (parts, cut) => {
          const { terminal, keys, settled } = startInput();
          const bytes = Buffer.from(parts.join(''));
          // Between Escape and what follows a terminal does not pause: there Escape is a key.
          let at = cut;
          while (bytes[at - 1] === 0x1b || bytes[at - 2] === 0x1b) at += 1;
          for (const chunk of [bytes.subarray(0, at), bytes.subarray(at)]) {
            if (chunk.length > 0) terminal.stdin.push(chunk);
          }
          await settled();
          expect(keys()).toBe(parts.filter((part) => !part.startsWith('\u001b[<')).join(''));
          terminal.dispose();
        },
      ),
      { numRuns: 40 },
    );
  });

  test('without raw mode nothing is read: another program gets it', async () => {
    const { terminal, input, keys, settled } = startInput();
    input.setRawMode(false);
    terminal.type('ls\n');
    await settled();
    expect(keys()).toBe('');
    input.setRawMode(true);
    await settled();
    expect(keys()).toBe('ls\n');
    terminal.dispose();
  });
});

describe('the mouse', () => {
  function start(columns = 160, rows = 45) {
    const app = createFakeApp();
    const switched: boolean[] = [];
    const onMouse = (on: boolean) => void switched.push(on);
    const dashboard = createDashboard({ app, columns, rows, color: 0, now: app.now, onMouse });
    open.push(dashboard);
    const rowsOf = () => dashboard.lines().map(textOf);
    const click = (text: string, from = 0) => {
      const y = rowsOf().findIndex((row) => row.includes(text, from));
      dashboard.report({ kind: 'press', x: (rowsOf()[y] ?? '').indexOf(text, from), y });
    };
    return { app, dashboard, switched, rowsOf, click };
  }

  test('is off until m, and a click on a row selects it, a second one opens it', () => {
    const { app, dashboard, switched, click, rowsOf } = start();
    dashboard.press(['m']);
    expect(switched).toEqual([true]);
    const id = app.state.get().upstreams[3]?.id ?? '';
    click(id);
    expect(dashboard.ui.selectedId).toBe(id);
    click(id);
    expect(rowsOf().join('\n')).toContain(`INSTANCES > ${id}`);
  });

  test('a click on a heading sorts by it, again the other way round', () => {
    const { dashboard, click, rowsOf } = start();
    click('AVG RT WEIGHT');
    expect(dashboard.ui.sort).toEqual({ column: 'avg', reverse: false });
    click('AVG RT WEIGHT');
    expect(dashboard.ui.sort).toEqual({ column: 'avg', reverse: true });
    expect(rowsOf().join('\n')).toContain('sort AVG RT');
  });

  test('a click on a pane or a tab goes there, the wheel moves the cursor', () => {
    const { dashboard, click } = start();
    click('least_connections');
    expect(dashboard.ui.focus).toBe('strategy');
    expect(dashboard.ui.cursors.strategy).toBe(3);
    dashboard.report({ kind: 'wheel-up', x: 1, y: 1 });
    expect(dashboard.ui.cursors.strategy).toBe(0);
    for (const [columns, tab] of [
      [80, 'Events'],
      [60, 'Ev '],
    ] as const) {
      const narrow = start(columns, 20);
      narrow.click(tab);
      expect(narrow.dashboard.ui.focus).toBe('events');
    }
  });

  test('anywhere at any size it breaks nothing, and dialogs are not clicked through', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 40, max: 200 }),
        fc.integer({ min: 8, max: 60 }),
        fc.gen(),
        (columns, rows, any) => {
          const { dashboard } = start(columns, rows);
          for (let at = 0; at < 5; at += 1) {
            const kind = any(fc.constantFrom, 'press' as const, 'wheel-up' as const, 'wheel-down' as const);
            dashboard.report({ kind, x: any(fc.nat, 300), y: any(fc.nat, 100) });
          }
          expect(dashboard.lines().length).toBe(rows);
        },
      ),
      { numRuns: 60 },
    );
    const { dashboard, click } = start();
    dashboard.press(['?']);
    click('E');
    expect(dashboard.ui.focus).toBe('instances');
  });
});

describe('a terminal without focus', () => {
  test('is drawn once a second, and at once when it is looked at again', async () => {
    const terminal = createTestTerminal(120, 35);
    const app = createFakeApp();
    const ended = runDashboard({ app, ...terminal, env: { TERM: 'xterm-256color', LANG: 'C.UTF-8' } });
    const shows = (text: string) =>
      vi.waitFor(async () => expect((await terminal.screen()).join('\n')).toContain(text), { timeout: 5000 });
    await shows('LIVE 4/s');
    terminal.type('\u001b[O');
    app.tick();
    await shows('LIVE every 1s');
    terminal.type('\u001b[I');
    await shows('LIVE 4/s');
    terminal.type('q');
    expect(await ended).toBe(0);
    const bytes = terminal.taken();
    expect(bytes).toContain('\u001b[?1004h');
    expect(bytes.lastIndexOf('\u001b[?1004l')).toBeGreaterThan(bytes.lastIndexOf('\u001b[?1004h'));
    terminal.dispose();
  });
});

describe('the opening', () => {
  const expected = {
    banner: 'SIMULATED FLEET: no money is spent',
    balancing: true,
    strategy: null,
    providers: ['vast.ai', 'io.net'] as const,
    maxUsdPerHour: null,
  };

  test('says at once that it starts, then shows every pane, and gives the terminal back', async () => {
    const terminal = createTestTerminal(160, 45);
    terminal.stdout.write('$ gpuproxy tui\r\n');
    const opening = openTerminal(terminal.stdout, { TERM: 'xterm' }, 'starting');
    expect((await terminal.screen())[0]).toContain('gpuproxy   starting');
    await opening.draw(expected, { label: 'local', readonly: false, theme: 'dark' });
    const screen = (await terminal.screen()).join('\n');
    for (const text of ['STARTING', 'SIMULATED FLEET', 'INSTANCES', 'PROVIDERS', 'loading', 'STRATEGY', 'EVENTS']) {
      expect(screen).toContain(text);
    }
    expect(screen).not.toContain('●');
    opening.close();
    await terminal.screen();
    expect(terminal.alternate()).toBe(false);
    expect(terminal.cursorVisible()).toBe(true);
    expect((await terminal.screen())[0]).toBe('$ gpuproxy tui');
    terminal.dispose();
  });

  test('hands the screen over to the dashboard, which leaves it as it was before both', async () => {
    const terminal = createTestTerminal(100, 30);
    terminal.stdout.write('$ gpuproxy tui\r\n');
    const before = process.listenerCount('SIGINT');
    const opening = openTerminal(terminal.stdout, {}, 'starting');
    await opening.draw(expected, { label: 'local', readonly: false, theme: undefined });
    const app = createFakeApp();
    const ended = runDashboard({ app, ...terminal, opening, env: { TERM: 'xterm', LANG: 'C.UTF-8' } });
    await vi.waitFor(async () => expect((await terminal.screen()).join('\n')).toContain('LIVE 4/s'), { timeout: 5000 });
    terminal.type('q');
    expect(await ended).toBe(0);
    opening.close();
    await terminal.screen();
    expect(terminal.alternate()).toBe(false);
    expect((await terminal.screen())[0]).toBe('$ gpuproxy tui');
    expect(process.listenerCount('SIGINT')).toBe(before);
    terminal.dispose();
  });
});
