import type { Rental } from './ledger/rows.ts';
import type { Timing } from './timing.ts';

/** Reason of a rental whose paid call the last process may have made. */
export const interrupted = 'interrupted by a restart';

/**
 * What is known of a rental while nobody knows whether its paid call was carried out, in one line. `leftMs`: until it
 * counts as never rented when its label stays absent.
 */
export function searchText(rental: Rental, leftMs: number): string {
  const { reason, provider, wanted } = rental;
  const why =
    reason === interrupted ? reason : reason === null ? 'the answer was lost' : `the answer was lost (${reason})`;
  const search =
    leftMs > 0
      ? `looked for by its label at ${provider} for up to ${leftMs / 1000} s more`
      : `${provider} has not said yet whether it exists`;
  return `${why}; ${search}${wanted ? '' : '; destroyed as soon as it turns up'}`;
}

/** How long from `now` until it counts as never rented, in steps that are worth showing. */
export function searchLeftMs(rental: Rental, now: number, timing: Timing): number {
  const left = (rental.settledAt ?? rental.createdAt) + timing.unknownGraceMs - now;
  return Math.max(0, Math.ceil(left / 10_000) * 10_000);
}
