import { type Ending, endings, type StrategyName, strategyNames } from './domain.ts';
import type { Decision, DecisionCandidate } from './report.ts';

/** Why a row could not be picked; 0 means that it could. The order is that of `exclusionWords`. */
export const exclusion = {
  none: 0,
  notRunning: 1,
  draining: 2,
  unknown: 3,
  ejected: 4,
  probation: 5,
  backoff: 6,
  full: 7,
  model: 8,
  tried: 9,
} as const;

const exclusionWords = [
  null,
  'not running',
  'draining',
  'not probed yet',
  'ejected',
  'on probation with its one request open',
  'backing off',
  'at its ceiling',
  'does not have the model',
  'already tried by this request',
] as const;

/** Candidates kept of one decision; of a larger fleet the first ones and the winner. */
const keptCandidates = 24;

const noEnding = -1;

/**
 * The last picks of one thread with what was compared, in a ring of typed arrays: recording allocates nothing. A slot is
 * overwritten when its turn comes again; a lease that settles later than that finds another sequence number there.
 */
export class DecisionTrace {
  readonly capacity: number;
  #next = 0;
  #slot = -1;
  #filled = 0;
  readonly #at: Float64Array;
  readonly #strategy: Uint8Array;
  readonly #winner: Int32Array;
  readonly #winnerGeneration: Int32Array;
  readonly #count: Uint8Array;
  readonly #rows: Int32Array;
  readonly #generations: Int32Array;
  readonly #codes: Uint8Array;
  readonly #scores: Float64Array;
  readonly #ending: Int8Array;
  readonly #ttfb: Float64Array;
  readonly #totalMs: Float64Array;
  readonly #sequence: Float64Array;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.#at = new Float64Array(capacity);
    this.#strategy = new Uint8Array(capacity);
    this.#winner = new Int32Array(capacity);
    this.#winnerGeneration = new Int32Array(capacity);
    this.#count = new Uint8Array(capacity);
    this.#rows = new Int32Array(capacity * keptCandidates);
    this.#generations = new Int32Array(capacity * keptCandidates);
    this.#codes = new Uint8Array(capacity * keptCandidates);
    this.#scores = new Float64Array(capacity * keptCandidates);
    this.#ending = new Int8Array(capacity);
    this.#ttfb = new Float64Array(capacity);
    this.#totalMs = new Float64Array(capacity);
    this.#sequence = new Float64Array(capacity).fill(-1);
  }

  /** Opens the record of a pick; candidates follow by `candidate`. Returns its sequence number. */
  begin(now: number, strategy: number): number {
    const sequence = this.#next++;
    // Counted on rather than divided: a remainder of doubles costs more than the rest of this.
    const slot = this.#slot + 1 === this.capacity ? 0 : this.#slot + 1;
    this.#slot = slot;
    this.#filled = 0;
    this.#sequence[slot] = sequence;
    this.#at[slot] = now;
    this.#strategy[slot] = strategy;
    this.#winner[slot] = -1;
    this.#count[slot] = 0;
    this.#ending[slot] = noEnding;
    this.#ttfb[slot] = -1;
    this.#totalMs[slot] = -1;
    return sequence;
  }

  /** Rows that the record opened last still has room for, one place kept for the winner. */
  room(): number {
    return keptCandidates - 1 - this.#filled;
  }

  /**
   * Adds a candidate to the record opened last. The score is `scores[row]`: handed over in its array, because a number
   * by itself would be allocated.
   */
  candidate(row: number, generation: number, code: number, scores: Float64Array): void {
    if (this.#filled === keptCandidates) return;
    const at = this.#slot * keptCandidates + this.#filled;
    this.#rows[at] = row;
    this.#generations[at] = generation;
    this.#codes[at] = code;
    this.#scores[at] = scores[row] as number;
    this.#filled++;
    this.#count[this.#slot] = this.#filled;
  }

  /** The winner of the record opened last. */
  won(row: number, generation: number): void {
    this.#winner[this.#slot] = row;
    this.#winnerGeneration[this.#slot] = generation;
  }

  /** How it ended; `ttfbMs` is -1 when no byte came. Nothing when the slot was used again meanwhile. */
  settle(sequence: number, ending: number, ttfbMs: number, totalMs: number): void {
    const slot = sequence % this.capacity;
    if (this.#sequence[slot] !== sequence) return;
    this.#ending[slot] = ending;
    this.#ttfb[slot] = ttfbMs;
    this.#totalMs[slot] = totalMs;
  }

  /**
   * Newest first. `idOf` names rows; one it answers null for (its upstream has left) is called "(gone)".
   * `epochOffsetMs` is what turns monotonic into wall-clock milliseconds.
   */
  recent(limit: number, idOf: (row: number, generation: number) => string | null, epochOffsetMs: number): Decision[] {
    const found: Decision[] = [];
    const oldest = Math.max(0, this.#next - this.capacity);
    for (let sequence = this.#next - 1; sequence >= oldest && found.length < limit; sequence--) {
      found.push(this.#decision(sequence % this.capacity, idOf, epochOffsetMs));
    }
    return found;
  }

  #decision(slot: number, idOf: (row: number, generation: number) => string | null, epochOffsetMs: number): Decision {
    const name = (row: number, generation: number) => idOf(row, generation) ?? '(gone)';
    const candidates: DecisionCandidate[] = [];
    for (let i = 0; i < (this.#count[slot] as number); i++) {
      const at = slot * keptCandidates + i;
      const excluded = exclusionWords[this.#codes[at] as number] ?? null;
      candidates.push({
        id: name(this.#rows[at] as number, this.#generations[at] as number),
        excluded,
        score: excluded === null && Number.isFinite(this.#scores[at]) ? Math.max(0, this.#scores[at] as number) : null,
      });
    }
    const winner = this.#winner[slot] as number;
    const known = (value: number | undefined) => (value === undefined || value < 0 ? null : value);
    return {
      at: (this.#at[slot] as number) + epochOffsetMs,
      strategy: strategyNames[this.#strategy[slot] as number] as StrategyName,
      winner: winner < 0 ? null : name(winner, this.#winnerGeneration[slot] as number),
      candidates,
      ending: (endings[this.#ending[slot] as number] as Ending | undefined) ?? null,
      ttfbMs: known(this.#ttfb[slot]),
      totalMs: known(this.#totalMs[slot]),
    };
  }
}
