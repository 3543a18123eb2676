import { afterEach, describe, expect, test } from 'vitest';
import { commands } from '../../src/tui/commands.ts';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { KeymapError, withKeymap } from '../../src/tui/keymap.ts';
import { textOf } from '../../src/tui/line.ts';
import { createFakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function start(keymap: unknown, instances = 12) {
  const app = createFakeApp({ instances });
  let quits = 0;
  const dashboard = createDashboard({
    app,
    columns: 160,
    rows: 45,
    color: 0,
    now: app.now,
    commands: withKeymap(keymap),
    onQuit: () => (quits += 1),
  });
  open.push(dashboard);
  return {
    app,
    dashboard,
    quits: () => quits,
    press: (...keys: string[]) => dashboard.press(keys),
    screen: () => dashboard.lines().map(textOf).join('\n'),
  };
}

const refusal = (keymap: unknown): readonly string[] => {
  try {
    withKeymap(keymap);
  } catch (error) {
    if (error instanceof KeymapError) return error.details;
    throw error;
  }
  throw new Error('it was accepted');
};

describe('a keymap', () => {
  test('gives a command other keys, everywhere that keys are named', async () => {
    const { app, press, screen } = start({ drain: ['D'], help: ['ctrl-g'], 'pane-strategy': ['S'] });
    expect(screen()).toMatch(/STRATEGY \(S\)/);
    expect(screen()).toMatch(/D drain .*ctrl-g help/);
    expect(screen()).not.toMatch(/ d drain/);
    press('d');
    expect(app.calls).toEqual([]);
    press('D');
    await new Promise((done) => setImmediate(done));
    expect(app.calls.map(([name]) => name)).toEqual(['drain']);
    press('S');
    expect(open[0]?.ui.focus).toBe('strategy');
    press('ctrl-g', '/', ...'rotation'.split(''));
    expect(screen()).toMatch(/ D +Drain, or put back into rotation/);
  });

  test('names the real keys in an empty fleet too', () => {
    const { screen } = start({ reserve: ['N'] }, 0);
    expect(screen()).toMatch(/N +reserve GPUs/);
    expect(screen()).toMatch(/N reserves/);
  });

  test('holds on the page of an instance', async () => {
    const { app, press } = start({ drain: ['D'] });
    press('enter', 'd', 'D');
    await new Promise((done) => setImmediate(done));
    expect(app.calls.filter(([name]) => name === 'drain').length).toBe(1);
  });

  test('may take every key from a command; Ctrl-C quits all the same', () => {
    const { press, quits, screen } = start({ quit: [], mouse: [] });
    press('q', 'm');
    expect(quits()).toBe(0);
    expect(screen()).not.toContain('mouse on');
    press('ctrl-c');
    expect(quits()).toBe(1);
  });

  test('two commands may swap their keys', () => {
    const swapped = withKeymap({ theme: ['T'], glyphs: ['t'] });
    expect(swapped.find((command) => command.keys.includes('t'))?.id).toBe('glyphs');
  });

  test('that is empty changes nothing', () => {
    expect(withKeymap({})).toEqual(commands);
  });

  test('that cannot be understood says what came and what is accepted', () => {
    expect(refusal({ drian: ['D'] })).toEqual([expect.stringMatching(/^no command "drian"; there are help palette/)]);
    expect(refusal({ drain: ['DD', 'F1', 'ctrl-1', ''] })).toEqual([
      expect.stringMatching(/^"drain": got the key "DD", accepts one character, ctrl-a to ctrl-z, or space/),
      expect.stringContaining('"F1"'),
      expect.stringContaining('"ctrl-1"'),
      expect.stringContaining('got the key ""'),
    ]);
    expect(refusal({ drain: ['x'] })).toEqual([
      '"x" would mean both drain and destroy in instances; give one of them another key',
    ]);
    expect(refusal({ drain: 'D' })).toEqual([expect.stringMatching(/^"drain": .*; accepts ids of commands/)]);
    expect(refusal([])).toEqual([expect.stringMatching(/^the whole: .*; accepts ids of commands/)]);
  });
});
