import { setImmediate as nextTurn } from 'node:timers/promises';
import * as z from 'zod';

const batch = 100;

/**
 * Decodes rows one by one and leaves out those that cannot be read. The event loop gets a turn after every hundred, so
 * that a large answer never blocks it for long.
 */
export async function decodeRows<T>(
  rows: readonly unknown[],
  schema: z.ZodType<T>,
): Promise<{ decoded: T[]; skipped: number }> {
  const decoded: T[] = [];
  let skipped = 0;
  for (const [index, row] of rows.entries()) {
    if (index > 0 && index % batch === 0) await nextTurn();
    const parsed = schema.safeParse(row);
    if (parsed.success) decoded.push(parsed.data);
    else skipped++;
  }
  return { decoded, skipped };
}

/** `work` over all items, at most `width` at once, results in the order of the items. The first failure rejects. */
export async function mapBounded<A, B>(
  items: readonly A[],
  width: number,
  work: (item: A) => Promise<B>,
): Promise<B[]> {
  const results: B[] = new Array(items.length);
  let next = 0;
  let failed = false;
  const worker = async () => {
    while (next < items.length && !failed) {
      const index = next++;
      try {
        // What is answered from a cache never gives the event loop a turn by itself.
        if (index > 0 && index % batch === 0) await nextTurn();
        results[index] = await work(items[index] as A);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  // All workers end before the failure is reported: nothing goes on in the background.
  const ends = await Promise.allSettled(Array.from({ length: Math.min(width, items.length) }, worker));
  const bad = ends.find((end) => end.status === 'rejected');
  if (bad) throw bad.reason;
  return results;
}

/** A finite number, also when it comes as text. */
export const number = z.union([
  z.number(),
  z
    .string()
    .regex(/^\s*-?\d+(\.\d+)?([eE][-+]?\d+)?\s*$/)
    .transform(Number),
]);

/** One line without control characters: what a marketplace says ends up in terminals and logs. */
export function plain(text: string): string {
  return text
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
    .replace(/ {2,}/g, ' ')
    .trim();
}

/** Text that must be there. */
export const text = z.string().transform(plain).pipe(z.string().min(1));

/** Optional fields: null whenever they are absent, null or of another type than documented. */
export const maybeNumber = number.nullish().catch(null);
export const maybeText = z.string().transform(plain).nullish().catch(null);
export const maybeFlag = z.boolean().nullish().catch(null);

/** An id, as text, whether it comes as a number or as text. */
export const id = z.union([z.number().int().transform(String), z.string().min(1)]);
