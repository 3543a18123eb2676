/** Entries of waiting requests that one thread shows to the others. */
const shownPlaces = 8;

// Words, as Int32: tickets given out; a bit for each thread in which somebody waits; by thread its places, each with the ticket
// of its first (0: nobody) and a bit for each upstream that will do; how often each thread was called, and how many of these
// calls it has answered.
const given = 0;
const waitingBits = 1;
const placesAt = 3;

const maskWords = (capacity: number): number => Math.ceil(capacity / 32);
const placeWords = (capacity: number): number => 1 + maskWords(capacity);

/** Words of shared memory that a line of so many threads, 64 at most, and upstreams needs. */
export const lineWords = (threads: number, capacity: number): number =>
  placesAt + threads * (shownPlaces * placeWords(capacity) + 2);

/** Somebody who waits in another thread. */
export type Elsewhere = Readonly<{ thread: number; ticket: number }>;

/** Has one of these upstreams, 1 where it is one of them, room for a request? */
type HasRoom = (rows: Uint8Array) => boolean;

/**
 * One order for the requests that wait in several threads. Each thread keeps its own, in groups that the same upstreams can
 * serve, and shows the ticket of the first of each and these upstreams; who finds that another thread's came earlier and
 * could go now calls that thread instead of going ahead. Nothing here is under a lock: a glance that is a moment old makes
 * somebody go a turn late, nothing more.
 */
export class WaitingLine {
  readonly #words: Int32Array;
  readonly #thread: number;
  readonly #threads: number;
  readonly #capacity: number;
  readonly #calls: number;
  readonly #answers: number;
  /** What this thread shows. */
  readonly #shown: (Uint8Array | null)[] = Array.from({ length: shownPlaces }, () => null);
  readonly #common: Uint8Array;

  constructor(words: Int32Array, thread: number, threads: number, capacity: number) {
    this.#words = words;
    this.#thread = thread;
    this.#threads = threads;
    this.#capacity = capacity;
    this.#calls = placesAt + threads * shownPlaces * placeWords(capacity);
    this.#answers = this.#calls + threads;
    this.#common = new Uint8Array(capacity);
  }

  /** Places of a thread. */
  static readonly places = shownPlaces;

