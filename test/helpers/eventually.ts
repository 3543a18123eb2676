/**
 * Asks again until the answer is truthy, and gives it back. A throw counts as "not yet". The deadline is generous: it is
 * only there so that a test that can never pass ends with words.
 */
export async function eventually<T>(ask: () => T | Promise<T>, what: string, deadlineMs = 20_000): Promise<T> {
  const end = Date.now() + deadlineMs;
  let last: unknown;
  for (;;) {
    try {
      last = await ask();
      if (last) return last as T;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`waited in vain for ${what}; last: ${String(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
