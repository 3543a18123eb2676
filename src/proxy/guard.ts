import { hash } from 'node:crypto';
import { GuessLock } from '../core/guess-lock.ts';
import type { KeyTerms } from './key-limits.ts';

/** Who may come in. Plain data, so that it travels to a worker. */
export type ProxyAuth = Readonly<{
  /** False: everybody; keys are then looked at for their own limits and last use alone. */
  required: boolean;
  /** SHA-256 of each key that may use the data plane, hex. */
  hashes: readonly string[];
  /** Of these, those with limits or an end. */
  terms?: readonly KeyTerms[];
}>;

export type Admitted = Readonly<{ terms: KeyTerms | null }>;
/** `locked`: too many wrong keys came from the address; its keys are not looked at for so long. */
export type Refused = Readonly<{ refused: 'missing' | 'unknown' }> | Readonly<{ refused: 'locked'; waitMs: number }>;

type Known = { readonly hash: string; readonly terms: KeyTerms | null; used: boolean };

const anybody: Admitted = { terms: null };
const longestKey = 1024;
const checkedKept = 4096;

/** Knows which keys may come in. Checked keys are remembered, because hashing each time costs more than the rest of it. */
export class Guard {
  #required = false;
  #known: ReadonlyMap<string, Known> = new Map();
  readonly #checked = new Map<string, Known>();
  /** Clients of an open data plane often send a key that means nothing here, always the same. */
  #lastUnknown: string | null = null;
  readonly #guesses = new GuessLock();
  #used: string[] = [];

  constructor(auth: ProxyAuth) {
    this.set(auth);
  }

  set(auth: ProxyAuth): void {
    const known = new Map<string, Known>();
    for (const one of auth.hashes) known.set(one, { hash: one, terms: null, used: false });
    for (const terms of auth.terms ?? []) known.set(terms.hash, { hash: terms.hash, terms, used: false });
    this.#required = auth.required;
    this.#known = known;
    this.#checked.clear();
    this.#lastUnknown = null;
  }

  admit(key: string | null, address: string, nowMs: number): Admitted | Refused {
    if (key === null) return this.#required ? { refused: 'missing' } : anybody;
    // Those that proved right pass whatever else comes from their address.
    const known = this.#checked.get(key) ?? this.#look(key, address, nowMs);
    if ('refused' in known) return this.#required ? known : anybody;
    if (known.terms?.expiresAt != null && known.terms.expiresAt <= Date.now()) {
      return this.#required ? { refused: 'unknown' } : anybody;
    }
    if (!known.used) {
      known.used = true;
      this.#used.push(known.hash);
    }
    return known;
  }

  /** Hashes of the keys that were used since the last call. */
  takeUsed(): readonly string[] {
    const used = this.#used;
    if (used.length === 0) return used;
    this.#used = [];
    for (const one of used) {
      const known = this.#known.get(one);
      if (known !== undefined) known.used = false;
    }
    return used;
  }

  #look(key: string, address: string, nowMs: number): Known | Refused {
    if (!this.#required && key === this.#lastUnknown) return { refused: 'unknown' };
    const waitMs = this.#required ? this.#guesses.lockedMs(address, nowMs) : 0;
    if (waitMs > 0) return { refused: 'locked', waitMs };
    // Comparing hashes leaks nothing about a key by its timing: nobody can choose a key towards a given hash.
    const digest = key.length > longestKey ? '' : hash('sha256', key, 'hex');
    const known = this.#known.get(digest);
    if (known === undefined) {
      if (this.#required) this.#guesses.wrong(address, digest, nowMs);
      else this.#lastUnknown = key;
      return { refused: 'unknown' };
    }
    if (this.#checked.size < checkedKept) this.#checked.set(key, known);
    return known;
  }
}
