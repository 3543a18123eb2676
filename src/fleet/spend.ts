import type { Lifecycle } from '../core/domain.ts';
import type { Ledger } from './ledger/ledger.ts';
import type { Charge, Rental } from './ledger/rows.ts';

const hourMs = 3_600_000;

/**
 * What was spent. Billing by use is an open interval on the rental, of all of it while it runs (`billedFrom`) and of its
 * disk from the contract to the end whenever it does not (`diskFrom`), that becomes a charge when it closes; prepaid
 * time is a charge at the moment it is bought.
 */
export interface Spend {
  /** Closes the open interval; the caller commits another start, or none, in the same transaction. */
  close(rental: Rental, at: number): void;
  prepaid(label: string, usd: number, at: number): void;
  /** Of one rental until `now`, USD. */
  of(rental: Rental, now: number): number;
  /** Of everything ever rented, and since local midnight, USD. */
  totals(open: Iterable<Rental>, now: number): { spentUsd: number; spentTodayUsd: number };
}

/** The open billing interval of a rental; null while nothing of it is billed by use. */
export function intervalOf(rental: Rental): { from: number; usdPerHour: number } | null {
  if (rental.billedFrom !== null) return { from: rental.billedFrom, usdPerHour: rental.usdPerHour };
  return rental.diskFrom === null ? null : { from: rental.diskFrom, usdPerHour: rental.diskUsdPerHour };
}

/** What a rental costs an hour now. One that is about to run for the first time counts in full. */
export function usdPerHourNow(rental: Rental, phase: Lifecycle['phase']): number {
  const idle = rental.diskFrom !== null && (rental.ran || phase === 'halted' || phase === 'destroying');
  return idle ? rental.diskUsdPerHour : rental.usdPerHour;
}

export function createSpend(ledger: Ledger): Spend {
  const closed = new Map(ledger.charges.sumByLabel());
  let closedTotal = ledger.charges.total();
  let dayFrom = Number.NaN;
  let today: Charge[] = [];

  const book = (charge: Charge) => {
    ledger.charges.insert(charge);
    closed.set(charge.label, (closed.get(charge.label) ?? 0) + charge.usd);
    closedTotal += charge.usd;
    today.push(charge);
  };
  const openUsd = (rental: Rental, from: number, now: number): number => {
    const open = intervalOf(rental);
    return open === null ? 0 : (Math.max(0, now - Math.max(from, open.from)) / hourMs) * open.usdPerHour;
  };

  return {
    close(rental, at) {
      const open = intervalOf(rental);
      if (open === null) return;
      const to = Math.max(at, open.from);
      book({ label: rental.label, fromAt: open.from, toAt: to, usd: openUsd(rental, 0, to) });
    },
    prepaid(label, usd, at) {
      book({ label, fromAt: at, toAt: at, usd });
    },
    of: (rental, now) => (closed.get(rental.label) ?? 0) + openUsd(rental, 0, now),
    totals(open, now) {
      const midnight = new Date(now).setHours(0, 0, 0, 0);
      if (midnight !== dayFrom) {
        dayFrom = midnight;
        today = ledger.charges.since(midnight);
      }
      let spentUsd = closedTotal;
      let spentTodayUsd = 0;
      for (const charge of today) {
        const length = charge.toAt - charge.fromAt;
        if (charge.toAt < midnight) continue;
        const part = length <= 0 ? 1 : (charge.toAt - Math.max(charge.fromAt, midnight)) / length;
        spentTodayUsd += charge.usd * part;
      }
      for (const rental of open) {
        spentUsd += openUsd(rental, 0, now);
        spentTodayUsd += openUsd(rental, midnight, now);
      }
      return { spentUsd, spentTodayUsd };
    },
  };
}
