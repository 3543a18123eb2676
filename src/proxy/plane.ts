import type { Balancer } from '../core/balancer.ts';
import type { Exchange } from './exchange.ts';
import type { KeyLimits } from './key-limits.ts';
import type { LateAnswers } from './late-answers.ts';
import type { OpenRequests } from './open-requests.ts';
import type { Recorder } from './recorder.ts';
import type { ProxySettings } from './settings.ts';
import type { Upstreams } from './upstreams.ts';
import type { WaitQueue } from './wait-queue.ts';

/** What all requests of one data-plane thread share. */
export type Plane = {
  readonly settings: ProxySettings;
  readonly balancer: Balancer;
  readonly upstreams: Upstreams;
  readonly queue: WaitQueue;
  readonly recorder: Recorder;
  /** Requests that have begun and not ended. */
  readonly active: OpenRequests<Exchange>;
  readonly late: LateAnswers;
  /** Requests that are on a further attempt now. */
  retrying: number;
  draining: boolean;
  readonly keyLimits: KeyLimits;
  /** Monotonic milliseconds, the same in all threads. */
  readonly now: () => number;
};
