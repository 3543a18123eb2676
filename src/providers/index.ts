import type { ProviderName } from '../core/domain.ts';
import { createIonet } from './ionet.ts';
import type { Provider } from './provider.ts';
import { createVast } from './vast.ts';

export type ProviderOptions = Readonly<{
  apiKey: string;
  baseUrl: string;
  /** Container port that serves HTTP on a rented instance. */
  instancePort: number;
  /**
   * Factor on the spacing that the provider asks for between calls to one endpoint. 1 keeps its documented limits (a
   * rental every 5.4 s on vast.ai); 0 switches spacing off, which is for simulators only.
   */
  pace?: number | undefined;
  /** Factor on every bound in time: 1 allows 20 s for an attempt and 45 s for a search. */
  patience?: number | undefined;
  /** Disk that is in an offer's price, GB. */
  diskGb?: number | undefined;
  /** Prepaid hours that an offer's price is asked for, where the provider sells time. */
  durationHours?: number | undefined;
  /** Offers that one search brings at most, cheapest first. */
  maxOffers?: number | undefined;
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
