import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { GuessLock } from '../core/guess-lock.ts';
import { counted } from '../core/words.ts';
import type { Keys, KeyView } from '../fleet/app.ts';
import { ProblemError } from './problem.ts';

/** A request that was let in. `release` gives its place back and must be called once. */
export type Admission = Readonly<{
  key: KeyView;
  headers: Readonly<Record<string, string>>;
  release(): void;
}>;

export interface Gate {
  /** Throws a ProblemError (401, 403, 429) when the request may not pass. */
  admit(request: { headers: IncomingHttpHeaders; address: string; access: 'read' | 'admin' }): Admission;
}

type Use = { tokens: number; at: number; open: number };

/** Checks keys, scopes and the limits of each key. `monotonicMs` is any clock that never goes back. */
export function createGate(keys: Keys, monotonicMs: () => number): Gate {
  const guesses = new GuessLock();
  const proven = new Set<string>();
  const uses = new Map<string, Use>();

  function verify(secret: string, address: string): KeyView {
    const now = monotonicMs();
    const digest = createHash('sha256').update(secret).digest('base64');
    const lockedMs = guesses.lockedMs(address, now);
    if (lockedMs > 0 && !proven.has(digest)) {
      throw new ProblemError('rate_limited', 'Too many wrong keys came from this address.', {
        headers: { 'retry-after': String(Math.ceil(lockedMs / 1000)) },
      });
    }
    const key = keys.verify(secret);
    if (key) {
      proven.add(digest);
      return key;
    }
    // A revoked key counts as a wrong one.
    proven.delete(digest);
    guesses.wrong(address, digest, now);
    throw new ProblemError('unauthorized', 'The key is not known, was revoked or has expired.', {
      headers: { 'www-authenticate': 'Bearer realm="gpuproxy", error="invalid_token"' },
    });
  }

  function use(key: KeyView): Admission {
    const now = monotonicMs();
    const perMinute = key.requestsPerMinute;
    let state = uses.get(key.id);
    if (!state) uses.set(key.id, (state = { tokens: perMinute ?? 0, at: now, open: 0 }));
    const mine = state;
    const most = key.maxConcurrent;
    if (perMinute !== null) {
      mine.tokens = Math.min(perMinute, mine.tokens + ((now - mine.at) / 60_000) * perMinute);
      mine.at = now;
    }
    /** What the key may do and what of that is left, for a minute and at once. */
    const limits = (): Record<string, string> => {
      const policies: string[] = [];
      const left: string[] = [];
      if (perMinute !== null) {
        // With nothing left, until the next one may pass; else until the whole minute's worth is there again.
        const missing = mine.tokens < 1 ? 1 - mine.tokens : perMinute - mine.tokens;
        const seconds = Math.max(mine.tokens < 1 ? 1 : 0, Math.ceil((missing / perMinute) * 60));
        policies.push(`"key";q=${perMinute};w=60`);
        left.push(`"key";r=${Math.floor(mine.tokens)};t=${seconds}`);
      }
      if (most !== null) {
        policies.push(`"open";q=${most};qu="concurrent-requests"`);
        left.push(`"open";r=${Math.max(0, most - mine.open)}`);
      }
      return policies.length === 0 ? {} : { 'ratelimit-policy': policies.join(', '), ratelimit: left.join(', ') };
    };
    const refuse = (detail: string, afterSeconds: number) =>
      new ProblemError('rate_limited', detail, { headers: { ...limits(), 'retry-after': String(afterSeconds) } });

    if (most !== null && mine.open >= most)
      throw refuse(`The key has ${counted(mine.open, 'request')} open, its limit.`, 1);
    if (perMinute !== null) {
      if (mine.tokens < 1) {
        const untilOne = Math.max(1, Math.ceil(((1 - mine.tokens) / perMinute) * 60));
        throw refuse(`The key may make ${counted(perMinute, 'request')} a minute.`, untilOne);
      }
      mine.tokens--;
    }
    mine.open++;
    let released = false;
    return {
      key,
      headers: limits(),
      release() {
        if (released) return;
        released = true;
        mine.open--;
      },
    };
  }

  return {
    admit({ headers, address, access }) {
      const secret = readKey(headers);
      if (secret === null) {
        throw new ProblemError('unauthorized', 'Send a key as X-API-Key or as Authorization: Bearer.', {
          headers: { 'www-authenticate': 'Bearer realm="gpuproxy"' },
        });
      }
      const key = verify(secret, address);
      if (key.scope === 'proxy') {
        throw new ProblemError('forbidden', 'A key with the scope proxy is for the data plane alone.');
      }
      if (key.scope === 'read' && access === 'admin') {
        throw new ProblemError('forbidden', 'A key with the scope read may only read; this needs the scope admin.');
      }
      return use(key);
    },
  };
}

function readKey(headers: IncomingHttpHeaders): string | null {
  const own = headers['x-api-key'];
  if (typeof own === 'string' && own.trim() !== '') return own.trim();
  const bearer = /^Bearer +(\S+)\s*$/i.exec(headers.authorization ?? '');
  return bearer?.[1] ?? null;
}
