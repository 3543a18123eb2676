/** What an entry of `OpenRequests` must have: a place for its own number. */
export interface Numbered {
  slot: number;
}

/**
 * The requests that have begun and not ended, in no order. An array with removal by swapping, not a Set: a Set that is added
 * to and deleted from leaves a chain of outgrown tables behind, each with the requests of its time, and the collector
 * of young objects carries all of them along.
 */
export class OpenRequests<T extends Numbered> {
  readonly #entries: T[] = [];

  get size(): number {
    return this.#entries.length;
  }

  add(entry: T): void {
    entry.slot = this.#entries.length;
    this.#entries.push(entry);
  }

  remove(entry: T): void {
    const entries = this.#entries;
    const { slot } = entry;
    if (entries[slot] !== entry) return;
    const last = entries.pop()!;
    if (last === entry) return;
    entries[slot] = last;
    last.slot = slot;
  }

  /** Calls `visit` with each; it may remove the one it is called with. */
  visit(visit: (entry: T) => void): void {
    for (let i = this.#entries.length - 1; i >= 0; i--) {
      const entry = this.#entries[i];
      if (entry !== undefined) visit(entry);
    }
  }
}
