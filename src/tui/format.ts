/**
 * Text of an exact width in terminal cells: padding, cutting, bars, sparklines, money, ages, times.
 * Pure, so the same words serve the dashboard and the command line.
 */

import { price } from '../core/words.ts';

/** Made when it is needed for the first time, because that takes 20 ms. */
let graphemes: Intl.Segmenter | null = null;
const printableAscii = /^[\x20-\x7e]*$/;
/** ASCII and the rules, bars and marks that the dashboard draws with: one cell each, and what every frame is full of. */
const simple = /^[\x20-\x7e\u2192\u2500-\u259f\u25b2\u25b8\u25bc\u25cb\u25cf]*$/;
const emoji = /\p{Extended_Pictographic}|\p{Regional_Indicator}/u;
const joined = /[\u200d\ufe0f\u20e3\u{e0020}-\u{e007f}]|\p{Emoji_Modifier}|\p{Regional_Indicator}/u;
const invisible = /^[\p{Mark}\p{Control}\p{Format}\p{Surrogate}\u115f\u1160\u3164]+$/u;

/** East Asian wide and fullwidth blocks, by first and last code point (Unicode EastAsianWidth W and F). */
const wideRanges: readonly (readonly [number, number])[] = [
  [0x1100, 0x115f],
  [0x2e80, 0x303e],
  [0x3041, 0x33ff],
  [0x3400, 0x4dbf],
  [0x4e00, 0xa4cf],
  [0xa960, 0xa97c],
  [0xac00, 0xd7a3],
  [0xf900, 0xfaff],
  [0xfe30, 0xfe6f],
  [0xff01, 0xff60],
  [0xffe0, 0xffe6],
  [0x1b000, 0x1b2ff],
  [0x20000, 0x3fffd],
];

function isWide(codePoint: number): boolean {
  // Nothing between the jamo and the radicals is wide: rules, bars and other glyphs of our own end here.
  if (codePoint < 0x2e80) return codePoint >= 0x1100 && codePoint <= 0x115f;
  return wideRanges.some(([first, last]) => codePoint >= first && codePoint <= last);
}

/**
 * Text from outside made safe to draw: control characters and newlines become blanks, and what terminals disagree
 * about (joined emoji, flags, conjoining jamo, scripts that shape several letters into one) becomes `?`, because a
 * wrong width shifts the rest of the row.
 */
export function plainText(text: string): string {
  if (simple.test(text)) return text;
  let out = '';
  graphemes ??= new Intl.Segmenter('en', { granularity: 'grapheme' });
  for (const { segment } of graphemes.segment(text)) {
    if (printableAscii.test(segment)) out += segment;
    else if (/^[\r\n\t\u2028\u2029]+$/.test(segment)) out += ' ';
    else if (joined.test(segment) || emoji.test(segment)) out += /^\p{Emoji_Presentation}$/u.test(segment) ? '??' : '?';
    else if (invisible.test(segment)) out += /^\p{Format}+$/u.test(segment) ? '' : ' ';
    else {
      const composed = segment.normalize('NFC');
      out += [...composed].length === 1 && !/[\u1160-\u11ff\ud7b0-\ud7fb]/.test(composed) ? composed : '?';
    }
  }
  return out;
}

/** Cells that a text made by `plainText` takes. */
export function cellWidth(text: string): number {
  if (simple.test(text)) return text.length;
  let width = 0;
  for (const character of text) width += isWide(character.codePointAt(0) ?? 0) ? 2 : 1;
  return width;
}

/** The part of `text` from cell `from` to cell `to`; a wide character cut in half becomes a blank. */
export function sliceCells(text: string, from: number, to: number): string {
  if (simple.test(text)) return text.slice(from, to);
  let out = '';
  let at = 0;
  for (const character of text) {
    const width = isWide(character.codePointAt(0) ?? 0) ? 2 : 1;
    if (at >= from && at + width <= to) out += character;
    else if (at < to && at + width > from) out += ' ';
    at += width;
    if (at >= to) break;
  }
  return out;
}

export type Align = 'left' | 'right';

/** `text` in exactly `width` cells; what is cut ends in `~` so that nobody takes it for the whole. */
export function fitText(text: string, width: number, align: Align = 'left'): string {
  if (width <= 0) return '';
  const clean = plainText(text);
  const cells = cellWidth(clean);
  if (cells === width) return clean;
  if (cells > width) {
    if (width === 1) return cells > 1 ? '~' : clean;
    const cut = sliceCells(clean, 0, width - 1);
    return `${cut}${' '.repeat(Math.max(0, width - 1 - cellWidth(cut)))}~`;
  }
  const blanks = ' '.repeat(width - cells);
  return align === 'left' ? clean + blanks : blanks + clean;
}

