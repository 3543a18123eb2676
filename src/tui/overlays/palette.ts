import { type Command, keyName } from '../commands.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { fitText } from '../format.ts';
import { fitLine, type Line, span, textOf } from '../line.ts';
import { createDetailPage } from './detail.ts';
import { createTextField } from './text-field.ts';

/** `lb-strategy` and `LAST RT` alike. */
const wordsOf = (text: string): readonly string[] => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];

/** Is `query` made of the beginnings of some words, in their order? One letter of a word says too little. */
function abbreviates(query: string, words: readonly string[]): boolean {
  if (query === '') return true;
  return words.some((word, at) => {
    for (let taken = 2; taken <= query.length && word.startsWith(query.slice(0, taken)); taken += 1) {
      if (abbreviates(query.slice(taken), words.slice(at + 1))) return true;
    }
    return false;
  });
}

/** How well a command fits what was typed, 0 best: the whole of its id or title, their beginning, words, beginnings of words. */
function fitOf(text: string, typed: readonly string[], { id, title, also = '' }: Command): number | null {
  // By its signs too: `Weight + 1` is not `Weight - 1`.
  if ([id, title].some((name) => name.toLowerCase() === text.trim().toLowerCase())) return 0;
  const names = [wordsOf(id), wordsOf(title)];
  if (names.some((words) => words.join(' ').startsWith(typed.join(' ')))) return 1;
  const known = [...names.flat(), ...wordsOf(also)];
  if (typed.every((word) => known.includes(word))) return 2;
  if (typed.every((word) => known.some((other) => other.startsWith(word)))) return 3;
  return names.some((words) => abbreviates(typed.join(''), words)) ? 4 : null;
}

/** The commands that somebody who types this may mean, the likeliest first. */
export function commandsFor(text: string, commands: readonly Command[]): readonly Command[] {
  const typed = wordsOf(text);
  if (typed.length === 0) return [];
  return commands
    .map((command) => ({ command, fit: fitOf(text, typed, command) }))
    .filter(({ fit }) => fit !== null)
    .sort((a, b) => (a.fit ?? 0) - (b.fit ?? 0))
    .map(({ command }) => command);
}

/** Search over all commands; shows the command line that does the same. */
export function createPalette(dashboard: Dashboard): Overlay {
  const field = createTextField();
  let cursor = 0;
  /** Commands that were shown last. */
  let page = 1;
  const focus = dashboard.ui.focus;

  const found = (): readonly Command[] => {
    const usable = dashboard.commands.filter((command) => command.id !== 'palette');
    if (field.text.trim() === '') return usable;
    return [...commandsFor(field.text, usable), ...instancesNamed(field.text.trim())];
  };

  /** An id, or a part of it, leads to the page of the instance. */
  const instancesNamed = (text: string): readonly Command[] =>
    text.length < 2
      ? []
      : dashboard
          .view()
          .snapshot.upstreams.filter((row) => row.id.toLowerCase().includes(text.toLowerCase()))
          .slice(0, 8)
          .map((row) => ({
            id: `instance-${row.id}`,
            title: `Details of ${row.id}`,
            keys: [],
            scope: 'instances',
            run: (d) => {
              d.update({ focus: 'instances', selectedId: row.id });
              d.open(createDetailPage(d, row.id));
            },
            cli: () => `gpuproxy fleet ${row.id}`,
          }));

  return {
    title: 'COMMANDS',
    hints: [
      ['enter', 'run'],
      ['ctrl-y', 'copy as CLI'],
      ['up down', 'choose'],
      ['esc', 'close'],
    ],
    size: (columns, rows) => ({ width: Math.min(84, columns - 2), height: Math.min(20, rows - 3) }),
    lines(view, width, height) {
      const list = found();
      cursor = Math.max(0, Math.min(cursor, list.length - 1));
      const room = height - 3;
      page = Math.max(1, room);
      const first = Math.max(0, Math.min(cursor - Math.floor(room / 2), list.length - room));
      const rows = list.slice(first, first + room).map((command, index): Line => {
        const here = first + index === cursor;
        const why = (command.changes ? dashboard.refusal() : null) ?? command.why?.(dashboard) ?? null;
        const line: Line = [
          span(here ? `${view.glyphs.cursor} ` : '  ', 'key'),
          span(fitText(keyName(command.keys[0] ?? ''), 10), why === null ? 'key' : 'dim'),
          span(command.title, why === null ? 'text' : 'dim'),
          span(why === null ? '' : `  (${why})`, 'dim'),
        ];
        return here ? [span(textOf(fitLine(line, width)), 'selected')] : line;
      });
      while (rows.length < room) rows.push([]);
      const chosen = list[cursor];
      const cli = chosen?.cli?.(dashboard) ?? null;
      return [
        [span(':', 'key'), span(field.text), span('_', 'accent')],
        ...(list.length === 0 ? [[span('  no such command', 'warn')] as Line, ...rows.slice(1)] : rows),
        [],
        cli === null ? [span('no command line for this one', 'dim')] : [span('CLI ', 'dim'), span(cli, 'accent')],
      ];
    },
    key(key) {
      if (key === 'down' || key === 'ctrl-n' || key === 'tab') cursor += 1;
      else if (key === 'up' || key === 'ctrl-p' || key === 'shift-tab') cursor = Math.max(0, cursor - 1);
      else if (key === 'ctrl-y') {
        const cli = found()[cursor]?.cli?.(dashboard) ?? null;
        if (cli === null) dashboard.toast('info', 'no command line does this');
        else dashboard.copy(cli, 'command');
      } else if (key === 'pagedown') cursor += page;
      else if (key === 'pageup') cursor = Math.max(0, cursor - page);
      else if (key === 'enter') {
        const chosen = found()[cursor];
        dashboard.close(this);
        if (!chosen) return true;
        if (chosen.scope !== 'global' && chosen.scope !== 'list' && chosen.scope !== focus) {
          dashboard.update({ focus: chosen.scope });
        }
        dashboard.run(chosen);
      } else if (field.key(key)) cursor = 0;
      else return false;
      return true;
    },
    paste(text) {
      field.paste(text);
      cursor = 0;
    },
  };
}
