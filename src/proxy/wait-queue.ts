import type { Balancer, Lease } from '../core/balancer.ts';
import { maskKey, WaitingLine } from '../core/waiting-line.ts';

/** A request that waits for an upstream below its ceiling. */
export interface Waiting {
  /** Rows that may serve it. */
  readonly allowed: Uint8Array;
  readonly tried: readonly number[];
  readonly queuedAt: number;
  readonly model: string | null;
  /** True when its model restricts it to some of the upstreams. */
  readonly picky: boolean;
  admitted(lease: Lease): void;
  /** `none`: nothing eligible is left; `late`: the deadline has passed. */
  turnedAway(why: 'none' | 'late'): void;
}

/** Those whom the same upstreams can serve: when there is no room for the first there is none for the others. */
type Group = {
  readonly name: string | Waiting | null;
  /** The same for all groups that the same upstreams can serve, in every thread. */
  key: number;
  /** Where other threads see it; -1: nowhere. */
  place: number;
  /** With their tickets, in their order. */
  readonly waiting: Map<Waiting, number>;
};

/** How often those who wait look for room that nobody has told them of. */
const pollMs = 20;
const nowhere = -1;

/**
 * First come, first served, bounded, with a deadline. Who waits for one model is not held up by those who wait for another;
 * within what the same upstreams can serve the order is one over all threads.
 */
export class WaitQueue {
  readonly #balancer: Balancer;
  readonly #settings: Readonly<{ queueLimit: number; queueTimeoutMs: number }>;
  readonly #now: () => number;
  readonly #line: WaitingLine;
  /** By model; one that has tried upstreams already is a group of its own. */
  readonly #groups = new Map<string | Waiting | null, Group>();
  readonly #groupOf = new Map<Waiting, Group>();
  readonly #places: (Group | null)[] = Array.from({ length: WaitingLine.places }, () => null);
  #woken = false;
  #listening = false;
  #poller: NodeJS.Timeout | null = null;
  /** The thread that was ahead at the last poll and had not come although it was called; -1: none. */
  #late = -1;
  /** Threads that are too busy to come: nobody waits for them until they do. */
  readonly #passed = new Set<number>();
  /** Key of those whom any upstream can serve. */
  #anybody: number;

  constructor(
    balancer: Balancer,
    settings: Readonly<{ queueLimit: number; queueTimeoutMs: number }>,
    now: () => number,
  ) {
    this.#balancer = balancer;
    this.#settings = settings;
    this.#now = now;
    this.#line = balancer.table.line(balancer.table.thread);
    this.#anybody = maskKey(new Uint8Array(0));
  }

  /** Other upstreams, or other models of them: those who wait have been told. */
  directoryChanged(known: Uint8Array): void {
    this.#anybody = maskKey(known);
    for (const group of this.#groups.values()) {
      for (const first of group.waiting.keys()) {
        group.key = maskKey(first.allowed);
        break;
      }
      this.#show(group);
    }
  }

  get size(): number {
    return this.#groupOf.size;
  }