/** A text of at most `width` cells: what is cut is cut from the middle, because ids differ at their ends. */
export function cutMiddle(text: string, width: number): string {
  const clean = plainText(text);
  const cells = cellWidth(clean);
  if (cells <= width || width < 5) return clean;
  const tail = Math.ceil((width - 1) / 2);
  return `${sliceCells(clean, 0, width - 1 - tail)}~${sliceCells(clean, cells - tail, cells)}`;
}

/** An id in exactly `width` cells, cut in its middle. */
export const fitId = (id: string, width: number): string => fitText(cutMiddle(id, width), width);

/** Words broken into lines of at most `width` cells. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of plainText(text).split(' ')) {
    let rest = word;
    const joinedLine = line === '' ? rest : `${line} ${rest}`;
    if (cellWidth(joinedLine) <= width) {
      line = joinedLine;
      continue;
    }
    if (line !== '') lines.push(line);
    while (cellWidth(rest) > width && width > 0) {
      const cut = sliceCells(rest, 0, width).trimEnd();
      lines.push(cut);
      rest = rest.slice(Math.max(1, cut.length));
    }
    line = rest;
  }
  if (line !== '' || lines.length === 0) lines.push(line);
  return lines;
}

/** A price: `4.123` → `$4.12`, `0.043` → `$0.043`. */
export function money(usd: number): string {
  if (!Number.isFinite(usd)) return '-';
  const size = Math.abs(usd);
  if (size >= 100_000) return `$${(usd / 1000).toFixed(0)}k`;
  if (size >= 1000) return `$${usd.toFixed(0)}`;
  return price(usd);
}

/** What was or is to be paid, in cents; what is less than one is not nothing. */
export function amount(usd: number): string {
  if (usd > 0 && usd < 0.005) return '<$0.01';
  return Math.abs(usd) < 1000 ? `$${usd.toFixed(2)}` : money(usd);
}

/** Milliseconds as people say them: `0.4ms`, `250ms`, `1.24s`, `2m05s`; null is `-`. */
export function milliseconds(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return '-';
  if (value < 9.95) return `${value.toFixed(1).replace(/\.0$/, '')}ms`;
  if (value < 999.5) return `${Math.round(value)}ms`;
  if (value < 9995) return `${(value / 1000).toFixed(2)}s`;
  if (value < 99_950) return `${(value / 1000).toFixed(1)}s`;
  const seconds = Math.round(value / 1000);
  return `${Math.floor(seconds / 60)}m${String(seconds % 60).padStart(2, '0')}s`;
}

