/**
 * Does something for each of them, and for all of them even when some fail. Then throws the first failure, with how many
 * there were. `done` is called before that when it was done for at least one: that can be undone.
 */
export async function each<T, R>(
  items: readonly T[],
  act: (item: T) => Promise<R>,
  done?: () => void,
): Promise<readonly R[]> {
  const results = await Promise.allSettled(items.map(act));
  const failed = results.filter((result) => result.status === 'rejected');
  if (failed.length < results.length) done?.();
  if (failed.length === 0) return results.map((result) => (result as PromiseFulfilledResult<R>).value);
  const why: unknown = failed[0]?.reason;
  if (items.length === 1) throw why;
  throw new Error(`${failed.length} of ${items.length} failed: ${why instanceof Error ? why.message : String(why)}`, {
    cause: why,
  });
}
