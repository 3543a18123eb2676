import { counted, gpuName } from '../../core/words.ts';
import type { ProviderView } from '../../fleet/app.ts';
import { age, amount, count, fitText, milliseconds, money, shortAge, wrap } from '../format.ts';
import { fitLine, type Line, outside, type Span, span, textOf } from '../line.ts';
import type { View } from '../view.ts';
import { type Pane, scrollTo } from './pane.ts';

/** Rentable instances of every provider together. */
export const totalAvailable = (view: View): number =>
  view.snapshot.providers.reduce((sum, provider) => sum + provider.available, 0);

/** `256+` when there may be more than could be read of the markets. */
const stock = (available: number, more: boolean, width = 7): string =>
  `${count(available, width - 1)}${more ? '+' : ''}`;
export const totalStock = (view: View): string =>
  stock(
    totalAvailable(view),
    view.snapshot.providers.some(({ more }) => more),
  );

/** What the marketplaces have, at what price, and how their APIs do. */
export const providersPane: Pane = {
  id: 'providers',
  title: 'PROVIDERS',
  letter: 'P',
  length: (view) => view.snapshot.providers.length,
  above: () => 1,
  heading: (view) => ({ left: '', right: `${totalStock(view)} available` }),
  tab: (view) => ({
    text: totalStock(view),
    alarm: view.snapshot.providers.some((provider) => provider.status === 'error'),
  }),
  body: (view, width, height, focused) => {
    const { providers } = view.snapshot;
    if (providers.length === 0) {
      const own = view.snapshot.upstreams.filter((row) => row.provider === 'static').length;
      const words =
        own === 0
          ? 'Set VASTAI_API_KEY or IONET_API_KEY to rent, UPSTREAMS for servers of your own.'
          : `${counted(own, 'server')} of your own; set VASTAI_API_KEY or IONET_API_KEY to rent more.`;
      return [
        [],
        [span('  No provider is configured.', 'strong')],
        ...wrap(words, width - 3).map((text): Line => [span(`  ${text}`, 'dim')]),
      ];
    }
    const lines: Line[] = [
      [
        span('  '),
        span(fitText('', 8)),
        span(fitText('AVAIL', 6, 'right'), 'head'),
        span(fitText('$/H', 12, 'right'), 'head'),
        span(fitText('MINE', 5, 'right'), 'head'),
        span(' API      AGE', 'head'),
      ],
    ];
    const needed = providers.length + 2;
    const listHeight = Math.max(1, Math.min(providers.length, height - 1));
    const first = scrollTo(view.cursors.providers, providers.length, listHeight, view.offsets.providers);
    view.offsets.providers = first;
    view.pages.providers = listHeight;
    for (const [index, provider] of providers.slice(first, first + listHeight).entries()) {
      const here = focused && first + index === view.cursors.providers;
      const spans = providerRow(provider, view, here);
      lines.push(here ? [span(textOf(fitLine(spans, width)), 'selected')] : spans);
    }
    if (height >= needed + 1 && providers.length > 1) {
      const mine = providers.reduce((sum, provider) => sum + provider.rented, 0);
      const spend = providers.reduce((sum, provider) => sum + provider.usdPerHour, 0);
      lines.push([
        span('  '),
        span(fitText('Total', 8), 'dim'),
        span(fitText(totalStock(view), 6, 'right'), 'strong'),
        span(fitText('', 12)),
        span(fitText(count(mine), 5, 'right')),
        span(` ${money(spend)}/h`, 'dim'),
      ]);
    }
    // What is wrong comes first, and in full where there is room.
    const credits = providers.flatMap(creditNote);
    const errors = providers.flatMap((provider) => errorNote(provider, view));
    const whole = errors.flatMap((text) => wrap(text, width - 2));
    const told = lines.length + whole.length + credits.length <= height ? whole : errors;
    const notes: Line[] = [...told.map((text) => [span('  '), outside(text, 'bad')]), ...credits];
    lines.push(...notes.slice(0, Math.max(0, height - lines.length)));
    const room = height - lines.length;
    if (room >= 4) lines.push([], ...cheapest(view, room - 1, width));
    return lines;
  },
};

