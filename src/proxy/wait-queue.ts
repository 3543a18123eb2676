import type { Balancer, Lease } from '../core/balancer.ts';
import type { WaitingLine } from '../core/waiting-line.ts';

/** A request that waits for an upstream below its ceiling. */
export interface Waiting {
  /** Rows that may serve it. */
  readonly allowed: Uint8Array;
  readonly tried: readonly number[];
  readonly queuedAt: number;
  /** True when it can only be served by some of the upstreams, so that others may overtake it. */
  readonly picky: boolean;
  admitted(lease: Lease): void;
  /** `none`: nothing eligible is left; `late`: the deadline has passed. */
  turnedAway(why: 'none' | 'late'): void;
}

/** How often those who wait look for room that nobody has told them of. */
const pollMs = 20;
/** How many requests a wake-up looks at when the first ones can only go where there is no room. */
const maxLook = 64;

/**
 * First come, first served, bounded, with a deadline. The order is one over all threads for those who can go anywhere: one
 * who came earlier to another thread goes first.
 */
export class WaitQueue {
  readonly #balancer: Balancer;
  readonly #settings: Readonly<{ queueLimit: number; queueTimeoutMs: number }>;
  readonly #now: () => number;
  readonly #line: WaitingLine;
  readonly #waiting = new Set<Waiting>();
  /** Of these, the tickets of those who can go anywhere. */
  readonly #tickets = new Map<Waiting, number>();
  #woken = false;
  #listening = false;
  #poller: NodeJS.Timeout | null = null;
  /** The thread that was first in line at the last poll and had not come although it was called; -1: none. */
  #late = -1;

  constructor(
    balancer: Balancer,
    settings: Readonly<{ queueLimit: number; queueTimeoutMs: number }>,
    now: () => number,
  ) {
    this.#balancer = balancer;
    this.#settings = settings;
    this.#now = now;
    this.#line = balancer.table.line(balancer.table.thread);
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Somebody waits, here or in another thread, so that a newcomer has to as well. */
  get exists(): boolean {
    return this.#waiting.size > 0 || this.#line.exists;
  }

  /** False when it is full. */
  add(waiting: Waiting): boolean {
    if (this.#waiting.size >= this.#settings.queueLimit) return false;
    this.#waiting.add(waiting);
    if (!waiting.picky && waiting.tried.length === 0) {
      this.#tickets.set(waiting, this.#line.ticket());
      if (this.#tickets.size === 1) this.#show();
      this.#listen();
    }
    this.#poller ??= setInterval(() => {
      if (this.#waiting.size > 0) this.#poll();
      else this.close();
    }, pollMs);
    return true;
  }

  /** Stops looking for room; the next who waits starts it again. */
  close(): void {
    if (this.#poller !== null) clearInterval(this.#poller);
    this.#poller = null;
    this.#show();
  }

  /** The client left, or has got what it waited for. */
  remove(waiting: Waiting): void {
    this.#waiting.delete(waiting);
    if (this.#tickets.delete(waiting)) this.#show();
  }

  /** Somewhere room was made. Looks once per turn of the event loop, however often it is called. */
  wake(): void {
    if (this.#woken || !this.exists) return;
    this.#woken = true;
    queueMicrotask(() => {
      this.#woken = false;
      this.admit();
    });
  }

  /** Gives room to those who wait, oldest first. */
  admit(): void {
    this.#admit(false);
  }

  /** A thread that is too busy to come when it is called loses its turn. */
  #poll(): void {
    const [ticket] = this.#tickets.values();
    const ahead = ticket === undefined ? -1 : this.#line.ahead(ticket);
    const late = ahead !== -1 && this.#line.owesAnswer(ahead) ? ahead : -1;
    this.#admit(late !== -1 && late === this.#late);
    this.#late = late;
  }

  #admit(goesAhead: boolean): void {
    let looked = 0;
    const now = this.#now();
    for (const waiting of this.#waiting) {
      if (++looked > maxLook) return;
      const ticket = this.#tickets.get(waiting);
      const ahead = ticket === undefined || goesAhead ? -1 : this.#line.ahead(ticket);
      if (ahead !== -1) {
        this.#line.call(ahead);
        return;
      }
      const lease = this.#balancer.acquire(now, waiting);
      if (lease === 'full') {
        if (ticket !== undefined) return;
        continue;
      }
      this.remove(waiting);
      if (lease === 'none') waiting.turnedAway('none');
      else waiting.admitted(lease);
    }
    // There may be room left, and nobody here.
    const ahead = this.#line.ahead(0);
    if (ahead !== -1) this.#line.call(ahead);
  }

  /** Turns away whoever has waited too long. */
  expire(now: number): void {
    for (const waiting of this.#waiting) {
      if (now - waiting.queuedAt < this.#settings.queueTimeoutMs) return;
      this.remove(waiting);
      waiting.turnedAway('late');
    }
  }

  #show(): void {
    const [first] = this.#tickets.values();
    this.#line.show(first ?? 0);
  }

  /** Comes when it is called, as long as somebody waits here. */
  #listen(): void {
    if (this.#listening) return;
    this.#listening = true;
    void this.#line.called().then(() => {
      this.#listening = false;
      this.#line.answer();
      if (this.#tickets.size > 0) this.#listen();
      this.admit();
    });
  }
}
