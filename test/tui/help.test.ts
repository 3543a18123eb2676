import { afterEach, expect, test } from 'vitest';
import { commands } from '../../src/tui/commands.ts';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { createFakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function start(columns: number, rows: number, glyphs: 'unicode' | 'ascii' = 'unicode') {
  const app = createFakeApp();
  const dashboard = createDashboard({ app, columns, rows, color: 0, now: app.now, glyphs });
  open.push(dashboard);
  return {
    press: (...keys: string[]) => dashboard.press(keys),
    screen: () => dashboard.lines().map(textOf).join('\n'),
  };
}

test('the whole help is seen at once at 160x45, each place once', () => {
  for (const glyphs of ['unicode', 'ascii'] as const) {
    const { press, screen } = start(160, 45, glyphs);
    press('?');
    expect(screen()).not.toContain('more lines');
    for (const command of commands) {
      // Long titles go on in the next line: their first words are enough.
      if (command.keys.length > 0) expect(screen(), command.id).toContain(command.title.slice(0, 40));
    }
    for (const place of ['Everywhere', 'Lists', 'Instances', 'Reservations', 'Strategy', 'Providers', 'Events']) {
      expect(screen().match(new RegExp(`(│|\\|) +${place} +(│|\\|)`, 'g')), place).toHaveLength(1);
    }
  }
});

test('the help is scrolled to its end on smaller terminals', () => {
  for (const [columns, rows] of [
    [60, 15],
    [80, 24],
    [120, 35],
  ] as const) {
    const { press, screen } = start(columns, rows);
    press('?');
    expect(screen(), `${columns}x${rows}`).toMatch(/\d+ more lines: j or PgDn/);
    press('G');
    expect(screen(), `${columns}x${rows}`).toContain('Go to what the event is about');
    expect(screen(), `${columns}x${rows}`).not.toContain('more lines');
  }
});

test('commands are found by other words for what they do', () => {
  for (const [word, title] of [
    ['kill', 'Destroy (asks first)'],
    ['resume', 'Drain, or put back into rotation'],
    ['undrain', 'Drain, or put back into rotation'],
    ['exit', 'Quit'],
  ] as const) {
    const { press, screen } = start(120, 35);
    press(':', ...word);
    expect(screen(), word).toMatch(new RegExp(`▸ \\S+ +${title.replace(/[()]/g, '\\$&')}`));
    press('escape', '?', '/', ...word);
    expect(screen(), word).toContain(title);
  }
});
