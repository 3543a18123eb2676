import type { Snapshot } from '../fleet/app.ts';

const spanMs = 600_000;
const stepMs = 1000;
/** Rows of upstreams that may be kept in all pictures together: bounds the memory on great fleets. */
const rowsKept = 60_000;

/** Pictures of the last ten minutes: one a second, and fewer the older they are where the fleet is great. */
export interface History {
  readonly length: number;
  add(snapshot: Snapshot): void;
  at(index: number): Snapshot | undefined;
  /** Of the last picture that was made at this time or before; the first one when there is none. */
  indexAt(at: number): number;
  /** Of the picture that was made nearest to this time. */
  nearest(at: number): number;
}

export function createHistory(): History {
  const kept: Snapshot[] = [];
  let rows = 0;

  const remove = (index: number) => {
    for (const gone of kept.splice(index, 1)) rows -= gone.upstreams.length;
  };

  /** The picture whose loss leaves the smallest hole for its age: what is near is walked through in small steps. */
  function leastMissed(now: number): number {
    let least = 1;
    let smallest = Number.POSITIVE_INFINITY;
    for (let index = 1; index < kept.length - 2; index += 1) {
      const from = kept[index - 1]?.at ?? 0;
      const to = kept[index + 1]?.at ?? 0;
      const hole = (to - from) / (now - to + 10 * stepMs);
      if (hole < smallest) {
        smallest = hole;
        least = index;
      }
    }
    return least;
  }

  const indexAt = (at: number): number =>
    Math.max(
      0,
      kept.findLastIndex((snapshot) => snapshot.at <= at),
    );

  return {
    get length() {
      return kept.length;
    },
    add(snapshot) {
      const last = kept.at(-1);
      if (last === snapshot) return;
      if (last !== undefined && snapshot.at - (kept.at(-2)?.at ?? Number.NEGATIVE_INFINITY) < stepMs) {
        remove(kept.length - 1);
      }
      kept.push(snapshot);
      rows += snapshot.upstreams.length;
      // The one before goes when another is that old.
      while (kept.length > 2 && snapshot.at - (kept[1]?.at ?? 0) >= spanMs) remove(0);
      while (kept.length > 4 && rows > rowsKept) remove(leastMissed(snapshot.at));
    },
    at: (index) => kept[index],
    indexAt,
    nearest(at) {
      const before = indexAt(at);
      const next = kept[before + 1];
      return next !== undefined && next.at - at < Math.abs(at - (kept[before]?.at ?? 0)) ? before + 1 : before;
    },
  };
}
