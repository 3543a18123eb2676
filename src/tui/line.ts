import { cellWidth, fitText, plainText, sliceCells } from './format.ts';

/** What a piece of text means; a theme says how it looks. Meaning is never carried by the style alone. */
export type Style =
  | 'text'
  | 'dim'
  | 'strong'
  | 'title'
  | 'head'
  | 'rule'
  | 'accent'
  | 'key'
  | 'good'
  | 'warn'
  | 'bad'
  | 'busy'
  | 'info'
  | 'bar'
  | 'spark'
  | 'brand'
  | 'banner'
  | 'selected'
  | 'marked';

export type Span = Readonly<{ text: string; style: Style }>;
/** One row of a pane: spans that together are as wide as the pane. */
export type Line = readonly Span[];

/** A span of text that is already safe to draw. */
export const span = (text: string, style: Style = 'text'): Span => ({ text, style });
/** A span of text from outside. */
export const outside = (text: string, style: Style = 'text'): Span => ({ text: plainText(text), style });

export function lineWidth(line: Line): number {
  let width = 0;
  for (const { text } of line) width += cellWidth(text);
  return width;
}

/** The cells `from` to `to` of a line. */
export function sliceLine(line: Line, from: number, to: number): Line {
  const out: Span[] = [];
  let at = 0;
  for (const { text, style } of line) {
    const width = cellWidth(text);
    if (at + width > from && at < to) {
      const part = sliceCells(text, Math.max(0, from - at), Math.min(width, to - at));
      if (part !== '') out.push({ text: part, style });
    }
    at += width;
    if (at >= to) break;
  }
  return out;
}

/** The line in exactly `width` cells: cut with a `~`, or padded. */
export function fitLine(line: Line, width: number): Line {
  const cells = lineWidth(line);
  if (cells === width) return line;
  if (cells < width) return [...line, span(' '.repeat(width - cells))];
  if (width <= 0) return [];
  const cut = sliceLine(line, 0, width - 1);
  return [...cut, span(`${' '.repeat(Math.max(0, width - 1 - lineWidth(cut)))}~`, cut.at(-1)?.style ?? 'text')];
}

/** `left` and `right` at the two ends of `width` cells; the right part goes first when there is no room for both. */
export function spread(left: Line, right: Line, width: number): Line {
  const room = width - lineWidth(right);
  if (room < 0) return fitLine(left, width);
  return [...fitLine(left, room), ...right];
}

/** Exactly `height` lines of exactly `width` cells. */
export function block(lines: readonly Line[], width: number, height: number): Line[] {
  const out: Line[] = [];
  for (let row = 0; row < height; row += 1) out.push(fitLine(lines[row] ?? [], width));
  return out;
}

/** Draws `top` over `under` with its left upper corner at column `x`, row `y`. Neither is changed. */
export function drawOver(under: readonly Line[], top: readonly Line[], x: number, y: number): Line[] {
  return under.map((line, row) => {
    const drawn = top[row - y];
    if (drawn === undefined) return line;
    const width = lineWidth(line);
    const end = x + lineWidth(drawn);
    return [...sliceLine(line, 0, x), ...drawn, ...sliceLine(line, end, width)];
  });
}

/** A text with one of its words marked as what is wrong. */
export function marked(text: string, wrong: string | null): Line {
  const word = wrong === null ? '' : plainText(wrong);
  const at = word === '' ? -1 : ` ${text} `.indexOf(` ${word} `);
  if (at === -1) return [span(text)];
  return [span(text.slice(0, at)), span(word, 'bad'), span(text.slice(at + word.length))];
}

/** A whole line in one style, exactly `width` cells. */
export const styled = (text: string, style: Style, width: number): Line => [span(fitText(text, width), style)];

export const textOf = (line: Line): string => line.map(({ text }) => text).join('');
