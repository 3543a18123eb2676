import type { ProviderName } from '../core/domain.ts';
import { createIonet } from './ionet.ts';
import type { Provider } from './provider.ts';
import { createVast } from './vast.ts';

export type ProviderOptions = Readonly<{
  apiKey: string;
  baseUrl: string;
  /** Container port that serves HTTP on a rented instance. */
  instancePort: number;
}>;

/**
 * The registry: one line a marketplace. `aliases` are what people may type for it, in URLs and on the command line.
 * `static` upstreams are not rented, so they have no marketplace client; fleet knows them from UPSTREAMS.
 */
export const marketplaces = [
  { name: 'vast.ai', prefix: 'vast', aliases: ['vastai', 'vast'], env: 'VASTAI', create: createVast },
  { name: 'io.net', prefix: 'ionet', aliases: ['ionet', 'io'], env: 'IONET', create: createIonet },
] as const satisfies readonly {
  name: ProviderName;
  prefix: string;
  aliases: readonly string[];
  env: string;
  create: (options: ProviderOptions) => Provider;
}[];

/** "vastai" → "vast.ai"; undefined when nobody is called that. */
export function providerNamed(word: string): ProviderName | undefined {
  const w = word.toLowerCase();
  if (w === 'static') return 'static';
  return marketplaces.find((m) => m.name === w || (m.aliases as readonly string[]).includes(w))?.name;
}
