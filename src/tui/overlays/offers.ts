import { randomUUID } from 'node:crypto';
import type { Offer, OfferFilter, ProviderName } from '../../core/domain.ts';
import { counted } from '../../core/words.ts';
import type { OffersAnswer } from '../../fleet/app.ts';
import { gpuLabel } from '../columns.ts';
import { type Dashboard, type Overlay, reasonOf } from '../dashboard.ts';
import { parseOfferFilter } from '../filter.ts';
import { age, fitId, fitText, money } from '../format.ts';
import { fitLine, type Line, marked, outside, span, textOf } from '../line.ts';
import { scrollTo } from '../panes/pane.ts';
import { acceptedRise, type OpenRental } from '../rentals.ts';
import { createConfirmation } from './confirmation.ts';
import { createReserveDialog } from './reserve.ts';
import { createTextField } from './text-field.ts';

type Order = Readonly<{ title: string; compare(a: Offer, b: Offer): number }>;
const cheapest: Order = {
  title: 'cheapest first',
  compare: (a, b) => a.usdPerHour - b.usdPerHour || a.id.localeCompare(b.id),
};

/** What `o` goes through. */
const orders: readonly Order[] = [
  cheapest,
  { title: 'most VRAM first', compare: (a, b) => b.vramGb - a.vramGb || cheapest.compare(a, b) },
  {
    title: 'most reliable first',
    compare: (a, b) => (b.reliability ?? -1) - (a.reliability ?? -1) || cheapest.compare(a, b),
  },
];

