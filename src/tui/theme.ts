import type { Line, Style } from './line.ts';

/** 0: no escape sequences at all; 16: the terminal's own palette; 256: fixed colours. */
export type ColorLevel = 0 | 16 | 256;

/** SGR parameters by meaning. An empty string leaves the terminal's default. */
export type Theme = Readonly<{ name: ThemeName; sgr: Readonly<Record<Style, string>> }>;

export const themeNames = ['terminal', 'dark', 'light', 'colorblind', 'mono'] as const;
export type ThemeName = (typeof themeNames)[number];

const terminal: Record<Style, string> = {
  text: '',
  dim: '2',
  strong: '1',
  title: '1;36',
  head: '2',
  rule: '2',
  accent: '36',
  key: '1;33',
  good: '32',
  warn: '33',
  bad: '1;31',
  busy: '36',
  info: '34',
  bar: '36',
  spark: '35',
  brand: '1;30;46',
  banner: '1;30;43',
  selected: '7',
  marked: '1;33',
};

const dark: Record<Style, string> = {
  text: '38;5;252',
  dim: '38;5;244',
  strong: '1;38;5;255',
  title: '1;38;5;80',
  head: '38;5;109',
  rule: '38;5;238',
  accent: '38;5;80',
  key: '1;38;5;221',
  good: '38;5;114',
  warn: '38;5;221',
  bad: '1;38;5;203',
  busy: '38;5;117',
  info: '38;5;111',
  bar: '38;5;73',
  spark: '38;5;140',
  brand: '1;38;5;16;48;5;80',
  banner: '1;38;5;16;48;5;221',
  selected: '1;38;5;255;48;5;24',
  marked: '1;38;5;221',
};

const light: Record<Style, string> = {
  text: '38;5;235',
  dim: '38;5;243',
  strong: '1;38;5;232',
  title: '1;38;5;24',
  head: '38;5;60',
  rule: '38;5;250',
  accent: '38;5;24',
  key: '1;38;5;130',
  good: '38;5;28',
  warn: '38;5;130',
  bad: '1;38;5;160',
  busy: '38;5;25',
  info: '38;5;25',
  bar: '38;5;31',
  spark: '38;5;90',
  brand: '1;38;5;231;48;5;24',
  banner: '1;38;5;16;48;5;222',
  selected: '1;38;5;232;48;5;153',
  marked: '1;38;5;130',
};

/** Blue against orange, which the common colour-vision deficiencies keep apart. */
const colorblind: Record<Style, string> = {
  ...dark,
  good: '38;5;75',
  warn: '38;5;179',
  bad: '1;38;5;208',
  busy: '38;5;153',
  bar: '38;5;75',
  spark: '38;5;250',
};

const mono: Record<Style, string> = {
  text: '',
  dim: '2',
  strong: '1',
  title: '1',
  head: '4',
  rule: '2',
  accent: '1',
  key: '1',
  good: '',
  warn: '1',
  bad: '1;4',
  busy: '',
  info: '',
  bar: '',
  spark: '',
  brand: '7;1',
  banner: '7',
  selected: '7',
  marked: '1',
};

export const themes: Readonly<Record<ThemeName, Theme>> = {
  terminal: { name: 'terminal', sgr: terminal },
  dark: { name: 'dark', sgr: dark },
  light: { name: 'light', sgr: light },
  colorblind: { name: 'colorblind', sgr: colorblind },
  mono: { name: 'mono', sgr: mono },
};

/** The colours of the themes among the sixteen: chosen by eye, so that what means different things stays different. */
const amongSixteen: Readonly<Record<number, number>> = {
  ...{ 16: 30, 24: 34, 25: 34, 28: 32, 31: 36, 60: 34, 73: 36, 75: 94, 80: 96, 90: 35, 109: 36, 111: 94 },
  ...{ 114: 92, 117: 96, 130: 33, 140: 95, 153: 96, 160: 31, 179: 33, 203: 91, 208: 93, 221: 93, 222: 93 },
  ...{ 231: 97, 232: 30, 235: 30, 238: 90, 243: 90, 244: 90, 250: 37, 252: 37, 255: 97 },
};

/** SGR parameters for a terminal that has no more than sixteen colours. */
export const withSixteen = (sgr: string): string =>
  sgr.replace(/([34])8;5;(\d+)/g, (_all, ground: string, index: string) =>
    String((amongSixteen[Number(index)] ?? 39) + (ground === '4' ? 10 : 0)),
  );

const sixteen = Object.fromEntries(
  Object.values(themes).map(({ name, sgr }) => [
    name,
    Object.fromEntries(Object.entries(sgr).map(([style, code]) => [style, withSixteen(code)])),
  ]),
) as Record<ThemeName, Record<Style, string>>;

/** A line as text with SGR sequences, each style closed before the next begins. Level 0 gives bare text. */
export function paint(line: Line, theme: Theme, level: ColorLevel): string {
  const codes = level === 256 ? theme.sgr : sixteen[theme.name];
  let out = '';
  for (const { text, style } of line) {
    const sgr = level === 0 ? '' : codes[style];
    out += sgr === '' ? text : `\u001b[${sgr}m${text}\u001b[0m`;
  }
  return out;
}

/**
 * How much colour the terminal gets, by the usual precedence: NO_COLOR (when not empty) over FORCE_COLOR over
 * CLICOLOR=0 over TERM.
 */
export function colorLevel(env: Readonly<Record<string, string | undefined>>): ColorLevel {
  if (env.GPUPROXY_COLOR === 'never') return 0;
  if (env.GPUPROXY_COLOR !== 'always') {
    if (env.NO_COLOR !== undefined && env.NO_COLOR !== '') return 0;
    if (env.FORCE_COLOR === '0' || env.FORCE_COLOR === 'false') return 0;
    if (env.CLICOLOR === '0' && env.FORCE_COLOR === undefined && !env.CLICOLOR_FORCE) return 0;
    if (env.TERM === 'dumb' && env.FORCE_COLOR === undefined) return 0;
  }
  const rich = env.COLORTERM !== undefined || /256|direct|kitty|alacritty|ghostty/.test(env.TERM ?? '');
  return rich ? 256 : 16;
}

/** Unicode unless the locale or the terminal cannot. */
export function glyphsFor(env: Readonly<Record<string, string | undefined>>): 'unicode' | 'ascii' {
  if (env.GPUPROXY_GLYPHS === 'ascii' || env.GPUPROXY_GLYPHS === 'unicode') return env.GPUPROXY_GLYPHS;
  if (env.TERM === 'dumb' || env.TERM === 'linux') return 'ascii';
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || '';
  return locale === '' || /utf-?8/i.test(locale) ? 'unicode' : 'ascii';
}
