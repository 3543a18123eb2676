import { ttfbBoundsMs, ttfbBucket } from '../core/load-table.ts';
import type { DataPlaneReport, FinishedRequest } from '../core/report.ts';
import type { AccessLog } from './access-log.ts';
import type { Exchange } from './exchange.ts';

const keptRequests = 200;
const maxOutcomes = 2000;

type Outcome = { instance: string; status: number; cause: string; count: number };

/** Counts what this thread did and keeps its newest requests until the next report. */
export class Recorder {
  readonly #thread: number;
  log: AccessLog | null;
  readonly #ring: FinishedRequest[] = [];
  #next = 0;
  readonly #statusClasses = [0, 0, 0, 0, 0, 0];
  readonly #causes: Record<string, number> = {};
  /** By instance; of each there are few. */
  readonly #outcomes = new Map<string, Outcome[]>();
  #outcomeCount = 0;
  readonly #durations: number[] = Array.from({ length: ttfbBoundsMs.length + 1 }, () => 0);
  #durationSumMs = 0;
  requests = 0;
  retries = 0;
  bytesIn = 0;
  bytesOut = 0;
  upgrades = 0;
  promptTokens = 0;
  completionTokens = 0;

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
    const instance = exchange.attempt?.upstream.entry.id ?? null;
    if (instance !== null) this.#outcome(instance, status, cause, times.totalMs);
    const usage = exchange.usage;
    if (usage !== null) {
      this.promptTokens += usage.promptTokens;
      this.completionTokens += usage.completionTokens;
    }
    const query = exchange.target.indexOf('?');
    const request: FinishedRequest = {
      at: Date.now(),
      id: exchange.id,
      method: exchange.method,
      path: query === -1 ? exchange.target : exchange.target.slice(0, query),
      status,
      cause,
      instance,
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

  /** A request that was refused before it could be read. */
  unread(id: string, status: number, cause: string, bytesOut: number, client: string | null): void {
    this.requests++;
    const statusClass = Math.floor(status / 100);
    this.#statusClasses[statusClass] = this.#statusClasses[statusClass]! + 1;
    this.#causes[cause] = (this.#causes[cause] ?? 0) + 1;
    this.bytesOut += bytesOut;
    this.log?.writeUnread({ at: Date.now(), id, status, cause, bytesOut, client });
  }

  #outcome(instance: string, status: number, cause: string, totalMs: number): void {
    const bucket = ttfbBucket(totalMs);
    this.#durations[bucket] = this.#durations[bucket]! + 1;
    this.#durationSumMs += totalMs;
    let outcomes = this.#outcomes.get(instance);
    if (outcomes !== undefined) {
      for (const outcome of outcomes) {
        if (outcome.status !== status || outcome.cause !== cause) continue;
        outcome.count++;
        return;
      }
    }
    // Upstreams choose status codes, and come and go: only so many combinations are counted.
    if (this.#outcomeCount === maxOutcomes) return;
    this.#outcomeCount++;
    if (outcomes === undefined) {
      outcomes = [];
      this.#outcomes.set(instance, outcomes);
    }
    outcomes.push({ instance, status, cause, count: 1 });
  }

  report(
    queued: number,
    loopLagMs: number,
    tracer: Readonly<{ exported: number; dropped: number }> | null,
  ): DataPlaneReport {
    const oldest = this.#next > keptRequests ? this.#next % keptRequests : 0;
    const requests = [...this.#ring.slice(oldest), ...this.#ring.slice(0, oldest)];
    this.#ring.length = 0;
    this.#next = 0;
    return {
      thread: this.#thread,
      requests,
      queued,
      loopLagMs,
      ...(this.log === null || this.log.fault === null ? {} : { accessLogFault: this.log.fault }),
      counters: {
        requests: this.requests,
        statusClasses: [...this.#statusClasses],
        causes: { ...this.#causes },
        retries: this.retries,
        bytesIn: this.bytesIn,
        bytesOut: this.bytesOut,
        upgrades: this.upgrades,
        durationHistogram: [...this.#durations],
        durationSumMs: this.#durationSumMs,
        promptTokens: this.promptTokens,
        completionTokens: this.completionTokens,
        ...(tracer === null ? {} : { spansExported: tracer.exported, spansDropped: tracer.dropped }),
        outcomes: [...this.#outcomes.values()].flat().map((outcome) => ({ ...outcome })),
      },
    };
  }
}