  /** The next ticket; never 0. */
  ticket(): number {
    return (Atomics.add(this.#words, given, 1) + 1) | 0 || this.ticket();
  }

  /**
   * Shows at one of this thread's places that somebody with this ticket waits for one of the upstreams in `rows`, which
   * stays what it is.
   */
  show(place: number, rows: Uint8Array, ticket: number): void {
    const at = this.#at(this.#thread, place);
    if (this.#shown[place] !== rows) {
      Atomics.store(this.#words, at, 0);
      for (let word = 0; word < maskWords(this.#capacity); word++) {
        let bits = 0;
        for (let bit = 0; bit < 32; bit++) if (rows[32 * word + bit] === 1) bits |= 1 << bit;
        Atomics.store(this.#words, at + 1 + word, bits);
      }
      this.#shown[place] = rows;
    }
    Atomics.store(this.#words, at, ticket);
    Atomics.or(this.#words, waitingBits + (this.#thread >> 5), 1 << (this.#thread & 31));
  }

  /** Nobody waits at one of this thread's places any more. */
  hide(place: number): void {
    this.#shown[place] = null;
    Atomics.store(this.#words, this.#at(this.#thread, place), 0);
    for (let other = 0; other < shownPlaces; other++) {
      if (Atomics.load(this.#words, this.#at(this.#thread, other)) !== 0) return;
    }
    Atomics.and(this.#words, waitingBits + (this.#thread >> 5), ~(1 << (this.#thread & 31)));
  }

  /** Takes away what a thread shows that is no more. */
  clear(): void {
    for (let place = 0; place < shownPlaces; place++) this.hide(place);
  }

  /** Somebody waits in another thread. */
  get elsewhere(): boolean {
    for (let word = 0; word < 2; word++) {
      const own = this.#thread >> 5 === word ? 1 << (this.#thread & 31) : 0;
      if ((Atomics.load(this.#words, waitingBits + word) & ~own) !== 0) return true;
    }
    return false;
  }

  /**
   * Who came earliest to another thread, before `ticket`, and could go now, to one of the upstreams in `rows`; null: nobody.
   * 0 stands for no ticket. `passed` names those who are passed over.
   */
  ahead(rows: Uint8Array, ticket: number, hasRoom: HasRoom, passed: (one: Elsewhere) => boolean): Elsewhere | null {
    if (!this.elsewhere) return null;
    const earlier: { one: Elsewhere; at: number }[] = [];
    this.#visit((thread, at, other) => {
      // By difference, because tickets begin anew after 2^32.
      if (ticket !== 0 && ((other - ticket) | 0) >= 0) return;
      const one = { thread, ticket: other };
      if (!passed(one)) earlier.push({ one, at });
    });
    earlier.sort((a, b) => (a.one.ticket - b.one.ticket) | 0);
    for (const { one, at } of earlier) if (this.#inCommon(at, rows) && hasRoom(this.#common)) return one;
    return null;
  }

  /** Calls the thread of the earliest of those who could go now, but for threads that are on their way. */
  callFirst(hasRoom: HasRoom): void {
    const first = this.ahead(everybody, 0, hasRoom, ({ thread }) => this.owesAnswer(thread));
    if (first !== null) this.call(first.thread);
  }

  /** Tells a thread that there may be room for its first in line; one that has been called and has not come will look. */
  call(thread: number): void {
    if (this.owesAnswer(thread)) return;
    Atomics.add(this.#words, this.#calls + thread, 1);
    Atomics.notify(this.#words, this.#calls + thread);
  }

  /** Was a thread called, and has not come yet? */
  owesAnswer(thread: number): boolean {
    return Atomics.load(this.#words, this.#calls + thread) !== Atomics.load(this.#words, this.#answers + thread);
  }

  /** Resolves when this thread is called, at once if it was called before. */
  async called(): Promise<void> {
    const answered = Atomics.load(this.#words, this.#answers + this.#thread);
    const waiting = Atomics.waitAsync(this.#words, this.#calls + this.#thread, answered);
    if (waiting.async) await waiting.value;
  }

  /** This thread has come to whatever it was called for. */
  answer(): void {
    Atomics.store(this.#words, this.#answers + this.#thread, Atomics.load(this.#words, this.#calls + this.#thread));
  }

  #at(thread: number, place: number): number {
    return placesAt + (thread * shownPlaces + place) * placeWords(this.#capacity);
  }

  /** Calls `see` with each place of the other threads where somebody waits. */
  #visit(see: (thread: number, at: number, ticket: number) => void): void {
    for (let thread = 0; thread < this.#threads; thread++) {
      const bits = Atomics.load(this.#words, waitingBits + (thread >> 5));
      if (thread === this.#thread || (bits & (1 << (thread & 31))) === 0) continue;
      for (let place = 0; place < shownPlaces; place++) {
        const at = this.#at(thread, place);
        const ticket = Atomics.load(this.#words, at);
        if (ticket !== 0) see(thread, at, ticket);
      }
    }
  }

  /** Puts into `#common` which of `rows` the place at `at` names too; false when there are none. */
  #inCommon(at: number, rows: Uint8Array): boolean {
    const common = this.#common;
    common.fill(0);
    let some = false;
    for (let word = 0; word < maskWords(this.#capacity); word++) {
      const bits = Atomics.load(this.#words, at + 1 + word);
      if (bits === 0) continue;
      for (let bit = 0; bit < 32; bit++) {
        const row = 32 * word + bit;
        if ((bits & (1 << bit)) === 0 || (rows !== everybody && rows[row] !== 1)) continue;
        common[row] = 1;
        some = true;
      }
    }
    return some;
  }
}

/** Stands for all upstreams. */
const everybody = new Uint8Array(0);
