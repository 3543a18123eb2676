import type { FleetEvent } from '../../fleet/app.ts';
import { clockTime, fitId, fitText } from '../format.ts';
import { fitLine, type Line, outside, type Span, type Style, span, textOf } from '../line.ts';
import { keyFor } from '../view.ts';
import { type Pane, scrollTo } from './pane.ts';

const levelStyles: Readonly<Record<FleetEvent['level'], Style>> = {
  info: 'info',
  ok: 'good',
  warn: 'warn',
  error: 'bad',
};

/** What happened, newest first. */
export const eventsPane: Pane = {
  id: 'events',
  title: 'EVENTS',
  letter: 'E',
  length: (view) => view.events.length,
  items: {
    at: (view, row) => {
      const event = view.events[view.events.length - 1 - row];
      return event === undefined ? undefined : `${event.id} ${event.at}`;
    },
    rowOf: (view, item) => {
      const at = view.events.findLastIndex((event) => `${event.id} ${event.at}` === item);
      return at === -1 ? -1 : view.events.length - 1 - at;
    },
    newestFirst: true,
  },
  heading: (view) => ({ left: '', right: view.eventLevel === 'all' ? 'all' : 'warnings and errors' }),
  tab: (view) => {
    const { warnings, errors } = view.unseen;
    const bad = warnings + errors;
    return { text: bad > 0 ? `${bad}W` : String(view.events.length), alarm: errors > 0 };
  },
  body: (view, width, height, focused) => {
    if (view.events.length === 0) {
      return [
        [
          span(
            view.eventLevel === 'all'
              ? '  Nothing has happened yet.'
              : `  No warnings. ${keyFor(view, 'level', 'v')} shows all events.`,
            'dim',
          ),
        ],
      ];
    }
    const cursor = view.cursors.events;
    const first = focused ? scrollTo(cursor, view.events.length, height, view.offsets.events) : 0;
    view.offsets.events = first;
    view.pages.events = height;
    const lines: Line[] = [];
    for (let row = 0; row < height; row += 1) {
      const event = view.events[view.events.length - 1 - first - row];
      if (!event) break;
      const here = focused && first + row === cursor;
      const spans = eventRow(event, width, here ? view.glyphs.cursor : ' ');
      lines.push(here ? [span(textOf(fitLine(spans, width)), 'selected')] : spans);
    }
    return lines;
  },
};

export function eventRow(event: FleetEvent, width: number, marker = ' '): Span[] {
  const subject = width >= 120 ? 24 : width >= 110 ? 20 : width >= 70 ? 16 : 13;
  const { about, message } = eventWords(event);
  return [
    span(marker, 'key'),
    span(`${clockTime(event.at)} `, 'dim'),
    span(fitText(event.level.toUpperCase(), 5), levelStyles[event.level]),
    span(' '),
    outside(fitId(about, subject), 'strong'),
    span(' '),
    outside(message),
  ];
}

/** What an event is about and what it says: a message that begins with its subject does not repeat it. */
export function eventWords(event: FleetEvent): Readonly<{ about: string; message: string }> {
  const { message } = event;
  const about = event.subject ?? event.kind;
  const said = message === about || /^[: ]/.test(message.slice(about.length)) ? about : '';
  const rest = message.startsWith(said) ? message.slice(said.length).replace(/^:? /, '') : message;
  return { about, message: rest === '' ? message : rest };
}
