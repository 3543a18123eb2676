import type { DataPlaneReport, Decision, FinishedRequest } from '../core/report.ts';
import type { AccessLog } from './access-log.ts';
import type { Exchange } from './exchange.ts';

const keptRequests = 200;

/** Counts what this thread did and keeps its newest requests until the next report. */
export class Recorder {
  readonly #thread: number;
  log: AccessLog | null;
  readonly #ring: FinishedRequest[] = [];
  #next = 0;
  readonly #statusClasses = [0, 0, 0, 0, 0, 0];
  readonly #causes: Record<string, number> = {};
  requests = 0;
  retries = 0;
  bytesIn = 0;
  bytesOut = 0;
  upgrades = 0;

  constructor(thread: number, log: AccessLog | null) {
    this.#thread = thread;
    this.log = log;
  }

  finished(exchange: Exchange): void {
    const { status, bytesOut } = exchange;
    const cause = exchange.cause ?? 'complete';
    // 499 is what we log for a client that left without an answer; it was never sent.
    const statusClass = status === 499 && cause === 'client_gone' ? 0 : Math.min(5, Math.floor(status / 100));
    this.requests++;
    this.#statusClasses[statusClass] = this.#statusClasses[statusClass]! + 1;
    this.#causes[cause] = (this.#causes[cause] ?? 0) + 1;
    this.bytesOut += bytesOut;
    const times = exchange.times;
    const query = exchange.target.indexOf('?');
    const request: FinishedRequest = {
      at: Date.now(),
      id: exchange.id,
      method: exchange.method,
      path: query === -1 ? exchange.target : exchange.target.slice(0, query),
      status,
      cause,
      instance: exchange.attempt?.upstream.entry.id ?? null,
      attempts: exchange.attempts,
      queueMs: times.queueMs,
      ttfbMs: times.ttfbMs,
      totalMs: times.totalMs,
      bytesOut,
      model: exchange.model,
    };
    this.#ring[this.#next % keptRequests] = request;
    this.#next++;
    this.log?.write(request, times, exchange);
  }

  report(queued: number, decisions: readonly Decision[]): DataPlaneReport {
    const oldest = this.#next > keptRequests ? this.#next % keptRequests : 0;
    const requests = [...this.#ring.slice(oldest), ...this.#ring.slice(0, oldest)];
    this.#ring.length = 0;
    this.#next = 0;
    return {
      thread: this.#thread,
      requests,
      decisions,
      queued,
      counters: {
        requests: this.requests,
        statusClasses: [...this.#statusClasses],
        causes: { ...this.#causes },
        retries: this.retries,
        bytesIn: this.bytesIn,
        bytesOut: this.bytesOut,
        upgrades: this.upgrades,
      },
    };
  }
}
