import type { Balancer, Lease } from '../core/balancer.ts';

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

/** How often those who wait look for room that another thread has made. */
const pollMs = 20;
/** How many requests a wake-up looks at when the first ones can only go where there is no room. */
const maxLook = 64;

/** First come, first served, bounded, with a deadline. */
export class WaitQueue {
  readonly #balancer: Balancer;
  readonly #settings: Readonly<{ queueLimit: number; queueTimeoutMs: number }>;
  readonly #now: () => number;
  readonly #waiting = new Set<Waiting>();
  #woken = false;
  #poller: NodeJS.Timeout | null = null;

  constructor(
    balancer: Balancer,
    settings: Readonly<{ queueLimit: number; queueTimeoutMs: number }>,
    now: () => number,
  ) {
    this.#balancer = balancer;
    this.#settings = settings;
    this.#now = now;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** False when it is full. */
  add(waiting: Waiting): boolean {
    if (this.#waiting.size >= this.#settings.queueLimit) return false;
    this.#waiting.add(waiting);
    this.#poller ??= setInterval(() => {
      if (this.#waiting.size > 0) this.admit();
      else this.close();
    }, pollMs);
    return true;
  }

  /** Stops looking for room; the next who waits starts it again. */
  close(): void {
    if (this.#poller !== null) clearInterval(this.#poller);
    this.#poller = null;
  }

  /** The client left. */
  remove(waiting: Waiting): void {
    this.#waiting.delete(waiting);
  }

  /** Somewhere room was made. Looks once per turn of the event loop, however often it is called. */
  wake(): void {
    if (this.#woken || this.#waiting.size === 0) return;
    this.#woken = true;
    queueMicrotask(() => {
      this.#woken = false;
      this.admit();
    });
  }

  /** Gives room to those who wait, oldest first. */
  admit(): void {
    let looked = 0;
    const now = this.#now();
    for (const waiting of this.#waiting) {
      if (++looked > maxLook) return;
      const lease = this.#balancer.acquire(now, waiting);
      if (lease === 'full') {
        if (!waiting.picky) return;
        continue;
      }
      this.#waiting.delete(waiting);
      if (lease === 'none') waiting.turnedAway('none');
      else waiting.admitted(lease);
    }
  }

  /** Turns away whoever has waited too long. */
  expire(now: number): void {
    for (const waiting of this.#waiting) {
      if (now - waiting.queuedAt < this.#settings.queueTimeoutMs) return;
      this.#waiting.delete(waiting);
      waiting.turnedAway('late');
    }
  }
}
