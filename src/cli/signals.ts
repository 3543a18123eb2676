/** The next SIGINT or SIGTERM. */
export function nextSignal(): Promise<'SIGINT' | 'SIGTERM'> {
  const { promise, resolve } = Promise.withResolvers<'SIGINT' | 'SIGTERM'>();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => resolve(name));
  return promise;
}
