import { chmodSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import * as z from 'zod';
import type { FleetEvent } from '../app.ts';
import { lockDataDir } from './lock.ts';
import { migrations } from './migrations.ts';
import {
  type Charge,
  chargeRow,
  type Extension,
  eventRow,
  extensionRow,
  type IdempotencyEntry,
  idempotencyRow,
  keyRow,
  type OperatorChoice,
  operatorRow,
  type Rental,
  type Reservation,
  rentalRow,
  reservationRow,
  type StaticUpstream,
  type StoredKey,
  staticRow,
} from './rows.ts';

/**
 * What was rented, what was meant to be rented, and what else must survive a crash. Calls are synchronous: a
 * transaction is never open across an `await`, and when a method has returned, its change is on the disk.
 */
export interface Ledger extends Disposable {
  /** Commits everything done inside, or nothing. Nested calls join the outer transaction. */
  transaction<T>(work: () => T): T;

  readonly rentals: {
    insert(rental: Rental): void;
    /** Returns the row as it is after the change. */
    update(label: string, change: Partial<Omit<Rental, 'label'>>): Rental;
    get(label: string): Rental | undefined;
    byInstance(instanceId: string): Rental | undefined;
    byContract(provider: string, contract: string): Rental | undefined;
    /** Everything that exists or may exist, oldest first. */
    open(): Rental[];
    /** Ended since `at`, oldest first. */
    endedSince(at: number): Rental[];
    of(reservation: string): Rental[];
    instanceIdUsed(instanceId: string): boolean;
    /** Rentals that came to be, ever, by provider. */
    lifetime(): ReadonlyMap<string, number>;
    /** USD per hour of everything that is running or intended. */
    committedUsdPerHour(): number;
  };
  readonly reservations: {
    insert(reservation: Reservation): void;
    update(id: string, change: Partial<Pick<Reservation, 'state' | 'errors'>>): void;
    get(id: string): Reservation | undefined;
    /** In a state other than `settled`. */
    unsettled(): Reservation[];
    /** The newest, and all that own something that exists or may exist; newest first. */
    shown(limit: number): Reservation[];
  };
  readonly extensions: {
    insert(extension: Omit<Extension, 'id'>): Extension;
    /** Writes price, state and time of settlement. */
    update(extension: Extension): void;
    /** Whose outcome is not known. */
    open(): Extension[];
  };
  readonly charges: {
    insert(charge: Charge): void;
    sumByLabel(): ReadonlyMap<string, number>;
    total(): number;
    /** That reach past `at`. */
    since(at: number): Charge[];
  };
  readonly idempotency: {
    get(key: string): IdempotencyEntry | undefined;
    insert(entry: IdempotencyEntry): void;
    finish(key: string, result: string): void;
    remove(key: string): void;
    removeOlderThan(at: number): void;
  };
  readonly keys: {
    insert(key: StoredKey): void;
    all(): StoredKey[];
    /** Writes every column but the hash and the times of creation and use. */
    replace(key: StoredKey): void;
    setRevoked(id: string, at: number): void;
    setLastUsed(id: string, at: number): void;
  };
  readonly events: {
    insert(event: FleetEvent): void;
    /** The newest, oldest first. */
    recent(limit: number): FleetEvent[];
    prune(keep: number): void;
  };
  readonly settings: { get(name: string): string | undefined; set(name: string, value: string): void };
  readonly statics: { insert(upstream: StaticUpstream): void; remove(name: string): boolean; all(): StaticUpstream[] };
  readonly operator: {
    set(choice: OperatorChoice): void;
    get(instanceId: string): OperatorChoice | undefined;
    remove(instanceId: string): void;
  };
  close(): void;
}

const rentalColumns = {
  label: 'label',
  reservation: 'reservation',
  instanceId: 'instance_id',
  provider: 'provider',
  offerId: 'offer_id',
  contract: 'contract',
  state: 'state',
  wanted: 'wanted',
  gpuModel: 'gpu_model',
  gpuCount: 'gpu_count',
  vramGb: 'vram_gb',
  usdPerHour: 'usd_per_hour',
  limitUsdPerHour: 'limit_usd_per_hour',
  priceSeen: 'price_seen',
  diskUsdPerHour: 'disk_usd_per_hour',
  prepaid: 'prepaid',
  prepaidHours: 'prepaid_hours',
  location: 'location',
  interruptible: 'interruptible',
  origin: 'origin',
  createdAt: 'created_at',
  settledAt: 'settled_at',
  ran: 'ran',
  billedFrom: 'billed_from',
  diskFrom: 'disk_from',
  expiresAt: 'expires_at',
  endedAt: 'ended_at',
  reason: 'reason',
} as const satisfies Record<keyof Rental, string>;

const sqlValue = (value: string | number | boolean | null): SQLInputValue =>
  typeof value === 'boolean' ? Number(value) : value;

/**
 * Opens (and creates or migrates) the ledger of a data directory and holds the directory until `close`.
 * Throws LedgerLockedError when another process holds it.
 */
export function openLedger(dataDir: string): Ledger {
  makeFolder(dataDir);
  const lock = lockDataDir(dataDir);
  let db: DatabaseSync;
  try {
    db = openDatabase(join(dataDir, 'ledger.db'));
  } catch (error) {
    lock.release();
    throw error;
  }

  const statements = new Map<string, StatementSync>();
  const prepare = (sql: string): StatementSync => {
    let statement = statements.get(sql);
    if (statement === undefined) {
      statement = db.prepare(sql);
      statements.set(sql, statement);
    }
    return statement;
  };
  const run = (sql: string, ...values: SQLInputValue[]) => prepare(sql).run(...values);
  const one = <T>(schema: z.ZodType<T>, sql: string, ...values: SQLInputValue[]): T | undefined => {
    const row = prepare(sql).get(...values);
    return row === undefined ? undefined : schema.parse(row);
  };
  const many = <T>(schema: z.ZodType<T>, sql: string, ...values: SQLInputValue[]): T[] =>
    prepare(sql)
      .all(...values)
      .map((row) => schema.parse(row));

  let depth = 0;
  const transaction = <T>(work: () => T): T => {
    if (depth > 0) return work();
    db.exec('BEGIN IMMEDIATE');
    depth = 1;
    try {
      const result = work();
      db.exec('COMMIT');
      return result;
    } catch (error) {
      // A failed COMMIT may already have rolled back.
      if (db.isTransaction) db.exec('ROLLBACK');
      throw error;
    } finally {
      depth = 0;
    }
  };

  const open = `state NOT IN ('ended', 'refused')`;
  const sum = z.object({ sum: z.number().nullable() });
  let closed = false;

  const ledger: Ledger = {
    transaction,
    rentals: {
      insert(rental) {
        const names = Object.keys(rentalColumns) as (keyof Rental)[];
        run(
          `INSERT INTO rentals (${names.map((name) => rentalColumns[name]).join(', ')}) VALUES (${names.map(() => '?').join(', ')})`,
          ...names.map((name) => sqlValue(rental[name])),
        );
      },
      update(label, change) {
        const names = Object.keys(change) as (keyof typeof change)[];
        run(
          `UPDATE rentals SET ${names.map((name) => `${rentalColumns[name]} = ?`).join(', ')} WHERE label = ?`,
          ...names.map((name) => sqlValue(change[name] ?? null)),
          label,
        );
        const row = ledger.rentals.get(label);
        if (row === undefined) throw new Error(`no rental is labelled ${label}`);
        return row;
      },
      get: (label) => one(rentalRow, 'SELECT * FROM rentals WHERE label = ?', label),
      byInstance: (id) => one(rentalRow, 'SELECT * FROM rentals WHERE instance_id = ?', id),
      byContract: (provider, contract) =>
        one(rentalRow, 'SELECT * FROM rentals WHERE provider = ? AND contract = ?', provider, contract),
      open: () => many(rentalRow, `SELECT * FROM rentals WHERE ${open} ORDER BY created_at, rowid`),
      endedSince: (at) =>
        many(rentalRow, `SELECT * FROM rentals WHERE state = 'ended' AND ended_at >= ? ORDER BY created_at, rowid`, at),
      of: (reservation) =>
        many(rentalRow, 'SELECT * FROM rentals WHERE reservation = ? ORDER BY created_at, rowid', reservation),
      instanceIdUsed: (id) => prepare('SELECT 1 FROM rentals WHERE instance_id = ?').get(id) !== undefined,
      lifetime: () =>
        new Map(
          many(
            z.object({ provider: z.string(), count: z.number() }),
            `SELECT provider, count(*) AS count FROM rentals WHERE state IN ('rented', 'destroying', 'ended') GROUP BY provider`,
          ).map((row) => [row.provider, row.count]),
        ),
      committedUsdPerHour: () => one(sum, `SELECT sum(usd_per_hour) AS sum FROM rentals WHERE ${open}`)?.sum ?? 0,
    },
    reservations: {
      insert(r) {
        run(
          'INSERT INTO reservations (id, created_at, created_by, requested, all_or_nothing, state, errors, idempotency_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
          r.id,
          r.createdAt,
          r.by,
          r.requested,
          Number(r.allOrNothing),
          r.state,
          JSON.stringify(r.errors),
          r.idempotencyKey,
        );
      },
      update(id, change) {
        if (change.state !== undefined) run('UPDATE reservations SET state = ? WHERE id = ?', change.state, id);
        if (change.errors !== undefined) {
          run('UPDATE reservations SET errors = ? WHERE id = ?', JSON.stringify(change.errors), id);
        }
      },
      get: (id) => one(reservationRow, 'SELECT * FROM reservations WHERE id = ?', id),
      unsettled: () =>
        many(reservationRow, `SELECT * FROM reservations WHERE state <> 'settled' ORDER BY created_at, rowid`),
      shown: (limit) =>
        many(
          reservationRow,
          `SELECT * FROM reservations
           WHERE id IN (SELECT id FROM reservations ORDER BY created_at DESC, rowid DESC LIMIT ?)
              OR id IN (SELECT reservation FROM rentals WHERE ${open})
           ORDER BY created_at DESC, rowid DESC`,
          limit,
        ),
    },
    extensions: {
      insert(e) {
        const { lastInsertRowid } = run(
          'INSERT INTO extensions (label, hours, usd, created_at, expires_before, state, settled_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
          e.label,
          e.hours,
          e.usd,
          e.createdAt,
          e.expiresBefore,
          e.state,
          e.settledAt,
        );
        return { ...e, id: Number(lastInsertRowid) };
      },
      update: (e) =>
        void run(
          'UPDATE extensions SET usd = ?, state = ?, settled_at = ? WHERE id = ?',
          e.usd,
          e.state,
          e.settledAt,
          e.id,
        ),
      open: () => many(extensionRow, `SELECT * FROM extensions WHERE state IN ('intended', 'unknown') ORDER BY id`),
    },
    charges: {
      insert(charge) {
        run(
          'INSERT INTO charges (label, from_at, to_at, usd) VALUES (?, ?, ?, ?)',
          charge.label,
          charge.fromAt,
          charge.toAt,
          charge.usd,
        );
      },
      sumByLabel: () =>
        new Map(
          many(
            z.object({ label: z.string(), usd: z.number() }),
            `SELECT label, sum(usd) AS usd FROM charges GROUP BY label`,
          ).map((row) => [row.label, row.usd]),
        ),
      total: () => one(sum, 'SELECT sum(usd) AS sum FROM charges')?.sum ?? 0,
      since: (at) => many(chargeRow, 'SELECT * FROM charges WHERE to_at >= ?', at),
    },
    idempotency: {
      get: (key) => one(idempotencyRow, 'SELECT * FROM idempotency WHERE key = ?', key),
      insert(entry) {
        run(
          'INSERT INTO idempotency (key, body_hash, reservation, created_at, result) VALUES (?, ?, ?, ?, ?)',
          entry.key,
          entry.bodyHash,
          entry.reservation,
          entry.createdAt,
          entry.result,
        );
      },
      finish: (key, result) => void run('UPDATE idempotency SET result = ? WHERE key = ?', result, key),
      remove: (key) => void run('DELETE FROM idempotency WHERE key = ?', key),
      removeOlderThan: (at) => void run('DELETE FROM idempotency WHERE created_at < ?', at),
    },
    keys: {
      insert(key) {
        run(
          'INSERT INTO api_keys (id, name, hash, scope, created_at, last_used_at, expires_at, revoked_at, requests_per_minute, max_concurrent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
          key.id,
          key.name,
          key.hash,
          key.scope,
          key.createdAt,
          key.lastUsedAt,
          key.expiresAt,
          key.revokedAt,
          key.requestsPerMinute,
          key.maxConcurrent,
        );
      },
      all: () => many(keyRow, 'SELECT * FROM api_keys ORDER BY created_at, rowid'),
      replace: (key) =>
        void run(
          'UPDATE api_keys SET name = ?, scope = ?, expires_at = ?, revoked_at = ?, requests_per_minute = ?, max_concurrent = ? WHERE id = ?',
          key.name,
          key.scope,
          key.expiresAt,
          key.revokedAt,
          key.requestsPerMinute,
          key.maxConcurrent,
          key.id,
        ),
      setRevoked: (id, at) => void run('UPDATE api_keys SET revoked_at = ? WHERE id = ?', at, id),
      setLastUsed: (id, at) => void run('UPDATE api_keys SET last_used_at = ? WHERE id = ?', at, id),
    },
    events: {
      insert(event) {
        run(
          'INSERT OR IGNORE INTO events (id, at, level, kind, subject, message) VALUES (?, ?, ?, ?, ?, ?)',
          event.id,
          event.at,
          event.level,
          event.kind,
          event.subject,
          event.message,
        );
      },
      recent: (limit) => many(eventRow, 'SELECT * FROM events ORDER BY id DESC LIMIT ?', limit).reverse(),
      prune: (keep) =>
        void run(
          'DELETE FROM events WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?)',
          Math.max(0, keep),
        ),
    },
    settings: {
      get: (name) => one(z.object({ value: z.string() }), 'SELECT value FROM settings WHERE name = ?', name)?.value,
      set: (name, value) =>
        void run(
          'INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value',
          name,
          value,
        ),
    },
    statics: {
      insert: (upstream) =>
        void run(
          'INSERT INTO static_upstreams (name, url, added_at) VALUES (?, ?, ?)',
          upstream.name,
          upstream.url,
          upstream.addedAt,
        ),
      remove: (name) => run('DELETE FROM static_upstreams WHERE name = ?', name).changes > 0,
      all: () => many(staticRow, 'SELECT * FROM static_upstreams ORDER BY added_at, rowid'),
    },
    operator: {
      set: (choice) =>
        void run(
          'INSERT INTO operator (instance_id, draining, drain_deadline_at, weight) VALUES (?, ?, ?, ?) ON CONFLICT (instance_id) DO UPDATE SET draining = excluded.draining, drain_deadline_at = excluded.drain_deadline_at, weight = excluded.weight',
          choice.instanceId,
          Number(choice.draining),
          choice.drainDeadlineAt,
          choice.weight,
        ),
      get: (id) => one(operatorRow, 'SELECT * FROM operator WHERE instance_id = ?', id),
      remove: (id) => void run('DELETE FROM operator WHERE instance_id = ?', id),
    },
    close() {
      if (closed) return;
      closed = true;
      statements.clear();
      db.close();
      lock.release();
    },
    [Symbol.dispose]() {
      ledger.close();
    },
  };
  return ledger;
}

/** Not `recursive`: that one tries for ever where a folder cannot be made, as below /proc. */
function makeFolder(path: string): void {
  const make = () => mkdirSync(path, { mode: 0o700 });
  try {
    make();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || dirname(path) === path) throw error;
    makeFolder(dirname(path));
    make();
  }
}

function openDatabase(file: string): DatabaseSync {
  const db = new DatabaseSync(file, { timeout: 2000 });
  try {
    chmodSync(file, 0o600);
    // FULL: a committed intent must survive a power cut, or a paid call could have no owner.
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
    migrate(db, file);
  } catch (error) {
    db.close();
    throw error;
  }
  return db;
}

function migrate(db: DatabaseSync, file: string): void {
  const { user_version: version } = z
    .object({ user_version: z.number().int() })
    .parse(db.prepare('PRAGMA user_version').get());
  if (version > migrations.length) {
    throw new Error(
      `${file} was written by a newer gpuproxy (ledger version ${version}, this one knows ${migrations.length})`,
    );
  }
  for (const [index, sql] of migrations.entries()) {
    if (index < version) continue;
    db.exec(`BEGIN IMMEDIATE; ${sql}; PRAGMA user_version = ${index + 1}; COMMIT`);
  }
}
