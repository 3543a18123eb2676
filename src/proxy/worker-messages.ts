import type { BalancerSettings } from '../core/balancer.ts';
import type { DirectoryEntry } from '../core/directory.ts';
import type { DataPlaneReport, Decision } from '../core/report.ts';
import type { ProxyAuth } from './guard.ts';
import type { ProxySettings } from './settings.ts';

/** What a data-plane worker is started with. */
export type WorkerStart = Readonly<{
  buffer: SharedArrayBuffer;
  thread: number;
  host: string;
  port: number;
  reusePort: boolean;
  settings: Partial<ProxySettings>;
  balancer: Partial<BalancerSettings>;
  auth: ProxyAuth;
  /** Counts of keys with limits, the same for all threads. */
  keyLimits: SharedArrayBuffer;
  directory: readonly DirectoryEntry[];
}>;

export type ToWorker =
  | Readonly<{ type: 'directory'; entries: readonly DirectoryEntry[] }>
  | Readonly<{ type: 'auth'; auth: ProxyAuth }>
  | Readonly<{ type: 'settings'; settings: ProxySettings; balancer: Partial<BalancerSettings> }>
  /** The answer carries the same number. */
  | Readonly<{ type: 'decisions'; number: number }>
  | Readonly<{ type: 'drain'; deadlineMs: number }>
  | Readonly<{ type: 'close' }>;

export type FromWorker =
  | Readonly<{ type: 'listening'; port: number }>
  | Readonly<{ type: 'failed'; code: string; message: string }>
  | Readonly<{ type: 'report'; report: DataPlaneReport }>
  | Readonly<{ type: 'decisions'; number: number; decisions: readonly Decision[] }>
  | Readonly<{ type: 'closed' }>;
