import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Keys, KeyView } from './app.ts';
import type { Ledger } from './ledger/ledger.ts';
import type { StoredKey } from './ledger/rows.ts';

/** Last use is written at most this often, so that a busy key does not cost a disk write a request. */
const lastUseWriteMs = 60_000;

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest();

/** API keys: only their SHA-256 is stored. The keys themselves carry 256 random bits, so a plain hash is enough. */
export function createKeys(ledger: Ledger, now: () => number): Keys {
  const listeners = new Set<() => void>();
  type Known = { row: StoredKey; digest: Buffer; lastUseWrittenAt: number };
  const known: Known[] = ledger.keys
    .all()
    .map((row) => ({ row, digest: Buffer.from(row.hash, 'hex'), lastUseWrittenAt: row.lastUsedAt ?? 0 }));

  const live = (row: StoredKey): boolean => row.revokedAt === null && (row.expiresAt === null || row.expiresAt > now());
  const changed = () => {
    for (const listener of listeners) listener();
  };
  const touch = (item: Known) => {
    const at = now();
    item.row = { ...item.row, lastUsedAt: at };
    if (at - item.lastUseWrittenAt < lastUseWriteMs) return;
    item.lastUseWrittenAt = at;
    ledger.keys.setLastUsed(item.row.id, at);
  };
  const add = (key: string, input: Parameters<Keys['create']>[0]): KeyView => {
    const digest = sha256(key);
    const row: StoredKey = {
      id: `key-${randomBytes(6).toString('hex')}`,
      name: input.name,
      hash: digest.toString('hex'),
      scope: input.scope,
      createdAt: now(),
      lastUsedAt: null,
      expiresAt: input.expiresAt ?? null,
      revokedAt: null,
      requestsPerMinute: input.requestsPerMinute ?? null,
      maxConcurrent: input.maxConcurrent ?? null,
    };
    ledger.keys.insert(row);
    known.push({ row, digest, lastUseWrittenAt: 0 });
    changed();
    return view(row);
  };

  return {
    create(input) {
      const key = `gp_${randomBytes(32).toString('base64url')}`;
      return { key, view: add(key, input) };
    },
    ensure(key, input) {
      const hash = sha256(key).toString('hex');
      const same = known.find((item) => item.row.hash === hash && live(item.row) && item.row.scope === input.scope);
      if (same) return view(same.row);
      // The same text was revoked, has run out or had another scope: the user's present choice replaces that row.
      const stale = known.find((item) => item.row.hash === hash);
      if (stale) {
        stale.row = { ...stale.row, name: input.name, scope: input.scope, expiresAt: null, revokedAt: null };
        ledger.keys.replace(stale.row);
        changed();
        return view(stale.row);
      }
      return add(key, input);
    },
    list: () => known.map((item) => view(item.row)),
    revoke(id) {
      const item = known.find((candidate) => candidate.row.id === id && candidate.row.revokedAt === null);
      if (!item) return false;
      item.row = { ...item.row, revokedAt: now() };
      ledger.keys.setRevoked(id, item.row.revokedAt ?? now());
      changed();
      return true;
    },
    verify(key) {
      const digest = sha256(key);
      let found: Known | null = null;
      // No early exit: the time says nothing about which key came close.
      for (const item of known) if (timingSafeEqual(item.digest, digest)) found = item;
      if (found === null || !live(found.row)) return null;
      touch(found);
      return view(found.row);
    },
    used(hashes) {
      for (const item of known) if (hashes.includes(item.row.hash) && live(item.row)) touch(item);
    },
    proxyHashes: () => known.filter(({ row }) => live(row) && row.scope !== 'read').map(({ row }) => row.hash),
    proxyTerms: () =>
      known
        .filter(({ row }) => live(row) && row.scope !== 'read')
        .filter(({ row }) => row.expiresAt !== null || row.requestsPerMinute !== null || row.maxConcurrent !== null)
        .map(({ row: { hash, expiresAt, requestsPerMinute, maxConcurrent } }) => ({
          hash,
          expiresAt,
          requestsPerMinute,
          maxConcurrent,
        })),
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

function view(row: StoredKey): KeyView {
  const { hash: _, ...rest } = row;
  return rest;
}
