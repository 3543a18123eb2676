import type { Dashboard, Overlay } from '../dashboard.ts';
import { fitLine, type Line, lineWidth, outside, span, textOf } from '../line.ts';
import type { View } from '../view.ts';
import { createTextField } from './text-field.ts';

/** Keys that were on their way when the dialog opened must not confirm it. */
const graceMs = 300;

export type Choice = Readonly<{
  label: string;
  note?: string;
  /** The command line that does the same. */
  cli?: string;
  run: (() => void) | null;
}>;

export type ConfirmationOptions = Readonly<{
  title: string;
  /** What will happen, drawn above the choices. */
  body(view: View, width: number): readonly Line[];
  choices: readonly Choice[] | ((view: View) => readonly Choice[]);
  /** The choice under the cursor at first. */
  first: number;
  /** What must be typed before a choice with an effect runs; null when Enter is enough. */
  typed: Readonly<{ word: string; prompt: string }> | null;
  /** What Ctrl-C does instead of closing: whoever presses it again means it. */
  insist?: () => void;
  width?: number;
}>;

/** A dialog that states what an action costs or loses, with a list of choices and, where it matters, a word to type. */
export function createConfirmation(dashboard: Dashboard, options: ConfirmationOptions): Overlay {
  const openedAt = dashboard.now();
  const field = createTextField('', 40);
  // What a choice says may change with what happens, their number and order never.
  const choicesOf = (view: View): readonly Choice[] =>
    typeof options.choices === 'function' ? options.choices(view) : options.choices;
  const count = choicesOf(dashboard.view()).length;
  const hasCli = choicesOf(dashboard.view()).some((choice) => choice.cli !== undefined);
  let cursor = options.first;
  let refused: string | null = null;

  const overlay: Overlay = {
    title: options.title,
    hints: [
      ['up down', 'choose'],
      ['enter', 'confirm'],
      ['esc', 'cancel'],
    ],
    size: (columns, rows) => ({
      width: Math.min(options.width ?? 78, columns - 2),
      height: Math.min(rows - 2, content(dashboard.view(), Math.min(options.width ?? 78, columns - 2) - 4).length + 2),
    }),
    lines: (view, width, height) => content(view, width, height),
    key(key) {
      if (dashboard.now() - openedAt < graceMs) {
        // What is typed at once is typed; it confirms nothing without an Enter that comes later.
        if (options.typed !== null && [...key].length === 1) field.key(key);
        return true;
      }
      refused = null;
      if (key === 'down' || key === 'tab') cursor = (cursor + 1) % count;
      else if (key === 'up' || key === 'shift-tab') cursor = (cursor + count - 1) % count;
      else if (key === 'enter') confirm();
      else if (key === 'ctrl-c' && options.insist !== undefined) options.insist();
      else if (key === 'escape' || key === 'ctrl-c') dashboard.close(overlay);
      else if (options.typed !== null) field.key(key);
      else if (key === 'y') {
        // Yes to what the dialog asks, also while Cancel is under the cursor; of several ways it is the chosen one.
        const choices = choicesOf(dashboard.view());
        const ways = choices.filter((choice) => choice.run !== null);
        if (ways.length === 1) cursor = choices.indexOf(ways[0] as Choice);
        confirm();
      } else if (key === 'n' || key === 'q') dashboard.close(overlay);
      else if (key === 'j') cursor = (cursor + 1) % count;
      else if (key === 'k') cursor = (cursor + count - 1) % count;
      return true;
    },
  };

  function confirm(): void {
    const choice = choicesOf(dashboard.view())[cursor];
    if (!choice) return;
    const why = dashboard.refusal();
    if (choice.run !== null && why !== null) {
      refused = why;
      return;
    }
    if (choice.run !== null && options.typed !== null && field.text.trim() !== options.typed.word) {
      refused = field.text === '' ? `type ${options.typed.word} first` : `"${field.text}" is not ${options.typed.word}`;
      return;
    }
    dashboard.close(overlay);
    choice.run?.();
  }

  /** What can be chosen and what must be typed is always seen: where it is low, the text above gives way. */
  function content(view: View, width: number, height = Number.POSITIVE_INFINITY): readonly Line[] {
    const choices = choicesOf(view);
    const ways = choices.filter((choice) => choice.run !== null);
    const cli = choices[cursor]?.cli ?? (ways.length === 1 ? ways[0]?.cli : undefined);
    const tellsCli = hasCli && height >= count + 8;
    const all = [...options.body(view, width), []];
    const room = height - count - 2 - (tellsCli ? 1 : 0);
    const dense = all.length > room ? all.filter((line) => line.length > 0) : all;
    const lines: Line[] =
      dense.length > room ? [...dense.slice(0, Math.max(0, room - 1)), ...(dense.slice(-1) as Line[])] : [...dense];
    for (const [index, choice] of choices.entries()) {
      const here = index === cursor;
      const line: Line = [
        span(here ? `${view.glyphs.cursor} ` : '  ', 'key'),
        span(choice.label, 'text'),
        span(choice.note === undefined ? '' : `   ${choice.note}`, 'dim'),
      ];
      lines.push(here ? [span(textOf(fitLine(line, width)), 'selected')] : line);
    }
    if (tellsCli) {
      lines.push(cli === undefined ? [] : [span('  CLI ', 'dim'), outside(cli, 'accent')]);
    }
    if (lines.length + 1 < height) lines.push([]);
    if (refused !== null) lines.push([span(refused, 'bad')]);
    else if (options.typed !== null) {
      const asked = [span(`${options.typed.prompt} `, 'warn')];
      const typed: Line = [span('[ ', 'dim'), span(field.text, 'strong'), span('_', 'accent'), span(' ] ', 'dim')];
      // What is typed is seen where the words must be cut.
      const fits = lineWidth([...asked, ...typed]) <= width;
      lines.push(fits ? [...asked, ...typed, span('  esc cancels', 'dim')] : [...typed, ...asked]);
    } else lines.push([span('enter confirms, esc cancels', 'dim')]);
    return lines;
  }

  return overlay;
}