/** A duration in two units at most: `4s`, `2m10s`, `3h04m`, `2d03h`. Never negative. */
export function age(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m${String(seconds % 60).padStart(2, '0')}s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h${String(minutes % 60).padStart(2, '0')}m`;
  return `${Math.floor(hours / 24)}d${String(hours % 24).padStart(2, '0')}h`;
}

/** An age in its greatest unit, at most three cells under a hundred days: `59s`, `12m`, `5h`. */
export const shortAge = (ms: number): string => age(ms).replace(/^(\d+[mhd]).*$/, '$1');

/** A count in at most `width` cells: `9999`, `12.3k`, `4.5M`. */
export function count(value: number, width = 7): string {
  if (!Number.isFinite(value)) return '-';
  const whole = String(Math.round(value));
  if (whole.length <= width) return whole;
  for (const [unit, size] of [
    ['k', 1e3],
    ['M', 1e6],
    ['G', 1e9],
    ['T', 1e12],
  ] as const) {
    const scaled = value / size;
    if (scaled >= 1000) continue;
    const digits = scaled >= 100 ? 0 : 1;
    const text = `${scaled.toFixed(digits)}${unit}`;
    if (text.length <= width) return text;
    const short = `${scaled.toFixed(0)}${unit}`;
    if (short.length <= width) return short;
  }
  return '9'.repeat(Math.max(1, width));
}

/** A rate with as many decimals as matter: `0.4`, `12.3`, `634`. */
export function rate(value: number): string {
  if (!Number.isFinite(value)) return '-';
  return value < 99.95 ? value.toFixed(1) : count(value, 6);
}

/** 0..1 as a percentage with one decimal below ten: `0.4%`, `14%`, `100%`. */
export function percent(fraction: number): string {
  if (!Number.isFinite(fraction)) return '-';
  const value = fraction * 100;
  if (value > 0 && value < 0.05) return '<0.1%';
  return value < 9.95 ? `${value.toFixed(1)}%` : `${Math.round(value)}%`;
}

/** Wall clock of the day, local time: `12:04:31`. */
export function clockTime(epochMs: number): string {
  const date = new Date(epochMs);
  if (Number.isNaN(date.getTime())) return '--:--:--';
  const two = (value: number) => String(value).padStart(2, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** The characters that bars, rules and marks are drawn with. Every one is a single cell wide. */
export type Glyphs = Readonly<{
  name: 'unicode' | 'ascii';
  /** From empty to full; a bar cell takes one of them. */
  bar: readonly string[];
  barEmpty: string;
  /** Eight heights; the first is shown for zero. */
  spark: readonly string[];
  ghost: string;
  rule: string;
  side: string;
  corners: readonly [string, string, string, string];
  teeDown: string;
  teeUp: string;
  teeRight: string;
  teeLeft: string;
  cursor: string;
  mark: string;
  on: string;
  off: string;
  up: string;
  down: string;
  separator: string;
  arrow: string;
}>;

export const unicodeGlyphs: Glyphs = {
  name: 'unicode',
  bar: ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'],
  barEmpty: '·',
  spark: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
  ghost: '░',
  rule: '─',
  side: '│',
  corners: ['╭', '╮', '╰', '╯'],
  teeDown: '┬',
  teeUp: '┴',
  teeRight: '├',
  teeLeft: '┤',
  cursor: '▸',
  mark: '✓',
  on: '●',
  off: '○',
  up: '▲',
  down: '▼',
  separator: '│',
  arrow: '→',
};

export const asciiGlyphs: Glyphs = {
  name: 'ascii',
  bar: ['|'],
  barEmpty: '.',
  spark: ['_', '.', '-', '-', '=', '=', '#', '^'],
  ghost: ':',
  rule: '-',
  side: '|',
  corners: ['+', '+', '+', '+'],
  teeDown: '+',
  teeUp: '+',
  teeRight: '+',
  teeLeft: '+',
  cursor: '>',
  mark: '*',
  on: '(*)',
  off: '( )',
  up: '^',
  down: 'v',
  separator: '|',
  arrow: '->',
};

/** A bar of exactly `width` cells; anything above zero shows, and only a full bar looks full. */
export function bar(fraction: number, width: number, glyphs: Glyphs): string {
  const [filled, empty] = barParts(fraction, width, glyphs);
  return filled + empty;
}

/** The filled and the empty part of a bar, to be coloured apart; together exactly `width` cells. */
export function barParts(fraction: number, width: number, glyphs: Glyphs): readonly [string, string] {
  if (width <= 0) return ['', ''];
  const safe = Number.isFinite(fraction) ? Math.min(1, Math.max(0, fraction)) : 0;
  const steps = glyphs.bar.length;
  let units = Math.round(safe * width * steps);
  if (safe > 0 && units === 0) units = 1;
  const full = Math.floor(units / steps);
  const rest = units % steps;
  const solid = glyphs.bar[steps - 1] ?? '|';
  const filled = solid.repeat(full) + (rest > 0 ? (glyphs.bar[rest - 1] ?? '') : '');
  return [filled, glyphs.barEmpty.repeat(width - full - (rest > 0 ? 1 : 0))];
}

/**
 * The newest values as columns of exactly `width` cells. `top` is the value of a full column (default: the greatest
 * value shown); several values share a cell by their maximum when there are more than fit `per` cell.
 */
export function sparkline(values: readonly number[], width: number, glyphs: Glyphs, top?: number, per = 1): string {
  if (width <= 0) return '';
  const cells: number[] = [];
  for (let end = values.length; end > 0 && cells.length < width; end -= per) {
    cells.unshift(Math.max(0, ...values.slice(Math.max(0, end - per), end).filter(Number.isFinite)));
  }
  const most = top ?? Math.max(0, ...cells);
  const last = glyphs.spark.length - 1;
  const drawn = cells.map((value) => {
    if (most <= 0 || value <= 0) return glyphs.spark[0] ?? '_';
    return glyphs.spark[Math.min(last, Math.max(1, Math.ceil((value / most) * last)))] ?? '_';
  });
  return ' '.repeat(width - drawn.length) + drawn.join('');
}

/**
 * Values over time as an area of exactly `width` by `height` cells, rows from the top down. The newest value stands at
 * the right end; fewer values than cells are stretched.
 */
export function areaChart(
  values: readonly number[],
  width: number,
  height: number,
  glyphs: Glyphs,
  top: number,
): string[] {
  const steps = glyphs.spark.length;
  const heights = Array.from({ length: width }, (_, cell) => {
    const value = values[Math.floor((cell * values.length) / width)] ?? 0;
    const part = top > 0 && Number.isFinite(value) ? Math.min(1, Math.max(0, value / top)) : 0;
    return Math.round(part * height * steps);
  });
  return Array.from({ length: height }, (_, row) => {
    const floor = (height - 1 - row) * steps;
    return heights
      .map((units) => (units <= floor ? ' ' : (glyphs.spark[Math.min(steps, units - floor) - 1] ?? ' ')))
      .join('');
  });
}
