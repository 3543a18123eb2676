import { expect, test } from 'vitest';
import { span } from '../../src/tui/line.ts';
import { paint, themes, withSixteen } from '../../src/tui/theme.ts';

test('a terminal of sixteen colours gets no code of 256 of them, in any theme', () => {
  for (const theme of Object.values(themes)) {
    for (const style of Object.keys(theme.sgr) as (keyof typeof theme.sgr)[]) {
      const painted = paint([span('x', style)], theme, 16);
      expect(painted, `${theme.name} ${style}`).not.toMatch(/[34]8;5/);
      // What had a colour still has one of the sixteen, not the default.
      expect(painted, `${theme.name} ${style}`).not.toMatch(/[[;](39|49)[;m]/);
    }
  }
});

test('among sixteen colours good, warnings and failures still differ, and what is selected stands out', () => {
  for (const { name, sgr } of Object.values(themes)) {
    const looks = (['good', 'warn', 'bad'] as const).map((style) => withSixteen(sgr[style]));
    expect(new Set(looks).size, name).toBe(3);
    expect(withSixteen(sgr.selected), name).toMatch(/7|4[0-7]|10[0-7]/);
    expect(withSixteen(sgr.selected), name).not.toBe(withSixteen(sgr.text));
  }
});

test('a terminal of 256 colours gets those of the theme', () => {
  expect(paint([span('x', 'bad')], themes.dark, 256)).toBe(`\u001b[${themes.dark.sgr.bad}mx\u001b[0m`);
});
