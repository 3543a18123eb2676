// Words, as Int32: tickets given out, threads that stand in line, then by thread the ticket of its first in line (0: none), how
// often it was called, and how many of these calls it has answered.
const given = 0;
const standing = 1;
const firsts = 2;

/** Words of shared memory that a line of so many threads needs. */
export const lineWords = (threads: number): number => firsts + 3 * threads;

/**
 * One order for the requests that wait in several threads. Each thread keeps its own and shows the ticket of the first one;
 * who finds that another thread's came earlier calls that thread instead of going ahead. Nothing here is under a lock:
 * a glance that is a moment old makes somebody go a turn late, nothing more.
 */
export class WaitingLine {
  readonly #words: Int32Array;
  readonly #thread: number;
  readonly #threads: number;
  readonly #calls: number;
  readonly #answers: number;

  constructor(words: Int32Array, thread: number) {
    this.#words = words;
    this.#thread = thread;
    this.#threads = (words.length - firsts) / 3;
    this.#calls = firsts + this.#threads;
    this.#answers = this.#calls + this.#threads;
  }

  /** The next ticket; never 0. */
  ticket(): number {
    return (Atomics.add(this.#words, given, 1) + 1) | 0 || this.ticket();
  }

  /** Shows the ticket of this thread's first in line; 0: nobody waits here. */
  show(ticket: number): void {
    const before = Atomics.exchange(this.#words, firsts + this.#thread, ticket);
    if ((before === 0) !== (ticket === 0)) Atomics.add(this.#words, standing, ticket === 0 ? -1 : 1);
  }

  /** Somebody waits, in whichever thread. */
  get exists(): boolean {
    return Atomics.load(this.#words, standing) > 0;
  }

  /** The other thread whose first in line has been there longest, if that is longer than `ticket`; -1: none. 0 for no ticket. */
  ahead(ticket: number): number {
    if (Atomics.load(this.#words, standing) <= (ticket === 0 ? 0 : 1)) return -1;
    let first = -1;
    let lowest = ticket;
    for (let thread = 0; thread < this.#threads; thread++) {
      if (thread === this.#thread) continue;
      const other = Atomics.load(this.#words, firsts + thread);
      // By difference, because tickets begin anew after 2^32.
      if (other === 0 || (lowest !== 0 && ((other - lowest) | 0) >= 0)) continue;
      lowest = other;
      first = thread;
    }
    return first;
  }

  /** Tells a thread that there may be room for its first in line. */
  call(thread: number): void {
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
