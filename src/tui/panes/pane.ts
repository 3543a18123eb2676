import type { PaneId } from '../layout.ts';
import type { Line } from '../line.ts';
import type { View } from '../view.ts';

/** A part of the screen. Everything in it is a pure function of the view; rows are exactly as wide as asked for. */
export type Pane = Readonly<{
  id: PaneId;
  title: string;
  /** Key that focuses it. */
  letter: string;
  /** Rows that the cursor can stand on. */
  length(view: View): number;
  /** Names of what stands in the rows, which stay when rows move: the cursor follows its item. */
  items?: Readonly<{
    at(view: View, row: number): string | undefined;
    /** -1: it is not there. */
    rowOf(view: View, item: string): number;
    /** On the first row the cursor stays there, whatever comes. */
    newestFirst?: boolean;
  }>;
  /** Lines of the body above the first row of the list; 0 when absent. */
  above?(view: View): number;
  /** What stands in the title rule after the title and at its right end. */
  heading(view: View, width: number): Readonly<{ left: string; right: string }>;
  /** What the tab of this pane says when another one is shown: a count, an alarm. */
  tab(view: View): Readonly<{ text: string; alarm: boolean }>;
  body(view: View, width: number, height: number, focused: boolean): readonly Line[];
}>;

/** First row to show so that the cursor stays visible and the picture moves as little as possible. */
export function scrollTo(cursor: number, length: number, height: number, before: number): number {
  if (height <= 0) return 0;
  let first = Math.min(before, Math.max(0, length - height));
  if (cursor < first) first = cursor;
  if (cursor >= first + height) first = cursor - height + 1;
  return Math.max(0, first);
}
