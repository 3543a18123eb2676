import { nearest } from '../core/words.ts';

/** The known path that was probably meant: the prefix may be missing, and what stands for a parameter is no mistake. */
export function nearestPath(path: string, known: readonly string[]): string | undefined {
  const below = (text: string) => text.replace(/^\/api(\/v\d+)?(?=\/|$)/, '');
  const parts = below(path).split('/');
  const filled = known.map((candidate) =>
    below(candidate)
      .split('/')
      .map((part, index) => (part.startsWith('{') ? (parts[index] ?? part) : part))
      .join('/'),
  );
  const guess = nearest(parts.join('/'), filled);
  return guess === undefined ? undefined : known[filled.indexOf(guess)];
}
