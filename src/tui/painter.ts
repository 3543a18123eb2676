import { cellWidth } from './format.ts';
import type { Line, Span } from './line.ts';
import { type ColorLevel, paint, type Theme } from './theme.ts';

/** Where rows are written to; a terminal that does not keep up says so with `writableNeedDrain`. */
export type Paper = Readonly<{
  write(text: string): unknown;
  writableNeedDrain?: boolean;
  once?(event: 'drain', listener: () => void): unknown;
}>;

const beginUpdate = '\u001b[?2026h';
const endUpdate = '\u001b[?2026l';

/**
 * Writes rows straight to the terminal: only those pieces that differ from what stands there, in one synchronised
 * update. The renderer composes the whole screen for every change, which costs ten times as much.
 */
export interface Painter {
  show(lines: readonly Line[], theme: Theme): void;
  /** What stands on the screen is not known any more: the next `show` writes everything. */
  forget(): void;
  /** Writes nothing from now on, until `resume`. */
  pause(): void;
  resume(): void;
}

export function createPainter(paper: Paper, color: ColorLevel): Painter {
  let before: readonly Line[] = [];
  let beforeTheme: Theme | null = null;
  let paused = false;
  let waiting: { lines: readonly Line[]; theme: Theme } | null = null;

  const show: Painter['show'] = (lines, theme) => {
    if (paused) return;
    if (paper.writableNeedDrain) {
      // A slow terminal gets the newest picture when it is ready, not all of them.
      if (waiting === null) {
        paper.once?.('drain', () => {
          const next = waiting;
          waiting = null;
          if (next !== null) show(next.lines, next.theme);
        });
      }
      waiting = { lines, theme };
      return;
    }
    const all = theme !== beforeTheme || lines.length !== before.length;
    let out = '';
    for (const [row, line] of lines.entries()) {
      const old = before[row];
      if (!all && old !== undefined) out += difference(old, line, row, theme, color);
      else out += `\u001b[${row + 1};1H${paint(line, theme, color)}\u001b[K`;
    }
    before = lines;
    beforeTheme = theme;
    if (out !== '') paper.write(`${beginUpdate}\u001b7${out}\u001b[0m\u001b8${endUpdate}`);
  };

  return {
    show,
    forget() {
      before = [];
      beforeTheme = null;
    },
    pause() {
      paused = true;
    },
    resume() {
      paused = false;
      before = [];
      beforeTheme = null;
    },
  };
}

const same = (a: Span | undefined, b: Span | undefined): boolean =>
  a !== undefined && b !== undefined && a.text === b.text && a.style === b.style;

/** What must be written so that `old` becomes `line`: from the first span that differs to the last one. */
function difference(old: Line, line: Line, row: number, theme: Theme, color: ColorLevel): string {
  let start = 0;
  let column = 0;
  while (start < line.length && same(old[start], line[start])) {
    column += cellWidth(line[start]?.text ?? '');
    start += 1;
  }
  if (start === line.length && start === old.length) return '';
  let end = line.length;
  let oldEnd = old.length;
  while (end > start && oldEnd > start && same(old[oldEnd - 1], line[end - 1])) {
    end -= 1;
    oldEnd -= 1;
  }
  return `\u001b[${row + 1};${column + 1}H${paint(line.slice(start, end), theme, color)}`;
}
