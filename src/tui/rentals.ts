import type { CancelResult } from '../fleet/app.ts';

/** A price that rose by at most this much since the confirmed quote is still accepted. */
export const acceptedRise = 1.02;

/** A request of this dashboard that rents, while nobody knows yet what becomes of it. */
export type OpenRental = Readonly<{
  /** Its Idempotency-Key: by it the request is found, and stopped. */
  key: string;
  /** "4 GPUs". */
  what: string;
}>;

/** The requests that are under way, so that nobody leaves without being asked what is to become of them. */
export interface OpenRentals {
  all(): readonly OpenRental[];
  run<T>(rental: OpenRental, work: () => Promise<T>): Promise<T>;
}

export function createOpenRentals(): OpenRentals {
  const open = new Set<OpenRental>();
  return {
    all: () => [...open],
    async run(rental, work) {
      open.add(rental);
      try {
        return await work();
      } finally {
        open.delete(rental);
      }
    },
  };
}

/** One line about a request that was stopped: what is kept, and what was given back. */
export function cancelText({ reservation, kept, released, pending }: CancelResult): string {
  const instances = (ids: readonly string[]) => `${ids.length} instance${ids.length === 1 ? '' : 's'}`;
  const parts = [
    ...(kept.length > 0 ? [`${instances(kept)} kept`] : []),
    ...(released.length > 0 ? [`${instances(released)} given back`] : []),
    ...(pending.length > 0 ? [`${instances(pending)} not confirmed yet: tried until the provider does`] : []),
  ];
  return `${reservation === null ? '' : `${reservation} `}cancelled: ${parts.length === 0 ? 'nothing had been rented' : parts.join(', ')}`;
}
