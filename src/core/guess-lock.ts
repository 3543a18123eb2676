const guessesBeforeLock = 10;
const firstLockMs = 1000;
const longestLockMs = 60_000;
/** Guesses of an address are forgotten after this long without another one. */
const forgetMs = 15 * 60_000;
const addressesKept = 10_000;
const wrongKept = 64;

type Guesser = { wrong: Set<string>; guesses: number; lockedUntil: number; lastAt: number };

/**
 * Against guessing keys: an address that came with ten different wrong ones is locked, for one second at first and up to
 * a minute. Keys that proved right before are the caller's to let pass meanwhile: somebody else's guessing on the same
 * machine must not shut the owner out. Times are milliseconds of any clock that never goes back.
 */
export class GuessLock {
  readonly #guessers = new Map<string, Guesser>();

  /** Milliseconds until keys of the address are looked at again; 0: they are. */
  lockedMs(address: string, now: number): number {
    const guesser = this.#guessers.get(addressGroup(address));
    return guesser === undefined ? 0 : Math.max(0, guesser.lockedUntil - now);
  }

  /** Counts a wrong key, told by anything that differs for different keys. */
  wrong(address: string, key: string, now: number): void {
    const guessers = this.#guessers;
    const who = addressGroup(address);
    let guesser = guessers.get(who);
    if (!guesser || now - guesser.lastAt > forgetMs) {
      guesser = { wrong: new Set(), guesses: 0, lockedUntil: 0, lastAt: now };
    }
    // Re-inserting keeps the map in order of last use, so that the oldest goes first when it is full.
    guessers.delete(who);
    guessers.set(who, guesser);
    if (guessers.size > addressesKept) guessers.delete(guessers.keys().next().value as string);
    guesser.lastAt = now;
    // The same wrong key over and over is a stale script, not a guess.
    if (guesser.wrong.has(key)) return;
    guesser.wrong.add(key);
    if (guesser.wrong.size > wrongKept) guesser.wrong.delete(guesser.wrong.values().next().value as string);
    guesser.guesses++;
    if (guesser.guesses >= guessesBeforeLock) {
      const doublings = Math.min(guesser.guesses - guessesBeforeLock, 16);
      guesser.lockedUntil = now + Math.min(longestLockMs, firstLockMs * 2 ** doublings);
    }
  }
}

/** One household has a /64 of IPv6, so that is what is counted. */
function addressGroup(address: string): string {
  if (!address.includes(':') || address.includes('.')) return address;
  const [head = '', tail = ''] = address.split('::');
  const left = head.split(':').filter(Boolean);
  const right = tail.split(':').filter(Boolean);
  const groups = address.includes('::')
    ? [...left, ...Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => '0'), ...right]
    : left;
  return groups.slice(0, 4).join(':');
}
