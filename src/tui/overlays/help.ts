import { type Command, keyName } from '../commands.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { fitText } from '../format.ts';
import { type Line, span } from '../line.ts';
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

/** Every command with its keys, searchable; what cannot be done now says why. */
export function createHelp(dashboard: Dashboard): Overlay {
  const search = createTextField();
  let searching = false;
  let top = 0;

  const entries = (): Line[] => {
    const wanted = search.text.trim().toLowerCase();
    const lines: Line[] = [];
    let scope: string | null = null;
    for (const command of dashboard.commands) {
      if (command.keys.length === 0) continue;
      const keys = command.keys.map(keyName).join(' ');
      if (wanted !== '' && !`${command.title} ${keys} ${command.id}`.toLowerCase().includes(wanted)) continue;
      if (command.scope !== scope) {
        if (lines.length > 0) lines.push([]);
        lines.push([span(scopeTitles[command.scope], 'title')]);
        scope = command.scope;
      }
      const why = (command.changes ? dashboard.refusal() : null) ?? command.why?.(dashboard) ?? null;
      lines.push([
        span(`  ${fitText(keys, 16)} `, why === null ? 'key' : 'dim'),
        span(command.title, why === null ? 'text' : 'dim'),
        ...(why === null ? [] : [span(`  (${why})`, 'dim')]),
      ]);
    }
    if (lines.length === 0) lines.push([span(`  no key does "${search.text}"`, 'warn')]);
    return lines;
  };

  /** Lines that were shown last. */
  let page = 10;
  return {
    title: 'HELP',
    hints: [
      ['/', 'search'],
      ['j k', 'scroll'],
      ['esc', 'close'],
    ],
    size: (columns, rows) => ({ width: Math.min(96, columns - 2), height: Math.max(8, rows - 4) }),
    lines(_view, _width, height) {
      const all = entries();
      const room = height - 2;
      page = Math.max(1, room - 1);
      top = Math.max(0, Math.min(top, all.length - room));
      const more = all.length - top - room;
      return [
        searching || search.text !== ''
          ? [span('/', 'key'), span(search.text), span(searching ? '_' : '', 'accent')]
          : [
              span('/', 'key'),
              span(' searches; states: ', 'dim'),
              span('BOOT PROBE OK SLOW PROBATION BACKOFF DOWN OUTBID STOPPED FAILED DRAIN', 'dim'),
            ],
        ...all.slice(top, top + room),
        ...(more > 0 ? [[span(`${more} more lines: j or PgDn`, 'dim')] as Line] : []),
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
