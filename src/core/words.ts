/** A price: cents, and a third decimal below ten cents, where cents would hide half of it. */
export const price = (usd: number): string => `$${usd.toFixed(usd !== 0 && Math.abs(usd) < 0.1 ? 3 : 2)}`;

/** The model without the words that every model of the vendor has, and only one of the marketplaces writes. */
export const gpuName = (model: string): string => model.replace(/^((NVIDIA|GeForce)\s+)+/i, '');

/** "1 instance", "2 instances". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** The known word closest to what was typed; undefined when nothing is close enough to be meant. */
export function nearest(typed: string, known: Iterable<string>): string | undefined {
  // Whoever types may be a stranger: of a long text the beginning will do.
  const word = normal(typed.slice(0, 64));
  if (word === '') return undefined;
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const other = normal(candidate);
    // A beginning of at least three letters is as good as one slip.
    const begins = word.length >= 3 && other.startsWith(word);
    const distance = begins ? 1 : editDistance(word, other);
    const longest = Math.max(word.length, other.length);
    // Two slips in a short word leave little to know it by, but for its first letter.
    const limit = begins
      ? 1
      : Math.max(Math.min(word.length, other.length) >= 4 && word[0] === other[0] ? 2 : 1, Math.floor(longest / 3));
    if (distance <= limit && distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function normal(word: string): string {
  return word.toLowerCase().replace(/[-_. ]/g, '');
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, beforeLast[j - 2]! + 1);
      row.push(cost);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}
