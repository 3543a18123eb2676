import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino';
import type { FinishedRequest } from '../core/report.ts';
import type { Exchange, RequestTimes } from './exchange.ts';

type Destination = DestinationStream & { flushSync(): void; end(): void };

/** One JSON line a request, written in batches off the request's way. No headers, no bodies, no query, no key. */
export class AccessLog {
  readonly #logger: Logger;
  readonly #destination: Destination;
  readonly #timer: NodeJS.Timeout;

  /** `target`: `-` for stderr, or a file, which is appended to. */
  constructor(target: string) {
    this.#destination = pino.destination({
      dest: target === '-' ? 2 : target,
      append: true,
      mkdir: true,
      sync: false,
      minLength: 8192,
    }) as unknown as Destination;
    this.#logger = pino(
      {
        base: null,
        level: 'info',
        timestamp: stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
      },
      this.#destination,
    );
    this.#timer = setInterval(() => this.#flush(), 1_000);
    this.#timer.unref();
  }

  write(request: FinishedRequest, times: RequestTimes, exchange: Exchange): void {
    this.#logger.info({
      id: request.id,
      method: request.method,
      path: request.path,
      status: request.status,
      cause: request.cause,
      instance: request.instance,
      attempts: request.attempts,
      queue_ms: rounded(times.queueMs),
      connect_ms: rounded(times.connectMs),
      ttfb_ms: rounded(times.ttfbMs),
      total_ms: rounded(times.totalMs),
      bytes_in: exchange.bytesIn,
      bytes_out: request.bytesOut,
      model: request.model,
      client: exchange.client,
      ...(exchange.headers.trace === null ? null : { trace: exchange.headers.trace }),
    });
  }

  close(): void {
    clearInterval(this.#timer);
    this.#flush();
    this.#destination.end();
  }

  #flush(): void {
    try {
      this.#destination.flushSync();
    } catch {
      // Not open yet, or the disk is full: requests matter more than their log.
    }
  }
}

function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 1000) / 1000;
}
