import { createIonet } from './ionet.ts';
import { marketplaceNames } from './names.ts';
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

const clients = { 'vast.ai': createVast, 'io.net': createIonet } as const;

/** The registry: what can be rented from, with the client of each. */
export const marketplaces = marketplaceNames.map((each) => ({
  ...each,
  create: (options: ProviderOptions): Provider => clients[each.name](options),
}));
