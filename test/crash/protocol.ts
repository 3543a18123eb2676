import type { Lifecycle, OfferFilter } from '../../src/core/domain.ts';

/** How the parent starts the process that is to be killed. */
export type Setup = Readonly<{
  dataDir: string;
  vastUrl: string;
  vastKey: string;
  ionetUrl: string;
  ionetKey: string;
  maxUsdPerHour: number;
}>;

export type Action =
  | Readonly<{
      kind: 'reserve';
      count: number;
      filter: OfferFilter;
      allOrNothing: boolean;
      idempotencyKey?: string;
    }>
  | Readonly<{ kind: 'release'; reservation: string }>
  | Readonly<{ kind: 'destroy'; instance: string }>;

export type Plan = Readonly<{
  actions: readonly Action[];
  /** The process kills itself at the n-th time it comes to this step. */
  dieAt: Readonly<{ step: string; occurrence: number }> | null;
}>;

export type State = Readonly<{
  upstreams: readonly Readonly<{
    id: string;
    contract: string | null;
    phase: Lifecycle['phase'];
    reservation: string | null;
    usdPerHour: number;
  }>[];
  reservations: readonly Readonly<{
    id: string;
    state: string;
    requested: number;
    instances: readonly string[];
  }>[];
  foreign: readonly string[];
  spentUsd: number;
}>;

export type Message =
  | Readonly<{ type: 'loaded' }>
  | Readonly<{ type: 'open' }>
  | Readonly<{ type: 'ready' }>
  | Readonly<{ type: 'plan'; plan: Plan }>
  | Readonly<{ type: 'done'; results: readonly string[] }>
  | Readonly<{ type: 'look' }>
  | (Readonly<{ type: 'state' }> & State);
