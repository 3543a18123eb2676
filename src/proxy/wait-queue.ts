import type { Balancer, Lease } from '../core/balancer.ts';
import { type Elsewhere, WaitingLine } from '../core/waiting-line.ts';

/** A request that waits for an upstream below its ceiling. */
export interface Waiting {
  /** Rows that may serve it. */
  readonly allowed: Uint8Array;
  readonly tried: readonly number[];
  readonly queuedAt: number;
  admitted(lease: Lease): void;
  /** `none`: nothing eligible is left; `late`: the deadline has passed. */
  turnedAway(why: 'none' | 'late'): void;
}

/** Those whom the same upstreams can serve: when there is no room for the first there is none for the others. */
type Group = {
  readonly rows: Uint8Array;
  /** Where other threads see it. */
  place: number;
  /** With their tickets, in their order. */
  readonly waiting: Map<Waiting, number>;
};

/** How often those who wait look for room that nobody has told them of. */
const pollMs = 20;
/** Who did not go although it could is passed over for so many polls: it may have been mere chance. */
const stuckPolls = 10;
/** A thread has so many places for groups; the last is for all groups that have none of their own. */
const sharedPlace = WaitingLine.places - 1;

/**
 * First come, first served, bounded, with a deadline. Whoever could take a place that is free goes in the order in which
 * they came, whatever thread they wait in; who could not holds up nobody.
 */
export class WaitQueue {
  readonly #balancer: Balancer;
  readonly #settings: Readonly<{ queueLimit: number; queueTimeoutMs: number }>;
  readonly #now: () => number;
  readonly #line: WaitingLine;
  readonly #groups = new Map<number, Group>();
  readonly #groupOf = new Map<Waiting, Group>();
  /** Groups with a place of their own. */
  readonly #places: (Group | null)[] = Array.from({ length: sharedPlace }, () => null);
  /** What stands at the last place; 0: nobody. */
  #sharedTicket = 0;
  readonly #common: Uint8Array;
  #woken = false;
  #listening = false;
  #poller: NodeJS.Timeout | null = null;
  /** Who was let go so far. */
  #given = 0;
  /** Who was ahead at the last poll, by ticket. */
  #lastAhead = new Set<number>();
  /** Threads that are too busy to come, and tickets that did not go although they could: nobody waits for them. */
  readonly #busy = new Set<number>();
  readonly #stuck = new Map<number, number>();

  constructor(
    balancer: Balancer,
    settings: Readonly<{ queueLimit: number; queueTimeoutMs: number }>,
    now: () => number,
  ) {
    this.#balancer = balancer;
    this.#settings = settings;
    this.#now = now;
    this.#line = balancer.table.line(balancer.table.thread);
    this.#common = new Uint8Array(balancer.table.capacity);
  }

