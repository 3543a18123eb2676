import type { ReservationView, UpstreamView } from '../../fleet/app.ts';
import { barParts, cellWidth, fitId, fitText, money, shortAge } from '../format.ts';
import { fitLine, type Line, outside, type Span, type Style, span, textOf } from '../line.ts';
import { isBlocked, keyFor, type View } from '../view.ts';
import { type Pane, scrollTo } from './pane.ts';

const stateStyles: Readonly<Record<ReservationView['state'], Style>> = {
  renting: 'busy',
  active: 'good',
  partial: 'warn',
  releasing: 'busy',
  ended: 'dim',
  failed: 'bad',
};

/** What the pane shows: newest first, those that are over at the end. */
export function shownReservations(view: View): readonly ReservationView[] {
  const over = (item: ReservationView) => (item.state === 'ended' || item.state === 'failed' ? 1 : 0);
  return [...view.snapshot.reservations].sort((a, b) => over(a) - over(b) || b.createdAt - a.createdAt);
}

/** What was asked for and how far it is. */
export const reservationsPane: Pane = {
  id: 'reservations',
  title: 'RESERVATIONS',
  letter: 'V',
  length: (view) => view.snapshot.reservations.length,
  items: {
    at: (view, row) => shownReservations(view)[row]?.id,
    rowOf: (view, id) => shownReservations(view).findIndex((item) => item.id === id),
  },
  above: (view) => (view.snapshot.cost.maxUsdPerHour === null ? 0 : 1),
  heading: (view) => ({
    left: '',
    right:
      view.snapshot.foreign.length > 0
        ? `${view.snapshot.foreign.length} not ours`
        : isBlocked(view)
          ? ''
          : `${keyFor(view, 'reserve', 'r')} reserves`,
  }),
  tab: (view) => {
    const open = view.snapshot.reservations.filter((item) => item.state !== 'ended' && item.state !== 'failed');
    return { text: String(open.length), alarm: open.some((item) => item.state === 'partial') };
  },
  body: (view, width, height, focused) => {
    const items = shownReservations(view);
    const lines: Line[] = [];
    const { cost } = view.snapshot;
    if (cost.maxUsdPerHour !== null && height >= 3) {
      const used = cost.maxUsdPerHour > 0 ? cost.usdPerHour / cost.maxUsdPerHour : 1;
      const [filled, empty] = barParts(used, 16, view.glyphs);
      lines.push([
        span('  limit ', 'dim'),
        span(`${money(cost.usdPerHour)} of ${money(cost.maxUsdPerHour)}/h `),
        span(filled, used > 0.9 ? 'bad' : 'bar'),
        span(empty, 'rule'),
      ]);
    }
    if (items.length === 0) {
      return [
        ...lines,
        [span('  None. ', 'dim'), span(keyFor(view, 'reserve', 'r'), 'key'), span(' reserves GPUs.', 'dim')],
      ];
    }
    const room = height - lines.length;
    const idWidth = Math.min(14, Math.max(...items.map((item) => cellWidth(item.id))));
    const byId = new Map(view.snapshot.upstreams.map((row) => [row.id, row]));
    const first = scrollTo(focused ? view.cursors.reservations : 0, items.length, room, view.offsets.reservations);
    view.offsets.reservations = first;
    view.pages.reservations = room;
    for (const [index, item] of items.slice(first, first + room).entries()) {
      const here = focused && first + index === view.cursors.reservations;
      const spans = reservationRow(item, view, byId, idWidth, here, width);
      lines.push(here ? [span(textOf(fitLine(spans, width)), 'selected')] : spans);
    }
    return lines;
  },
};

function reservationRow(
  item: ReservationView,
  view: View,
  byId: ReadonlyMap<string, UpstreamView>,
  idWidth: number,
  here: boolean,
  width: number,
): Span[] {
  const members = item.instances.map((id) => byId.get(id)).filter((row) => row !== undefined);
  const ready = members.filter((row) => row.eligible).length;
  const booting = members.filter((row) => ['RESERVING', 'BOOT', 'PROBE'].includes(row.state)).length;
  // Cursor, gaps, state, price and age take 24 cells: what remains is for the detail.
  const room = Math.max(7, Math.min(16, width - idWidth - 24));
  const up = `${ready}/${item.instances.length} up`;
  const detail =
    item.state === 'renting'
      ? `${item.instances.length} of ${item.requested}`
      : booting > 0 && room >= 14
        ? `${up}, ${booting} boot`
        : up;
  const failed = item.errors.length > 0 && booting === 0 && ready === 0 ? item.errors[0] : undefined;
  return [
    span(here ? view.glyphs.cursor : ' ', 'key'),
    span(' '),
    outside(fitId(item.id, idWidth), 'strong'),
    span(' '),
    span(fitText(item.state, 7), stateStyles[item.state]),
    span(' '),
    outside(fitText(room < 12 && failed !== undefined ? failed : detail, room), booting > 0 ? 'busy' : 'text'),
    span(fitText(item.usdPerHour > 0 ? `${money(item.usdPerHour)}/h` : '', 8, 'right')),
    span(` ${fitText(shortAge(view.now - item.createdAt), 3, 'right')}`, 'dim'),
    ...(room < 12 || failed === undefined ? [] : [outside(`  ${failed}`, 'warn')]),
  ];
}
