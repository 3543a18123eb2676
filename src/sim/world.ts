import type { FaultBook, FaultOf } from './faults.ts';
import type { Reply, Request, Route } from './http.ts';
import type { BootFailure, Machine } from './machine.ts';
import type { SimulatorSettings } from './options.ts';
import type { Random } from './random.ts';

export type Marketplace = 'vast' | 'ionet';

/** What both marketplaces share. */
export type World = Readonly<{
  settings: SimulatorSettings;
  faults: FaultBook;
  /** A stream of its own for each purpose. */
  random(purpose: string): Random;
  /** Keeps a log for one reading by URL, as object storage would; returns the URL. */
  publishLog(text: () => string): string;
}>;

/** Simulated hours in so many real milliseconds. */
export function simulatedHours(world: World, ms: number): number {
  return (ms * world.settings.timeScale) / 3_600_000;
}

/** Draws the boot of an instance rented now, with the faults that strike it. */
export function bootPlan(
  world: World,
  random: Random,
  provider: Marketplace,
): Readonly<{ bootMs: number; failure: BootFailure | null }> {
  const { min, max } = world.settings.bootMs;
  const matches = (fault: { provider: Marketplace | 'all' }) => fault.provider === 'all' || fault.provider === provider;
  let bootMs = random.between(min, max);
  for (const fault of world.faults.strike(['slow_boot'], matches)) bootMs *= fault.factor;
  const [failure] = world.faults.strike(['never_healthy'], matches);
  return { bootMs, failure: failure?.how ?? null };
}

/** One row of what the account was charged for. Times are wall-clock milliseconds. */
export type LedgerEntry = Readonly<{
  provider: Marketplace;
  contract: string;
  label: string | null;
  /** Offer it was rented from. */
  offer: string;
  gpuModel: string;
  gpuCount: number;
  usdPerHour: number;
  createdAt: number;
  destroyedAt: number | null;
  /** Charged until now, in simulated time. */
  chargedUsd: number;
}>;

export type InstanceView = Readonly<{
  provider: Marketplace;
  contract: string;
  label: string | null;
  /** The marketplace's own word. */
  status: string;
  gpuModel: string;
  gpuCount: number;
  usdPerHour: number;
  /** Base URL of its GPU server once it runs. */
  url: string | null;
  interruptible: boolean;
  active: number;
  queued: number;
  served: number;
}>;

export type InstanceFault = FaultOf<'exit' | 'offline' | 'online' | 'outbid' | 'expire'>;

/** One marketplace as the simulator drives it. */
export interface Market {
  readonly name: Marketplace;
  readonly routes: readonly Route[];
  /** Null lets the call pass. */
  refuse(route: Route, request: Request): Reply | null;
  /** Who is calling, for intervals between calls. */
  identity(request: Request): string;
  notFound(allow: readonly string[]): Reply;
  instances(): readonly InstanceView[];
  /** Contracts that still exist, in order of rental. */
  contracts(): readonly string[];
  machines(contract: string): readonly Machine[];
  ledger(): readonly LedgerEntry[];
  /** Instances rentable now. */
  rentable(): number;
  act(kind: InstanceFault['kind'], contract: string): Promise<void>;
  vanish(offer: string | undefined, count: number): void;
  reprice(factor: number): void;
  setCredit(usd: number): void;
  /** One offer is taken by somebody else, another comes. */
  churn(): void;
  /** What time alone does: prepaid time over, credit gone. */
  tick(): Promise<void>;
  close(): Promise<void>;
}
