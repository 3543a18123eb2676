import type { DirectoryEntry } from '../core/directory.ts';
import type { ProxySettings } from './settings.ts';
import { UpstreamPool } from './upstream-pool.ts';

/** An upstream as this thread reaches it. */
export type Upstream = Readonly<{
  entry: DirectoryEntry;
  pool: UpstreamPool;
  /** Path of the base URL, put before the path of every request; mostly empty. */
  prefix: string;
}>;

/**
 * The upstreams this thread knows, by row of the load table, with a connection pool each; and which rows may serve which
 * model, as masks for the balancer.
 */
export class Upstreams {
  readonly #settings: ProxySettings;
  readonly #rows: (Upstream | undefined)[] = [];
  readonly #capacity: number;
  #known: Uint8Array;
  #byModel = new Map<string, Uint8Array | null>();
  #models = new Set<string>();
  #anyModel = false;

  constructor(settings: ProxySettings, capacity: number) {
    this.#settings = settings;
    this.#capacity = capacity;
    this.#known = new Uint8Array(capacity);
    this.nobody = new Uint8Array(capacity);
  }

  /** True when at least one upstream has told which models it serves. */
  get knowsModels(): boolean {
    return this.#models.size > 0;
  }

  /** Rows that this thread can reach. */
  get known(): Uint8Array {
    return this.#known;
  }

  /** No row at all. */
  readonly nobody: Uint8Array;

  get(row: number, generation: number): Upstream | null {
    const upstream = this.#rows[row];
    return upstream !== undefined && upstream.entry.generation === generation ? upstream : null;
  }

  all(): Upstream[] {
    return this.#rows.filter((upstream) => upstream !== undefined);
  }

  /** Rows that may serve `model`; null when nobody in the fleet has it, not even somebody who is down. */
  serving(model: string): Uint8Array | null {
    let mask = this.#byModel.get(model);
    if (mask !== undefined) return mask;
    if (!this.#models.has(model) && !this.#anyModel) return null;
    mask = new Uint8Array(this.#capacity);
    for (const upstream of this.all()) {
      const models = upstream.entry.models;
      if (models === null || models.includes(model)) mask[upstream.entry.row] = 1;
    }
    // Clients choose the names they ask for, so only so many are remembered.
    if (this.#byModel.size < 1024) this.#byModel.set(model, mask);
    return mask;
  }

  /**
   * Takes a new directory; returns the upstreams that are no longer in it. One that has moved to another origin is left
   * to finish what it has.
   */
  update(entries: readonly DirectoryEntry[]): Upstream[] {
    const gone: Upstream[] = [];
    const next = new Map(entries.map((entry) => [entry.row, entry]));
    for (const upstream of this.all()) {
      const { row, generation, origin } = upstream.entry;
      const entry = next.get(row);
      if (entry !== undefined && entry.generation === generation && entry.origin === origin) {
        this.#rows[row] = { ...upstream, entry };
        next.delete(row);
      } else {
        this.#rows[row] = undefined;
        if (entry?.generation === generation) upstream.pool.retire();
        else gone.push(upstream);
      }
    }
    for (const entry of next.values()) {
      if (entry.row < this.#capacity) this.#rows[entry.row] = this.#open(entry);
    }
    this.#known = new Uint8Array(this.#capacity);
    this.#models = new Set();
    this.#anyModel = false;
    this.#byModel = new Map();
    for (const { entry } of this.all()) {
      this.#known[entry.row] = 1;
      if (entry.models === null) this.#anyModel = true;
      else for (const model of entry.models) this.#models.add(model);
    }
    return gone;
  }

  destroy(): void {
    for (const upstream of this.all()) upstream.pool.destroy();
  }

  #open(entry: DirectoryEntry): Upstream {
    const url = new URL(entry.origin);
    const pool = new UpstreamPool(url, this.#settings);
    return { entry, pool, prefix: url.pathname === '/' ? '' : url.pathname.replace(/\/+$/, '') };
  }
}