  /** Must a newcomer queue up, because somebody waits who could take what it would take? */
  isAhead(newcomer: Waiting): boolean {
    if (this.#groupOf.size === 0 && !this.#line.elsewhere) return false;
    // It has had its turn before.
    if (newcomer.tried.length > 0) return false;
    const key = maskKey(newcomer.allowed);
    for (const group of this.#groups.values()) {
      if (group.place !== nowhere && (group.key === key || group.key === this.#anybody)) return true;
    }
    return this.#ahead(key, 0) !== -1;
  }

  /** False when it is full. */
  add(waiting: Waiting): boolean {
    if (this.#groupOf.size >= this.#settings.queueLimit) return false;
    const name = waiting.tried.length > 0 ? waiting : nameOf(waiting);
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = { name, key: maskKey(waiting.allowed), place: nowhere, waiting: new Map() };
      this.#groups.set(name, group);
      if (isShown(group)) this.#takePlace(group);
    }
    group.waiting.set(waiting, this.#line.ticket());
    this.#groupOf.set(waiting, group);
    if (group.waiting.size === 1) this.#show(group);
    this.#listen();
    this.#poller ??= setInterval(() => {
      if (this.#groupOf.size > 0) this.#poll();
      else this.close();
    }, pollMs);
    return true;
  }

  /** Stops looking for room; the next who waits starts it again. */
  close(): void {
    if (this.#poller !== null) clearInterval(this.#poller);
    this.#poller = null;
    if (this.#groupOf.size === 0) this.#line.clear();
  }

  /** The client left, or has got what it waited for. */
  remove(waiting: Waiting): void {
    const group = this.#groupOf.get(waiting);
    if (group === undefined) return;
    this.#groupOf.delete(waiting);
    group.waiting.delete(waiting);
    this.#show(group);
    if (group.waiting.size > 0) return;
    this.#groups.delete(group.name);
    if (group.place === nowhere) return;
    this.#places[group.place] = null;
    for (const other of this.#groups.values()) {
      if (other.place !== nowhere || !isShown(other)) continue;
      this.#takePlace(other);
      this.#show(other);
      break;
    }
  }

  /** Somewhere room was made. Looks once per turn of the event loop, however often it is called. */
  wake(): void {
    if (this.#woken || (this.#groupOf.size === 0 && !this.#line.elsewhere)) return;
    this.#woken = true;
    queueMicrotask(() => {
      this.#woken = false;
      this.#passOn(this.admit());
    });
  }

  /** There may be room for others, unless those whom anything will do have found none. */
  #passOn(full: ReadonlySet<number>): void {
    if (!full.has(this.#anybody)) this.#line.callOthers(full);
  }

  #ahead(key: number, ticket: number): number {
    for (const thread of this.#passed) if (!this.#line.owesAnswer(thread)) this.#passed.delete(thread);
    return this.#line.ahead(key, this.#anybody, ticket, this.#passed);
  }

  #poll(): void {
    let late = -1;
    for (const group of this.#groups.values()) {
      const ahead = group.place === nowhere ? -1 : this.#ahead(group.key, firstTicket(group));
      if (ahead !== -1 && this.#line.owesAnswer(ahead)) late = ahead;
    }
    if (late !== -1 && late === this.#late) this.#passed.add(late);
    this.#late = late;
    this.admit();
  }

  /** Gives room to those who wait, oldest first. Returns the keys for which there is none. */
  admit(): ReadonlySet<number> {
    const now = this.#now();
    const full = new Set<number>();
    const past = new Set<Group>();
    for (let group = this.#oldest(past); group !== null; group = this.#oldest(past)) {
      const [waiting, ticket] = group.waiting.entries().next().value as [Waiting, number];
      const ahead = group.place === nowhere ? -1 : this.#ahead(group.key, ticket);
      if (ahead !== -1) {
        this.#line.call(ahead);
        past.add(group);
        continue;
      }
      const lease = this.#balancer.acquire(now, waiting);
      if (lease === 'full') {
        past.add(group);
        if (group.place !== nowhere) full.add(group.key);
        // Where anything will do and nothing is there, there is nothing for anybody.
        if (group.key === this.#anybody && group.place !== nowhere) return full;
        continue;
      }
      this.remove(waiting);
      this.#given++;
      if (lease === 'none') waiting.turnedAway('none');
      else waiting.admitted(lease);
    }
    return full;
  }

  /** Who was let go so far. */
  #given = 0;

  /** The group whose first has waited longest, of those that were not looked at. */
  #oldest(past: ReadonlySet<Group>): Group | null {
    let oldest: Group | null = null;
    for (const group of this.#groups.values()) {
      if (past.has(group)) continue;
      if (oldest === null || ((firstTicket(group) - firstTicket(oldest)) | 0) < 0) oldest = group;
    }
    return oldest;
  }

  /** Turns away whoever has waited too long. */
  expire(now: number): void {
    for (const group of this.#groups.values()) {
      for (const waiting of group.waiting.keys()) {
        if (now - waiting.queuedAt < this.#settings.queueTimeoutMs) break;
        this.remove(waiting);
        waiting.turnedAway('late');
      }
    }
  }

  #takePlace(group: Group): void {
    const place = this.#places.indexOf(null);
    if (place === nowhere) return;
    group.place = place;
    this.#places[place] = group;
  }

  #show(group: Group): void {
    if (group.place !== nowhere) this.#line.show(group.place, group.key, firstTicket(group));
  }

  /** Comes when it is called, as long as somebody waits here. */
  #listen(): void {
    if (this.#listening) return;
    this.#listening = true;
    void this.#line.called().then(() => {
      this.#listening = false;
      this.#line.answer();
      if (this.#groupOf.size > 0) this.#listen();
      const before = this.#given;
      const full = this.admit();
      // Who called has stood back: there may be room left for it.
      if (this.#given > before || this.#groupOf.size === 0) this.#passOn(full);
    });
  }
}

const nameOf = (waiting: Waiting): string | null => (waiting.picky ? waiting.model : null);
/** One that has tried upstreams already goes by what it has left, which no other thread knows of. */
const isShown = ({ name }: Group): boolean => name === null || typeof name === 'string';

/** 0: nobody is in it. */
function firstTicket(group: Group): number {
  for (const ticket of group.waiting.values()) return ticket;
  return 0;
}
