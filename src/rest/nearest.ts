/** The known word that was probably meant, or null when none is close enough to be worth a guess. */
export function nearest(word: string, known: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(word.slice(0, 64).toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** The known path that was probably meant: the prefix may be missing, and what stands for a parameter is no mistake. */
export function nearestPath(path: string, known: readonly string[]): string | null {
  const below = (text: string) => text.replace(/^\/api(\/v\d+)?(?=\/|$)/, '');
  const parts = below(path).split('/');
  const filled = known.map((candidate) =>
    below(candidate)
      .split('/')
      .map((part, index) => (part.startsWith('{') ? (parts[index] ?? part) : part))
      .join('/'),
  );
  const guess = nearest(parts.join('/'), filled);
  return guess === null ? null : (known[filled.indexOf(guess)] as string);
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(previous[j]! + 1, current[j - 1]! + 1, substituted));
    }
    previous = current;
  }
  return previous[b.length]!;
}
