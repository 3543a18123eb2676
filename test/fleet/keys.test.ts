import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createKeys } from '../../src/fleet/keys.ts';
import { type Ledger, openLedger } from '../../src/fleet/ledger/ledger.ts';

let dataDir = '';
let ledger: Ledger;
let now = 1_000_000;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'gpuproxy-keys-'));
  ledger = openLedger(dataDir);
  now = 1_000_000;
});
afterEach(() => {
  ledger.close();
  rmSync(dataDir, { recursive: true, force: true });
});
const open = () => createKeys(ledger, () => now);

test('a key is shown once, verified by its hash alone, and is nowhere on the disk', () => {
  const keys = open();
  const { key, view } = keys.create({ name: 'ci', scope: 'read' });
  expect(key).toMatch(/^gp_[A-Za-z0-9_-]{43}$/);
  expect(JSON.stringify(view)).not.toContain('hash');
  expect(keys.verify(key)).toMatchObject({ id: view.id, scope: 'read', lastUsedAt: now });
  expect(keys.verify(`${key}x`)).toBeNull();
  expect(keys.verify('')).toBeNull();
  ledger.close();
  for (const file of readdirSync(dataDir)) expect(readFileSync(join(dataDir, file)).includes(key)).toBe(false);
  ledger = openLedger(dataDir);
  expect(open().verify(key)).toMatchObject({ id: view.id });
});

test('a key that has run out or was revoked is unknown, and listeners hear of changes', () => {
  const keys = open();
  let changes = 0;
  keys.onChange(() => {
    changes += 1;
  });
  const { key } = keys.create({ name: 'short', scope: 'admin', expiresAt: now + 10 });
  expect(keys.verify(key)).not.toBeNull();
  now += 10;
  expect(keys.verify(key)).toBeNull();
  const other = keys.create({ name: 'other', scope: 'proxy' });
  expect(keys.revoke(other.view.id)).toBe(true);
  expect(keys.revoke(other.view.id)).toBe(false);
  expect(keys.revoke('key-nobody')).toBe(false);
  expect(keys.verify(other.key)).toBeNull();
  expect(keys.list().map((view) => view.revokedAt !== null)).toEqual([false, true]);
  expect(changes).toBe(3);
});

test('the data plane learns the hashes of admin and proxy keys that are live', () => {
  const keys = open();
  const hash = (key: string) => createHash('sha256').update(key).digest('hex');
  const admin = keys.create({ name: 'a', scope: 'admin' });
  const proxy = keys.create({ name: 'p', scope: 'proxy' });
  keys.create({ name: 'r', scope: 'read' });
  expect(keys.proxyHashes()).toEqual([hash(admin.key), hash(proxy.key)]);
  keys.revoke(admin.view.id);
  expect(keys.proxyHashes()).toEqual([hash(proxy.key)]);
  expect(keys.proxyTerms()).toEqual([]);
  const limited = keys.create({ name: 'l', scope: 'proxy', requestsPerMinute: 5, maxConcurrent: 2 });
  expect(keys.proxyTerms()).toEqual([
    { hash: hash(limited.key), expiresAt: null, requestsPerMinute: 5, maxConcurrent: 2 },
  ]);
});

test('a use at the data plane is a last use, kept over a restart', () => {
  const keys = open();
  const hash = (key: string) => createHash('sha256').update(key).digest('hex');
  const used = keys.create({ name: 'used', scope: 'proxy' });
  const revoked = keys.create({ name: 'revoked', scope: 'proxy' });
  keys.create({ name: 'idle', scope: 'proxy' });
  keys.revoke(revoked.view.id);
  now += 5_000;
  keys.used?.([hash(used.key), hash(revoked.key), hash('a key of nobody')]);
  const lastUses = () => keys.list().map((view) => view.lastUsedAt);
  expect(lastUses()).toEqual([now, null, null]);
  expect(
    open()
      .list()
      .map((view) => view.lastUsedAt),
  ).toEqual([now, null, null]);
});

test('a key that the user chose is put in once, and again after it was revoked', () => {
  const keys = open();
  const first = keys.ensure('my own long key', { name: 'GPUPROXY_API_KEY', scope: 'admin' });
  expect(keys.ensure('my own long key', { name: 'GPUPROXY_API_KEY', scope: 'admin' }).id).toBe(first.id);
  expect(keys.list()).toHaveLength(1);
  keys.revoke(first.id);
  expect(keys.verify('my own long key')).toBeNull();
  keys.ensure('my own long key', { name: 'GPUPROXY_API_KEY', scope: 'admin' });
  expect(keys.verify('my own long key')).toMatchObject({ scope: 'admin' });
  expect(open().verify('my own long key')).toMatchObject({ scope: 'admin' });
});
