import { counted } from '../../core/words.ts';
import { type Command, keyName } from '../commands.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { fitText, wrap } from '../format.ts';
import { fitLine, type Line, span } from '../line.ts';
import type { View } from '../view.ts';
import { createTextField } from './text-field.ts';

const scopeTitles: Readonly<Record<Command['scope'], string>> = {
  global: 'Everywhere',
  list: 'Lists',
  instances: 'Instances',
  providers: 'Providers',
  strategy: 'Strategy',
  reservations: 'Reservations',
  events: 'Events',
};

/** Cells from which on there are two columns. */
const twoColumns = 110;

/** Every command with its keys, searchable; what cannot be done now says why. */
export function createHelp(dashboard: Dashboard): Overlay {
  const search = createTextField();
  let searching = false;
  let top = 0;
  const states = 'states: BOOT PROBE OK SLOW PROBATION BACKOFF DOWN OUTBID STOPPED FAILED DRAIN';

  /** The commands of each place under its heading; a title that is too long goes on below, a reason is cut. */
  const groups = (width: number, keyCells: number): Line[][] => {
    const wanted = search.text.trim().toLowerCase();
    const found = new Map<Command['scope'], Line[]>();
    for (const command of dashboard.commands) {
      if (command.keys.length === 0) continue;
      const keys = command.keys.map(keyName).join(' ');
      const words = `${command.title} ${keys} ${command.id} ${command.also ?? ''}`;
      if (wanted !== '' && !words.toLowerCase().includes(wanted)) continue;
      const why = (command.changes ? dashboard.refusal() : null) ?? command.why?.(dashboard) ?? null;
      const rows = wrap(command.title, width - keyCells - 3).map(
        (text, row): Line => [
          span(`  ${fitText(row === 0 ? keys : '', keyCells)} `, why === null ? 'key' : 'dim'),
          span(text, why === null ? 'text' : 'dim'),
        ],
      );
      const last = rows.at(-1);
      if (why !== null && last !== undefined)
        rows[rows.length - 1] = fitLine([...last, span(`  (${why})`, 'dim')], width);
      const group = found.get(command.scope) ?? [[span(scopeTitles[command.scope], 'title')]];
      found.set(command.scope, [...group, ...rows]);
    }
    return [...found.values()];
  };

  /** One below the other with a line between, where all of them fit. */
  const joined = (parts: readonly (readonly Line[])[], most = Number.POSITIVE_INFINITY): readonly Line[] => {
    const spaced = parts.flatMap((part, index) => (index === 0 ? part : [[], ...part]));
    return spaced.length <= most ? spaced : parts.flat();
  };

  function entries(view: View, width: number, room: number): readonly Line[] {
    if (width < twoColumns) {
      const all = joined(groups(width, 16));
      return all.length > 0 ? all : [[span(`  no key does "${search.text}"`, 'warn')]];
    }
    const column = Math.floor((width - 3) / 2);
    const parts = groups(column, 13);
    if (parts.length === 0) return [[span(`  no key does "${search.text}"`, 'warn')]];
    const size = (some: readonly (readonly Line[])[]) => some.reduce((sum, part) => sum + part.length, 0);
    const heights = parts.map((_part, at) => Math.max(size(parts.slice(0, at + 1)), size(parts.slice(at + 1))));
    const split = heights.indexOf(Math.min(...heights)) + 1;
    const left = joined(parts.slice(0, split), room);
    const right = joined(parts.slice(split), room);
    return Array.from({ length: Math.max(left.length, right.length) }, (_, row) => [
      ...fitLine(left[row] ?? [], column),
      span(` ${view.glyphs.side} `, 'rule'),
      ...(right[row] ?? []),
    ]);
  }

  /** Lines that were shown last. */
  let page = 10;
  return {
    title: 'HELP',
    hints: [
      ['/', 'search'],
      ['j k', 'scroll'],
      ['esc', 'close'],
    ],
    size: (columns, rows) =>
      columns >= 120
        ? { width: Math.min(150, columns - 2), height: rows - 2 }
        : { width: Math.min(96, columns - 2), height: Math.max(8, rows - 4) },
    lines(view, width, height) {
      const head: readonly Line[] =
        searching || search.text !== ''
          ? [[span('/', 'key'), span(search.text), span(searching ? '_' : '', 'accent')]]
          : wrap(`/ searches; ${states}`, width - 2).map(
              (text, row): Line =>
                row === 0 ? [span('/', 'key'), span(text.slice(1), 'dim')] : [span(`  ${text}`, 'dim')],
            );
      const most = height - head.length;
      const all = entries(view, width, most);
      // The last line says how much is below, where not all of it fits.
      const room = all.length <= most ? most : most - 1;
      page = Math.max(1, room - 1);
      top = Math.max(0, Math.min(top, all.length - room));
      const more = all.length - top - room;
      return [
        ...head,
        ...all.slice(top, top + room),
        ...(more > 0 ? [[span(`${counted(more, 'more line')}: j or PgDn`, 'dim')] as Line] : []),
      ];
    },
    key(key) {
      if (searching) {
        if (key === 'escape') {
          search.set('');
          searching = false;
        } else if (key === 'enter') searching = false;
        else if (!search.key(key)) return key !== 'ctrl-c';
        top = 0;
        return true;
      }
      if (key === '/') searching = true;
      else if (key === 'j' || key === 'down') top += 1;
      else if (key === 'k' || key === 'up') top = Math.max(0, top - 1);
      else if (key === 'pagedown' || key === 'space') top += page;
      else if (key === 'pageup') top = Math.max(0, top - page);
      else if (key === 'g' || key === 'home') top = 0;
      else if (key === 'G' || key === 'end') top = Number.MAX_SAFE_INTEGER;
      else if (key === '?') dashboard.close();
      else return false;
      return true;
    },
    paste: (text) => {
      if (searching) search.paste(text);
    },
  };
}
