import { fieldsOf, listOf, numberOf } from './fields.ts';
import type { Session } from './session.ts';

/** What a batch would rent if each provider gave its cheapest matching offers: an estimate, nothing is held. */
export type BatchPlan = Readonly<{
  instances: readonly unknown[];
  count: number;
  requested: number;
  price_per_hour: number;
}>;

export async function planBatch(
  session: Session,
  filters: Readonly<Record<string, string | number | boolean>>,
  counts: Readonly<Record<string, number>>,
): Promise<BatchPlan> {
  const chosen: { offer: unknown; price: number }[] = [];
  let requested = 0;
  for (const [provider, count] of Object.entries(counts)) {
    if (count === 0) continue;
    requested += count;
    const { body } = await session.call('GET', '/gpu/instances', { query: { ...filters, provider } });
    const offers = listOf(fieldsOf(body).instances)
      .map((offer) => ({ offer, price: numberOf(offer.price_per_hour) ?? 0, stock: numberOf(offer.available) ?? 1 }))
      .sort((a, b) => a.price - b.price);
    // A pooled offer stands for as many instances as are in stock.
    chosen.push(
      ...offers
        .flatMap(({ offer, price, stock }) => Array.from({ length: Math.min(stock, count) }, () => ({ offer, price })))
        .slice(0, count),
    );
  }
  return {
    instances: chosen.map(({ offer }) => offer),
    count: chosen.length,
    requested,
    price_per_hour: Math.round(chosen.reduce((sum, { price }) => sum + price, 0) * 1e6) / 1e6,
  };
}
