import type { ProviderName } from '../core/domain.ts';

/**
 * The marketplaces, one line each, without their clients: whoever only needs their names loads nothing else. `aliases` are
 * what people may type for one, in URLs and on the command line.
 * `static` upstreams are not rented, so they have no marketplace; fleet knows them from UPSTREAMS.
 */
export const marketplaceNames = [
  { name: 'vast.ai', prefix: 'vast', aliases: ['vastai', 'vast'], env: 'VASTAI' },
  { name: 'io.net', prefix: 'ionet', aliases: ['ionet', 'io'], env: 'IONET' },
] as const satisfies readonly { name: ProviderName; prefix: string; aliases: readonly string[]; env: string }[];

/** "vastai" → "vast.ai"; undefined when nobody is called that. */
export function providerNamed(word: string): ProviderName | undefined {
  const w = word.toLowerCase();
  if (w === 'static') return 'static';
  return marketplaceNames.find((m) => m.name === w || (m.aliases as readonly string[]).includes(w))?.name;
}