/** What could be rented now, with a filter; Enter rents one, `r` opens the form for several. */
export function createOffersPage(dashboard: Dashboard, provider: ProviderName | undefined): Overlay {
  const filter = createTextField();
  let typing = false;
  let answer: OffersAnswer | null = null;
  let failed: string | null = null;
  let askedAt = 0;
  let cursor = 0;
  let first = 0;
  /** Offers that were shown last. */
  let page = 1;
  let asking: AbortController | null = null;
  let only = provider;
  let order = cheapest;

  const load = () => {
    asking?.abort();
    const controller = new AbortController();
    asking = controller;
    const wanted: OfferFilter = only === undefined ? {} : { provider: only };
    dashboard.app
      .offers(wanted, controller.signal)
      .then((value) => {
        if (controller.signal.aborted) return;
        answer = value;
        failed = null;
        askedAt = dashboard.now();
        dashboard.changed();
      })
      .catch((error: unknown) => {
        if (controller.signal.aborted) return;
        failed = reasonOf(error);
        dashboard.changed();
      });
  };
  load();

  let query = parseOfferFilter('');
  const filterBy = () => {
    query = parseOfferFilter(filter.text);
  };
  const shown = (): readonly Offer[] =>
    [...(answer?.offers ?? [])].filter((offer) => query.matches(offer)).sort(order.compare);

  const rent = (offer: Offer) => {
    const prepaid = offer.prepaidHours === null ? null : offer.usdPerHour * offer.prepaidHours;
    dashboard.open(
      createConfirmation(dashboard, {
        title: 'RENT',
        body: (view) => [
          [
            span('Rent '),
            outside(gpuLabel(offer), 'strong'),
            span(' from '),
            outside(offer.provider, 'accent'),
            outside(` (${offer.location ?? 'no location'})`, 'dim'),
          ],
          [],
          [
            span('  costs '),
            span(`${money(offer.usdPerHour)}/h`, 'strong'),
            span(`, about ${money(offer.usdPerHour * 24)} a day`, 'dim'),
            span(prepaid === null ? '' : `; ${money(prepaid)} are paid at once`, 'warn'),
          ],
          [
            span('  fleet then '),
            span(`${money(view.snapshot.cost.usdPerHour + offer.usdPerHour)}/h`),
            span(
              view.snapshot.cost.maxUsdPerHour === null
                ? ''
                : ` of ${money(view.snapshot.cost.maxUsdPerHour)}/h allowed`,
              'dim',
            ),
          ],
        ],
        choices: [
          {
            label: `Rent it for ${money(offer.usdPerHour)}/h`,
            cli: `gpuproxy rent ${offer.provider} ${offer.id}`,
            run: () => {
              const rental: OpenRental = { key: randomUUID(), what: `1 instance of ${gpuLabel(offer)}` };
              void dashboard.act(
                'rent',
                async () => {
                  const item = await dashboard.rentals.run(rental, () =>
                    dashboard.app.rentOffer(
                      offer.provider,
                      offer.id,
                      {},
                      { by: 'tui', idempotencyKey: rental.key, maxUsdPerHour: offer.usdPerHour * acceptedRise },
                    ),
                  );
                  return `${item.instanceId} rented: ${gpuLabel(item)} for ${money(item.usdPerHour)}/h`;
                },
                `gpuproxy rent ${offer.provider} ${offer.id}`,
              );
            },
          },
          { label: 'Cancel', run: null },
        ],
        first: 1,
        typed: null,
      }),
    );
  };

  return {
    title: 'OFFERS',
    get hints() {
      return [
        ...(dashboard.refusal() === null
          ? ([
              ['enter', 'rent one'],
              ['r', 'reserve several'],
            ] as const)
          : []),
        ['/', 'filter'],
        ['o', 'sort'],
        ['p', 'provider'],
        ['R', 'ask again'],
        ['esc', 'back'],
      ] as const;
    },
    size: () => 'page',
    page: true,
    lines(view, width, height) {
      const list = shown();
      cursor = Math.max(0, Math.min(cursor, list.length - 1));
      const lines: Line[] = [
        [
          span(' /', 'key'),
          ...marked(filter.text, query.wrong),
          span(typing ? '_' : filter.text === '' ? ' text, prov:vast, vram>=48, $<0.5' : '', typing ? 'accent' : 'dim'),
          span(query.error === null ? '' : `  ${query.error}`, 'warn'),
          span(`   ${list.length} of ${counted(answer?.offers.length ?? 0, 'offer')}`, 'strong'),
          span(`${only === undefined ? ', all providers' : `, ${only}`}, ${order.title}`, 'dim'),
          span(askedAt === 0 ? '' : `, ${age(view.now - askedAt)} old`, 'dim'),
        ],
      ];
      for (const error of answer?.errors ?? []) {
        const old = error.staleMs === null ? '' : `; shown data are ${age(error.staleMs)} old`;
        lines.push([outside(` ${error.provider}: ${error.message}${old}`, 'warn')]);
      }
      if (answer !== null && answer.more.length > 0) {
        lines.push([outside(` ${answer.more.join(' and ')} may have more than could be read`, 'dim')]);
      }
      if (failed !== null) lines.push([outside(` ${failed}  (R asks again)`, 'bad')]);
      else if (answer === null) lines.push([span(' asking the providers', 'busy')]);
      else if (list.length === 0) {
        lines.push([span(answer.offers.length === 0 ? ' Nobody offers anything now.' : ' nothing matches', 'dim')]);
      } else {
        const wide = width >= 100;
        lines.push([
          span(
            `  ${fitText('PROVIDER', 9)}${fitText('OFFER', 14)}${fitText('GPU', 18)}${fitText('VRAM', 6, 'right')}${fitText('$/H', 8, 'right')}${fitText('$/GPU', 8, 'right')}${fitText('REL', 7, 'right')}${wide ? `${fitText('STOCK', 7, 'right')}  LOCATION` : ''}`,
            'head',
          ),
        ]);
        const room = height - lines.length;
        page = Math.max(1, room);
        first = scrollTo(cursor, list.length, room, first);
        for (const [index, offer] of list.slice(first, first + room).entries()) {
          const here = first + index === cursor;
          const line: Line = [
            span(here ? `${view.glyphs.cursor} ` : '  ', 'key'),
            outside(fitText(offer.provider, 9), 'dim'),
            outside(fitId(offer.id, 13)),
            span(' '),
            outside(fitText(gpuLabel(offer), 18), 'strong'),
            span(fitText(`${offer.vramGb}GB`, 6, 'right')),
            span(fitText(money(offer.usdPerHour), 8, 'right'), 'strong'),
            span(fitText(money(offer.usdPerHour / Math.max(1, offer.gpuCount)), 8, 'right')),
            span(
              fitText(offer.reliability === null ? '-' : `${(offer.reliability * 100).toFixed(1)}%`, 7, 'right'),
              'dim',
            ),
            ...(wide
              ? [
                  span(fitText(String(offer.available), 7, 'right'), 'dim'),
                  outside(`  ${offer.location ?? '-'}`, 'dim'),
                ]
              : []),
            span(offer.verified === false ? '  unverified' : '', 'warn'),
          ];
          lines.push(here ? [span(textOf(fitLine(line, width)), 'selected')] : line);
        }
      }
      return lines;
    },
    key(key) {
      if (typing) {
        if (key === 'enter') typing = query.error !== null;
        else if (key === 'escape') {
          typing = false;
          filter.set('');
          filterBy();
        } else {
          const taken = filter.key(key);
          if (taken) filterBy();
          return taken || key !== 'ctrl-c';
        }
        return true;
      }
      if (key === '/') typing = true;
      else if (key === 'j' || key === 'down') cursor += 1;
      else if (key === 'k' || key === 'up') cursor = Math.max(0, cursor - 1);
      else if (key === 'pagedown') {
        cursor += page;
        first += page;
      } else if (key === 'pageup') {
        cursor = Math.max(0, cursor - page);
        first = Math.max(0, first - page);
      } else if (key === 'g' || key === 'home') cursor = 0;
      else if (key === 'G' || key === 'end') cursor = Number.MAX_SAFE_INTEGER;
      else if (key === 'o') order = orders[(orders.indexOf(order) + 1) % orders.length] ?? cheapest;
      else if (key === 'R') load();
      else if (key === 'p') {
        const names = [undefined, ...dashboard.view().snapshot.providers.map((item) => item.name)];
        only = names[(names.indexOf(only) + 1) % names.length];
        load();
      } else if (key === 'enter' || key === 'r') {
        const why = dashboard.refusal();
        const offer = shown()[cursor];
        if (why !== null) dashboard.toast('warn', `${key}: ${why}`, null, () => dashboard.refusal() === why);
        else if (key === 'enter' && offer) rent(offer);
        else if (key === 'r') {
          dashboard.open(
            createReserveDialog(dashboard, offer ? { gpuModel: offer.gpuModel, provider: offer.provider } : {}),
          );
        }
      } else return false;
      return true;
    },
    paste: (text) => {
      if (!typing) return;
      filter.paste(text);
      filterBy();
    },
    closed: () => asking?.abort(),
  };
}
