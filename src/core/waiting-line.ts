/** Groups of waiting requests that one thread shows to the others. */
const shownGroups = 8;

// Words, as Int32: tickets given out, groups that are shown by anybody, then by thread its groups (for each its key and the
// ticket of its first; 0: nobody), how often the thread was called, and how many of these calls it has answered.
const given = 0;
const standing = 1;
const groups = 2;
const groupWords = 2 * shownGroups;

/** Words of shared memory that a line of so many threads needs. */
export const lineWords = (threads: number): number => groups + (groupWords + 2) * threads;

/** Key of those whom the rows of this mask can serve: the same in every thread, and for every model of the same upstreams. */
export function maskKey(mask: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let row = 0; row < mask.length; row++) {
    if (mask[row] === 1) hash = Math.imul(hash ^ row, 0x01000193) ^ (row << 7);
  }
  return hash | 0;
}

/**
 * One order for the requests that wait in several threads. Each thread keeps its own, in groups that can be served by the
 * same upstreams, and shows the ticket of the first of each; who finds that another thread's came earlier calls that
 * thread instead of going ahead. Nothing here is under a lock: a glance that is a moment old makes somebody go a turn
 * late, nothing more.
 */
export class WaitingLine {
  readonly #words: Int32Array;
  readonly #thread: number;
  readonly #threads: number;
  readonly #calls: number;
  readonly #answers: number;
  /** Shown by this thread. */
  #own = 0;

  constructor(words: Int32Array, thread: number) {
    this.#words = words;
    this.#thread = thread;
    this.#threads = (words.length - groups) / (groupWords + 2);
    this.#calls = groups + groupWords * this.#threads;
    this.#answers = this.#calls + this.#threads;
  }

  /** Places that a thread has for its groups. */
  static readonly places = shownGroups;

  /** The next ticket; never 0. */
  ticket(): number {
    return (Atomics.add(this.#words, given, 1) + 1) | 0 || this.ticket();
  }

  /** Shows the first of a group at one of this thread's places; ticket 0: nobody waits there. */
  show(place: number, key: number, ticket: number): void {
    const at = groups + groupWords * this.#thread + 2 * place;
    const before = Atomics.load(this.#words, at + 1);
    if (ticket !== 0) Atomics.store(this.#words, at, key);
    Atomics.store(this.#words, at + 1, ticket);
    if ((before === 0) === (ticket === 0)) return;
    Atomics.add(this.#words, standing, ticket === 0 ? -1 : 1);
    this.#own += ticket === 0 ? -1 : 1;
  }

  /** Takes away what a thread shows that is no more. */
  clear(): void {
    for (let place = 0; place < shownGroups; place++) this.show(place, 0, 0);
  }

  /** Somebody waits in another thread. */
  get elsewhere(): boolean {
    return Atomics.load(this.#words, standing) > this.#own;
  }

  /**
   * The other thread whose first came earliest, of those who may take all that `key` may take, if that is before `ticket`;
   * -1: none. `anybody` is the key of those for whom any upstream will do: they come before the others as well. 0 for no
   * ticket. Threads in `passed` are passed over.
   */
  ahead(key: number, anybody: number, ticket: number, passed: ReadonlySet<number>): number {
    if (!this.elsewhere) return -1;
    let first = -1;
    let lowest = ticket;
    for (let thread = 0; thread < this.#threads; thread++) {
      if (thread === this.#thread || passed.has(thread)) continue;
      for (let place = 0; place < shownGroups; place++) {
        const at = groups + groupWords * thread + 2 * place;
        const other = Atomics.load(this.#words, at + 1);
        // By difference, because tickets begin anew after 2^32.
        if (other === 0 || (lowest !== 0 && ((other - lowest) | 0) >= 0)) continue;
        const otherKey = Atomics.load(this.#words, at);
        if (otherKey !== key && otherKey !== anybody) continue;
        lowest = other;
        first = thread;
      }
    }
    return first;
  }

  /** Calls every other thread in which somebody waits whose key is none of these. */
  callOthers(keys: ReadonlySet<number>): void {
    if (!this.elsewhere) return;
    for (let thread = 0; thread < this.#threads; thread++) {
      if (thread === this.#thread) continue;
      for (let place = 0; place < shownGroups; place++) {
        const at = groups + groupWords * thread + 2 * place;
        if (Atomics.load(this.#words, at + 1) === 0 || keys.has(Atomics.load(this.#words, at))) continue;
        this.call(thread);
        break;
      }
    }
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
}
