import type { Snapshot } from '../fleet/app.ts';

const spanMs = 600_000;
const stepMs = 1000;
/** Rows of upstreams that may be kept in all pictures together: bounds the memory on great fleets. */
const rowsKept = 60_000;

/** Pictures of the last ten minutes, one a second, fewer when the fleet is great. */
export interface History {
  readonly length: number;
  add(snapshot: Snapshot): void;
  at(index: number): Snapshot | undefined;
  /** Of the last picture that was made at this time or before; the first one when there is none. */
  indexAt(at: number): number;
}

export function createHistory(): History {
  const kept: Snapshot[] = [];
  let rows = 0;
  return {
    get length() {
      return kept.length;
    },
    add(snapshot) {
      const last = kept.at(-1);
      if (last === snapshot) return;
      if (last !== undefined && snapshot.at - (kept.at(-2)?.at ?? Number.NEGATIVE_INFINITY) < stepMs) {
        rows -= last.upstreams.length;
        kept.pop();
      }
      kept.push(snapshot);
      rows += snapshot.upstreams.length;
      while (kept.length > 2) {
        const first = kept[0];
        if (first === undefined || (rows <= rowsKept && snapshot.at - first.at <= spanMs)) break;
        rows -= first.upstreams.length;
        kept.shift();
      }
    },
    at: (index) => kept[index],
    indexAt: (at) =>
      Math.max(
        0,
        kept.findLastIndex((snapshot) => snapshot.at <= at),
      ),
  };
}
