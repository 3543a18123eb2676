import { type ConfigOptions, costOf, type Offer } from './offer-options.ts';
import type { Session } from './session.ts';

/** What a batch would rent if each provider gave its cheapest matching offers: an estimate, nothing is held. */
export type BatchPlan = Readonly<{
  instances: readonly Offer[];
  count: number;
  requested: number;
  price_per_hour: number;
  /** Charged at once where time is prepaid. */
  prepaid_usd: number;
}>;

export async function planBatch(
  session: Session,
  filters: Readonly<Record<string, string | number | boolean>>,
  config: ConfigOptions,
  counts: Readonly<Record<string, number>>,
): Promise<BatchPlan> {
  const chosen: { offer: Offer; perHour: number; prepaid: number }[] = [];
  let requested = 0;
  for (const [provider, count] of Object.entries(counts)) {
    if (count === 0) continue;
    requested += count;
    const answer = await session.call('GET', '/gpu/instances', { query: { gpu_count: 1, ...filters, provider } });
    const offers = (await session.read('offers', answer)).instances
      .map((offer) => ({ offer, ...costOf(offer, config), stock: offer.available }))
      .sort((a, b) => a.perHour - b.perHour);
    // A pooled offer stands for as many instances as are in stock.
    chosen.push(
      ...offers
        .flatMap(({ stock, ...one }) => Array.from({ length: Math.min(stock, count) }, () => one))
        .slice(0, count),
    );
  }
  return {
    instances: chosen.map(({ offer }) => offer),
    count: chosen.length,
    requested,
    price_per_hour: money(chosen.reduce((sum, { perHour }) => sum + perHour, 0)),
    prepaid_usd: money(chosen.reduce((sum, { prepaid }) => sum + prepaid, 0)),
  };
}

const money = (usd: number): number => Math.round(usd * 1e6) / 1e6;
