import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { unusedInstanceId } from '../../src/fleet/instance-id.ts';
import { type Ledger, openLedger } from '../../src/fleet/ledger/ledger.ts';
import { migrations } from '../../src/fleet/ledger/migrations.ts';
import type { Rental } from '../../src/fleet/ledger/rows.ts';

let dataDir = '';
let ledger: Ledger;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'gpuproxy-ledger-'));
  ledger = openLedger(dataDir);
});
afterEach(() => {
  ledger.close();
  rmSync(dataDir, { recursive: true, force: true });
});

const columnsOf = (db: DatabaseSync, table: string) => db.prepare(`PRAGMA table_info(${table})`).all();

const rental = (change: Partial<Rental> = {}): Rental => ({
  label: 'gpuproxy-1',
  reservation: 'res-1',
  instanceId: 'vast-1',
  provider: 'vast.ai',
  offerId: '1',
  contract: null,
  state: 'intended',
  wanted: true,
  gpuModel: 'RTX 4090',
  gpuCount: 1,
  vramGb: 24,
  usdPerHour: 0.5,
  limitUsdPerHour: null,
  priceSeen: false,
  diskUsdPerHour: 0,
  prepaid: false,
  prepaidHours: null,
  location: null,
  interruptible: false,
  origin: null,
  createdAt: 1,
  settledAt: null,
  ran: false,
  billedFrom: null,
  diskFrom: null,
  expiresAt: null,
  endedAt: null,
  reason: null,
  ...change,
});

test('a transaction that throws leaves nothing behind, and one inside another belongs to it', () => {
  expect(() =>
    ledger.transaction(() => {
      ledger.rentals.insert(rental());
      ledger.transaction(() => ledger.settings.set('a', 'b'));
      throw new Error('no');
    }),
  ).toThrow('no');
  expect(ledger.rentals.open()).toEqual([]);
  expect(ledger.settings.get('a')).toBeUndefined();
});

test('rows come back as they went in, and committed spending counts everything that is open', () => {
  ledger.rentals.insert(rental());
  ledger.rentals.insert(rental({ label: 'l2', instanceId: 'vast-2', usdPerHour: 1.25, state: 'destroying' }));
  ledger.rentals.insert(rental({ label: 'l3', instanceId: 'vast-3', usdPerHour: 7, state: 'ended', endedAt: 5 }));
  ledger.rentals.insert(rental({ label: 'l4', instanceId: 'vast-4', usdPerHour: 7, state: 'refused' }));
  expect(ledger.rentals.get('gpuproxy-1')).toEqual(rental());
  expect(ledger.rentals.committedUsdPerHour()).toBeCloseTo(1.75, 9);
  expect(ledger.rentals.open().map((row) => row.label)).toEqual(['gpuproxy-1', 'l2']);
  expect(ledger.rentals.endedSince(5).map((row) => row.label)).toEqual(['l3']);
  expect(ledger.rentals.lifetime().get('vast.ai')).toBe(2);
  expect(ledger.rentals.update('gpuproxy-1', { state: 'rented', contract: '9' })).toMatchObject({ contract: '9' });
  expect(ledger.rentals.byContract('vast.ai', '9')?.label).toBe('gpuproxy-1');
});

test('one contract cannot belong to two rentals, nor one instance id', () => {
  ledger.rentals.insert(rental({ contract: '9' }));
  expect(() => ledger.rentals.insert(rental({ label: 'l2', instanceId: 'vast-2', contract: '9' }))).toThrow();
  expect(() => ledger.rentals.insert(rental({ label: 'l2' }))).toThrow();
  expect(unusedInstanceId(ledger, 'vast-1')).toBe('vast-1-2');
  ledger.rentals.insert(rental({ label: 'l2', instanceId: 'vast-1-2' }));
  expect(unusedInstanceId(ledger, 'vast-1')).toBe('vast-1-3');
  expect(unusedInstanceId(ledger, 'ionet-a b/c')).toBe('ionet-a-b-c');
});

