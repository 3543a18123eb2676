/**
 * The ledger's schema, one entry a version: entry 0 takes an empty file to version 1. Entries are never edited once
 * released, only appended: `PRAGMA user_version` says how many of them a file has seen.
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE reservations (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    requested INTEGER NOT NULL,
    all_or_nothing INTEGER NOT NULL,
    state TEXT NOT NULL,
    errors TEXT NOT NULL,
    idempotency_key TEXT
  ) STRICT;
  CREATE INDEX reservations_by_time ON reservations (created_at);

  CREATE TABLE rentals (
    label TEXT PRIMARY KEY,
    reservation TEXT,
    instance_id TEXT NOT NULL UNIQUE,
    provider TEXT NOT NULL,
    offer_id TEXT NOT NULL,
    contract TEXT,
    state TEXT NOT NULL,
    wanted INTEGER NOT NULL,
    gpu_model TEXT NOT NULL,
    gpu_count INTEGER NOT NULL,
    vram_gb REAL NOT NULL,
    usd_per_hour REAL NOT NULL,
    prepaid INTEGER NOT NULL,
    prepaid_hours REAL,
    location TEXT,
    interruptible INTEGER NOT NULL,
    origin TEXT,
    created_at INTEGER NOT NULL,
    settled_at INTEGER,
    ran INTEGER NOT NULL,
    billed_from INTEGER,
    expires_at INTEGER,
    ended_at INTEGER,
    reason TEXT
  ) STRICT;
  CREATE INDEX rentals_by_reservation ON rentals (reservation);
  CREATE INDEX rentals_open ON rentals (state) WHERE state NOT IN ('ended', 'refused');
  CREATE UNIQUE INDEX rentals_by_contract ON rentals (provider, contract) WHERE contract IS NOT NULL;

  CREATE TABLE charges (
    label TEXT NOT NULL,
    from_at INTEGER NOT NULL,
    to_at INTEGER NOT NULL,
    usd REAL NOT NULL
  ) STRICT;
  CREATE INDEX charges_by_label ON charges (label);
  CREATE INDEX charges_by_time ON charges (to_at);

  CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    body_hash TEXT NOT NULL,
    reservation TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    result TEXT
  ) STRICT;

  CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER,
    expires_at INTEGER,
    revoked_at INTEGER,
    requests_per_minute INTEGER,
    max_concurrent INTEGER
  ) STRICT;

  CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    level TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT,
    message TEXT NOT NULL
  ) STRICT;

  CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

  CREATE TABLE static_upstreams (name TEXT PRIMARY KEY, url TEXT NOT NULL, added_at INTEGER NOT NULL) STRICT;

  CREATE TABLE operator (
    instance_id TEXT PRIMARY KEY,
    draining INTEGER NOT NULL,
    drain_deadline_at INTEGER,
    weight REAL
  ) STRICT;
  `,
  `
  CREATE TABLE extensions (
    id INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    hours INTEGER NOT NULL,
    usd REAL NOT NULL,
    created_at INTEGER NOT NULL,
    expires_before INTEGER NOT NULL,
    state TEXT NOT NULL,
    settled_at INTEGER
  ) STRICT;
  CREATE INDEX extensions_open ON extensions (state) WHERE state IN ('intended', 'unknown');
  `,
  // Prices of what is there already were judged when it was rented.
  `
  ALTER TABLE rentals ADD COLUMN limit_usd_per_hour REAL;
  ALTER TABLE rentals ADD COLUMN price_seen INTEGER NOT NULL DEFAULT 1;
  `,
  // What the disk of something that is there already costs, the next list says.
  `
  ALTER TABLE rentals ADD COLUMN disk_usd_per_hour REAL NOT NULL DEFAULT 0;
  ALTER TABLE rentals ADD COLUMN disk_from INTEGER;
  `,
];