/** As short as `OK 182ms`, so that the age of the last good data has its place. The reason in full stands below. */
const troubles: Readonly<Record<string, string>> = {
  auth: 'BAD KEY',
  rate_limited: 'LIMITED',
  timeout: 'TIMEOUT',
  unreachable: 'NO LINK',
  bad_answer: 'GARBLED',
  rejected: 'REFUSED',
};

function providerRow(provider: ProviderView, view: View, here: boolean): Span[] {
  const range =
    provider.minUsdPerHour === null
      ? '-'
      : `${money(provider.minUsdPerHour)}-${money(provider.maxUsdPerHour ?? provider.minUsdPerHour).slice(1)}`;
  const old = provider.refreshedAt === null ? '' : ` ${fitText(shortAge(view.now - provider.refreshedAt), 3, 'right')}`;
  const api: Span =
    provider.status === 'ok'
      ? span(`OK ${fitText(milliseconds(provider.latencyMs), 5, 'right')}`, 'good')
      : provider.status === 'loading'
        ? span('loading', 'busy')
        : span(fitText(troubles[provider.lastError?.code ?? ''] ?? 'ERROR', 8), 'bad');
  return [
    span(here ? `${view.glyphs.cursor} ` : '  ', 'key'),
    span(fitText(provider.name, 8), 'strong'),
    span(
      fitText(provider.refreshedAt === null ? '-' : stock(provider.available, provider.more, 6), 6, 'right'),
      'strong',
    ),
    span(fitText(range, 12, 'right')),
    span(fitText(count(provider.rented), 5, 'right')),
    span(' '),
    api,
    span(old, 'dim'),
  ];
}

function errorNote({ name, status, lastError, nextRefreshAt }: ProviderView, view: View): string[] {
  if (lastError === null || status !== 'error') return [];
  const next = nextRefreshAt === null ? '' : `; again in ${age(nextRefreshAt - view.now)}`;
  return [`${name}: ${lastError.message}${next}`];
}

function creditNote({ name, creditUsd, usdPerHour }: ProviderView): Line[] {
  if (creditUsd === null) return [];
  const hours = usdPerHour > 0 ? creditUsd / usdPerHour : null;
  return [
    [
      span(`  ${name} credit `, 'dim'),
      span(amount(creditUsd), hours !== null && hours < 2 ? 'bad' : 'text'),
      span(hours === null ? '' : `, lasts ${age(hours * 3_600_000)}`, 'dim'),
    ],
  ];
}

function cheapest(view: View, room: number, width: number): Line[] {
  const sellers = view.snapshot.providers.filter((provider) => provider.cheapest.length > 0).slice(0, 2);
  if (sellers.length === 0) return [];
  type Row = { name: string; vram: number; best: number; cells: Map<string, string> };
  const models = new Map<string, Row>();
  for (const seller of sellers) {
    for (const item of seller.cheapest) {
      const name = gpuName(item.gpuModel);
      const key = `${name} ${item.vramGb}`;
      const row: Row = models.get(key) ?? { name, vram: item.vramGb, best: Infinity, cells: new Map() };
      row.best = Math.min(row.best, item.usdPerGpuHour);
      row.cells.set(seller.name, `${money(item.usdPerGpuHour)} ${fitText(`x${count(item.available, 3)}`, 4, 'left')}`);
      models.set(key, row);
    }
  }
  const cell = 13;
  const nameWidth = Math.max(12, Math.min(24, width - 2 - sellers.length * cell - 6));
  const lines: Line[] = [
    [
      span('  '),
      span(fitText('CHEAPEST $/GPU/H', nameWidth + 6), 'head'),
      ...sellers.map((seller) => span(`${fitText(seller.name, cell - 4, 'right')}    `, 'head')),
    ],
  ];
  for (const row of [...models.values()].sort((a, b) => a.best - b.best).slice(0, room - 1)) {
    lines.push([
      span('  '),
      span(fitText(row.name, nameWidth)),
      span(`${fitText(row.vram > 0 ? `${row.vram}GB` : '', 5, 'right')} `, 'dim'),
      ...sellers.map((seller) => {
        const value = row.cells.get(seller.name);
        return value === undefined
          ? span(`${fitText('-', cell - 5, 'right')}     `, 'dim')
          : span(fitText(value, cell, 'right'));
      }),
    ]);
  }
  return lines;
}