test('a row that was damaged by hand is refused by the name of its column', () => {
  ledger.rentals.insert(rental());
  ledger.close();
  const db = new DatabaseSync(join(dataDir, 'ledger.db'));
  db.exec(`UPDATE rentals SET state = 'lost'`);
  db.close();
  ledger = openLedger(dataDir);
  expect(() => ledger.rentals.open()).toThrow('state');
});

test('a ledger of a newer version is refused and given back', () => {
  ledger.close();
  const db = new DatabaseSync(join(dataDir, 'ledger.db'));
  db.exec('PRAGMA user_version = 99');
  db.close();
  expect(() => openLedger(dataDir)).toThrow('newer gpuproxy');
  const back = new DatabaseSync(join(dataDir, 'ledger.db'));
  back.exec(`PRAGMA user_version = ${migrations.length}`);
  back.close();
  ledger = openLedger(dataDir);
});

test('only its owner can read the ledger, and its commits are on the disk when they return', () => {
  expect(statSync(join(dataDir, 'ledger.db')).mode & 0o077).toBe(0);
  ledger.rentals.insert(rental());
  const other = new DatabaseSync(join(dataDir, 'ledger.db'), { readOnly: true });
  expect(other.prepare('SELECT count(*) AS n FROM rentals').get()).toMatchObject({ n: 1 });
  expect(other.prepare('PRAGMA journal_mode').get()).toMatchObject({ journal_mode: 'wal' });
  other.close();
});

test('a commit waits for the disk', () => {
  ledger.close();
  const exec = vi.spyOn(DatabaseSync.prototype, 'exec');
  try {
    ledger = openLedger(dataDir);
    const [connection] = exec.mock.contexts as DatabaseSync[];
    // 2 is FULL: it is a setting of the connection, and not of the file.
    expect(connection?.prepare('PRAGMA synchronous').get()).toEqual({ synchronous: 2 });
  } finally {
    exec.mockRestore();
  }
});

test('a ledger of an earlier version is brought up to date, one version after the other, with what is in it', () => {
  ledger.close();
  rmSync(dataDir, { recursive: true });
  mkdirSync(dataDir);
  const old = new DatabaseSync(join(dataDir, 'ledger.db'));
  old.exec(`${migrations[0]}; PRAGMA user_version = 1`);
  const before = columnsOf(old, 'rentals');
  old
    .prepare(
      `INSERT INTO rentals (label, instance_id, provider, offer_id, contract, state, wanted, gpu_model, gpu_count, vram_gb, usd_per_hour, prepaid, interruptible, created_at, ran)
       VALUES ('gpuproxy-1', 'vast-1', 'vast.ai', '1', '9', 'rented', 1, 'RTX 4090', 1, 24, 0.5, 0, 0, 1, 1)`,
    )
    .run();
  old.close();
  ledger = openLedger(dataDir);
  // What was rented before prices were judged is left alone.
  expect(ledger.rentals.open()).toMatchObject([
    { label: 'gpuproxy-1', contract: '9', usdPerHour: 0.5, limitUsdPerHour: null, priceSeen: true },
  ]);
  expect(ledger.extensions.open()).toEqual([]);
  const now = new DatabaseSync(join(dataDir, 'ledger.db'), { readOnly: true });
  expect(now.prepare('PRAGMA user_version').get()).toEqual({ user_version: migrations.length });
  expect(columnsOf(now, 'rentals').length).toBeGreaterThan(before.length);
  now.close();
});

test('events beyond the kept number are pruned from the oldest', () => {
  for (let id = 1; id <= 20; id += 1) {
    ledger.events.insert({ id, at: id, level: 'info', kind: 'system', subject: null, message: `m${id}` });
  }
  ledger.events.prune(5);
  expect(ledger.events.recent(10).map((event) => event.id)).toEqual([16, 17, 18, 19, 20]);
});
