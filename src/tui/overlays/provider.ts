import type { ProviderName } from '../../core/domain.ts';
import type { ProviderView } from '../../fleet/app.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { age, amount, clockTime, count, fitText, milliseconds, money, wrap } from '../format.ts';
import { fitLine, type Line, outside, type Span, span } from '../line.ts';
import type { View } from '../view.ts';

/** How the API of one provider does, and what of it is ours. */
export function createProviderPage(dashboard: Dashboard, name: ProviderName): Overlay {
  return {
    title: `PROVIDER ${name}`,
    page: true,
    hints: [
      ['R', 'ask again'],
      ['esc', 'close'],
    ],
    size: (columns, rows) => ({ width: Math.min(76, columns - 2), height: Math.min(14, rows - 2) }),
    lines(view, width, height) {
      const provider = view.snapshot.providers.find((each) => each.name === name);
      if (provider === undefined) return [[span(`${name} is not configured any more.`, 'warn')]];
      return [...apiLines(provider, view, width), [], ...stockLines(provider)]
        .slice(0, height)
        .map((line) => fitLine(line, width));
    },
    key(key) {
      if (key !== 'R') return false;
      dashboard.refreshNow();
      return true;
    },
  };
}

const row = (label: string, ...value: readonly Span[]): Line => [span(fitText(label, 16), 'dim'), ...value];

function apiLines(provider: ProviderView, view: View, width: number): Line[] {
  const { lastError, refreshedAt, nextRefreshAt } = provider;
  const lines: Line[] = [
    row(
      'API',
      provider.status === 'ok'
        ? span('OK', 'good')
        : provider.status === 'loading'
          ? span('LOADING', 'busy')
          : span('ERROR', 'bad'),
      span(`  answers in ${milliseconds(provider.latencyMs)}`),
    ),
    row('data', span(refreshedAt === null ? 'none yet' : `${age(view.now - refreshedAt)} old`)),
    row('asked again', span(nextRefreshAt === null ? '-' : `in ${age(nextRefreshAt - view.now)}`)),
  ];
  if (lastError === null) lines.push(row('last error', span('none', 'dim')));
  else {
    const over = provider.status === 'ok' ? 'dim' : 'bad';
    lines.push(
      row(
        'last error',
        outside(lastError.code.replaceAll('_', ' '), over),
        span(` at ${clockTime(lastError.at)}`, 'dim'),
      ),
    );
    for (const part of wrap(lastError.message, width - 16).slice(0, 4)) lines.push(row('', outside(part, over)));
  }
  return lines;
}

function stockLines(provider: ProviderView): Line[] {
  const { minUsdPerHour: min, maxUsdPerHour: max, creditUsd, usdPerHour } = provider;
  return [
    row(
      'rentable',
      span(`${count(provider.available)}${provider.more ? '+' : ''}`, 'strong'),
      span(
        ` ${provider.available === 1 ? 'instance' : 'instances'} in ${count(provider.offers)} ${provider.offers === 1 ? 'offer' : 'offers'}`,
      ),
      span(provider.more ? '; more may be there than its rate limits let be read' : '', 'dim'),
    ),
    row('price', span(min === null ? '-' : `${money(min)} to ${money(max ?? min)} an hour`)),
    row(
      'ours',
      span(count(provider.rented), 'strong'),
      span(` ${provider.rented === 1 ? 'instance' : 'instances'} for ${money(usdPerHour)}/h`),
    ),
    row(
      'credit',
      span(creditUsd === null ? 'not told' : amount(creditUsd)),
      span(creditUsd === null || usdPerHour <= 0 ? '' : `, lasts ${age((creditUsd / usdPerHour) * 3_600_000)}`, 'dim'),
    ),
  ];
}
