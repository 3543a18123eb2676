/** What a key may do besides coming in; of keys with a limit or an end alone. */
export type KeyTerms = Readonly<{
  /** SHA-256 of the key, hex. */
  hash: string;
  /** Its place in the shared counts; -1: it has no limits. */
  slot: number;
  /** Wall time; null: never. */
  expiresAt: number | null;
  requestsPerMinute: number | null;
  maxConcurrent: number | null;
}>;

/** The answer of `admit` when as many requests of the key are open as may be. */
export const tooManyOpen = -1;

const maxThreads = 64;
/** Keys with limits that can be counted at once. */
export const limitedKeys = 1024;
const minuteUs = 60_000_000;

/**
 * Counts the requests of keys with limits over all threads, in memory they share: how many are open, and by the generic cell
 * rate algorithm (ITU-T I.371) how many a minute. A full minute's worth may come at once.
 */
export class KeyLimits {
  readonly #open: Int32Array;
  readonly #byThread: Int32Array;
  /** When the next request would be due were they evenly spaced; µs of the monotonic clock. */
  readonly #due: BigInt64Array;
  readonly #thread: number;

  static buffer(): SharedArrayBuffer {
    return new SharedArrayBuffer(limitedKeys * (8 + 4 + 4 * maxThreads));
  }

  constructor(buffer: SharedArrayBuffer, thread: number) {
    this.#due = new BigInt64Array(buffer, 0, limitedKeys);
    this.#open = new Int32Array(buffer, limitedKeys * 8, limitedKeys);
    this.#byThread = new Int32Array(buffer, limitedKeys * 12, limitedKeys * maxThreads);
    this.#thread = thread;
  }

  /**
   * 0 when the request may come in: `release` it when it has ended. Else `tooManyOpen`, or the milliseconds until the
   * minute has room.
   */
  admit(terms: KeyTerms, nowMs: number): number {
    const { slot, maxConcurrent, requestsPerMinute } = terms;
    const open = Atomics.add(this.#open, slot, 1) + 1;
    if (maxConcurrent !== null && open > maxConcurrent) {
      Atomics.sub(this.#open, slot, 1);
      return tooManyOpen;
    }
    if (requestsPerMinute !== null) {
      const waitMs = this.#pace(slot, requestsPerMinute, nowMs);
      if (waitMs > 0) {
        Atomics.sub(this.#open, slot, 1);
        return waitMs;
      }
    }
    Atomics.add(this.#byThread, this.#thread * limitedKeys + slot, 1);
    return 0;
  }

  release(terms: KeyTerms): void {
    Atomics.sub(this.#byThread, this.#thread * limitedKeys + terms.slot, 1);
    Atomics.sub(this.#open, terms.slot, 1);
  }

  /** Gives back what a thread that died had open. */
  releaseThread(thread: number): void {
    for (let slot = 0; slot < limitedKeys; slot++) {
      const open = Atomics.exchange(this.#byThread, thread * limitedKeys + slot, 0);
      if (open > 0) Atomics.sub(this.#open, slot, open);
    }
  }

  /** The slot of a key that is no more can be given to another one when nothing of it is open. */
  free(slot: number): boolean {
    if (Atomics.load(this.#open, slot) > 0) return false;
    Atomics.store(this.#due, slot, 0n);
    return true;
  }

  #pace(slot: number, perMinute: number, nowMs: number): number {
    const now = BigInt(Math.round(nowMs * 1000));
    const apart = BigInt(Math.max(1, Math.round(minuteUs / perMinute)));
    for (;;) {
      const due = Atomics.load(this.#due, slot);
      const next = (due > now ? due : now) + apart;
      const ahead = next - now;
      if (ahead > apart * BigInt(perMinute)) return Math.max(1, Number(ahead - apart * BigInt(perMinute)) / 1000);
      if (Atomics.compareExchange(this.#due, slot, due, next) === due) return 0;
    }
  }
}