  /** Other upstreams, or other models of them: those who wait have been told. */
  directoryChanged(): void {
    const all = [...this.#groupOf].map(([waiting, group]) => ({ waiting, ticket: group.waiting.get(waiting)! }));
    all.sort((a, b) => (a.ticket - b.ticket) | 0);
    this.#groups.clear();
    this.#groupOf.clear();
    this.#places.fill(null);
    this.#line.clear();
    for (const { waiting, ticket } of all) this.#join(waiting, ticket);
    for (const group of this.#groups.values()) this.#show(group);
  }

  get size(): number {
    return this.#groupOf.size;
  }

  /** Must a newcomer queue up, because somebody waits who could take what it would take? */
  isAhead(newcomer: Waiting): boolean {
    if (this.#groupOf.size === 0 && !this.#line.elsewhere) return false;
    // It has had its turn before.
    if (newcomer.tried.length > 0) return false;
    for (const group of this.#groups.values()) {
      const common = group.rows === newcomer.allowed ? group.rows : this.#inCommon(group.rows, newcomer.allowed);
      if (common !== null && this.#hasRoom(common)) return true;
    }
    return this.#ahead(newcomer.allowed, 0) !== null;
  }

  /** False when it is full. */
  add(waiting: Waiting): boolean {
    if (this.#groupOf.size >= this.#settings.queueLimit) return false;
    const group = this.#join(waiting, this.#line.ticket());
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
    const wasFirst = firstOf(group) === waiting;
    this.#groupOf.delete(waiting);
    group.waiting.delete(waiting);
    if (group.waiting.size === 0) this.#leave(group);
    else if (wasFirst) this.#show(group);
  }

  /** Somewhere room was made. Looks once per turn of the event loop, however often it is called. */
  wake(): void {
    if (this.#woken || (this.#groupOf.size === 0 && !this.#line.elsewhere)) return;
    this.#woken = true;
    queueMicrotask(() => {
      this.#woken = false;
      this.admit();
      this.#passOn();
    });
  }

  /** Gives room to those who wait, oldest first. `thorough`: looks at everybody, also where there can hardly be any. */
  admit(thorough = false): void {
    const now = this.#now();
    const past = new Set<Group>();
    for (let group = this.#oldest(past); group !== null; group = this.#oldest(past)) {
      const waiting = firstOf(group)!;
      const ahead = this.#ahead(group.rows, this.#ticketOf(group));
      if (ahead !== null) {
        this.#line.call(ahead.thread);
        past.add(group);
        continue;
      }
      const lease = this.#balancer.acquire(now, waiting);
      if (lease === 'full') {
        past.add(group);
        if (!thorough)
          for (const other of this.#groups.values()) if (this.#isWithin(other.rows, group.rows)) past.add(other);
        continue;
      }
      this.remove(waiting);
      this.#given++;
      if (lease === 'none') waiting.turnedAway('none');
      else waiting.admitted(lease);
    }
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

  readonly #hasRoom = (rows: Uint8Array): boolean => this.#balancer.hasRoom(this.#now(), { allowed: rows });

  readonly #isPassed = ({ thread, ticket }: Elsewhere): boolean => this.#busy.has(thread) || this.#stuck.has(ticket);

  #ahead(rows: Uint8Array, ticket: number): Elsewhere | null {
    for (const thread of this.#busy) if (!this.#line.owesAnswer(thread)) this.#busy.delete(thread);
    return this.#line.ahead(rows, ticket, this.#hasRoom, this.#isPassed);
  }

  /** What is left is for those who wait in other threads. */
  #passOn(): void {
    this.#line.callFirst(this.#hasRoom);
  }

  /** Who is ahead for the second time was called and did not go: nobody waits for it any longer. */
  #poll(): void {
    const ahead = new Set<number>();
    for (const group of this.#groups.values()) {
      const one = this.#ahead(group.rows, this.#ticketOf(group));
      if (one === null) continue;
      ahead.add(one.ticket);
      if (!this.#lastAhead.has(one.ticket)) continue;
      if (this.#line.owesAnswer(one.thread)) this.#busy.add(one.thread);
      else this.#stuck.set(one.ticket, stuckPolls);
    }
    this.#lastAhead = ahead;
    for (const [ticket, polls] of this.#stuck) {
      if (polls > 0) this.#stuck.set(ticket, polls - 1);
      else this.#stuck.delete(ticket);
    }
    this.admit(true);
  }

  /** The group whose first has waited longest, of those that were not looked at. */
  #oldest(past: ReadonlySet<Group>): Group | null {
    let oldest: Group | null = null;
    for (const group of this.#groups.values()) {
      if (past.has(group)) continue;
      if (oldest === null || ((firstTicket(group) - firstTicket(oldest)) | 0) < 0) oldest = group;
    }
    return oldest;
  }

  #join(waiting: Waiting, ticket: number): Group {
    const rows = waiting.tried.length > 0 ? without(waiting.allowed, waiting.tried) : waiting.allowed;
    const key = keyOf(rows);
    let group = this.#groups.get(key);
    if (group === undefined) {
      const free = this.#places.indexOf(null);
      group = { rows, place: free === -1 ? sharedPlace : free, waiting: new Map() };
      if (free !== -1) this.#places[free] = group;
      this.#groups.set(key, group);
    }
    group.waiting.set(waiting, ticket);
    this.#groupOf.set(waiting, group);
    return group;
  }

  /** Nobody is in the group any more. */
  #leave(group: Group): void {
    this.#groups.delete(keyOf(group.rows));
    if (group.place === sharedPlace) {
      this.#show(group);
      return;
    }
    this.#places[group.place] = null;
    for (const other of this.#groups.values()) {
      if (other.place !== sharedPlace) continue;
      other.place = group.place;
      this.#places[other.place] = other;
      this.#show(other);
      this.#showShared();
      return;
    }
    this.#line.hide(group.place);
  }

  #show(group: Group): void {
    if (group.place === sharedPlace) this.#showShared();
    else this.#line.show(group.place, group.rows, firstTicket(group));
  }

  /** All that have no place of their own, as one. */
  #showShared(): void {
    let rows: Uint8Array | null = null;
    this.#sharedTicket = 0;
    for (const group of this.#groups.values()) {
      if (group.place !== sharedPlace) continue;
      rows ??= new Uint8Array(group.rows.length);
      for (let row = 0; row < rows.length; row++) if (group.rows[row] === 1) rows[row] = 1;
      const ticket = firstTicket(group);
      if (this.#sharedTicket === 0 || ((ticket - this.#sharedTicket) | 0) < 0) this.#sharedTicket = ticket;
    }
    if (rows === null) this.#line.hide(sharedPlace);
    else this.#line.show(sharedPlace, rows, this.#sharedTicket);
  }

  /** As others see it. */
  #ticketOf(group: Group): number {
    return group.place === sharedPlace ? this.#sharedTicket : firstTicket(group);
  }

  /** Rows that both have, until the next call; null: none. */
  #inCommon(a: Uint8Array, b: Uint8Array): Uint8Array | null {
    const common = this.#common;
    common.fill(0);
    let some = false;
    const { high } = this.#balancer.table;
    for (let row = 0; row < high; row++) {
      if (a[row] !== 1 || b[row] !== 1) continue;
      common[row] = 1;
      some = true;
    }
    return some ? common : null;
  }

  #isWithin(rows: Uint8Array, others: Uint8Array): boolean {
    if (rows === others) return true;
    const { high } = this.#balancer.table;
    for (let row = 0; row < high; row++) if (rows[row] === 1 && others[row] !== 1) return false;
    return true;
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
      this.admit();
      // Who called has stood back: there may be room left for it.
      if (this.#given > before || this.#groupOf.size === 0) this.#passOn();
    });
  }
}

function firstOf(group: Group): Waiting | null {
  for (const waiting of group.waiting.keys()) return waiting;
  return null;
}

/** 0: nobody is in it. */
function firstTicket(group: Group): number {
  for (const ticket of group.waiting.values()) return ticket;
  return 0;
}

const keys = new WeakMap<Uint8Array, number>();

/** The same for the same rows. */
function keyOf(rows: Uint8Array): number {
  let key = keys.get(rows);
  if (key === undefined) {
    // FNV-1a.
    key = 0x811c9dc5;
    for (let row = 0; row < rows.length; row++) if (rows[row] === 1) key = Math.imul(key ^ row, 0x01000193);
    keys.set(rows, key);
  }
  return key;
}

function without(rows: Uint8Array, left: readonly number[]): Uint8Array {
  const rest = rows.slice();
  for (const row of left) rest[row] = 0;
  return rest;
}
