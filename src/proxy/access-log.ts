import { type DestinationStream, pino } from 'pino';
import type { FinishedRequest } from '../core/report.ts';
import type { Exchange, RequestTimes } from './exchange.ts';

type Destination = DestinationStream & { flush(): void; flushSync(): void; end(): void };

/**
 * One JSON line a request, handed to pino's destination, which writes them in batches off the request's way. The lines
 * are put together here: a logger that takes any object costs several times as much. No headers, no bodies, no query,
 * no key.
 */
export class AccessLog {
  readonly #destination: Destination;
  readonly #timer: NodeJS.Timeout;
  #second = 0;
  #secondText = '';

  /** `target`: `-` for stderr, or a file, which is appended to. */
  constructor(target: string) {
    this.#destination = pino.destination({
      dest: target === '-' ? 2 : target,
      append: true,
      mkdir: true,
      sync: false,
      minLength: 8_192,
    }) as unknown as Destination;
    this.#timer = setInterval(() => this.#destination.flush(), 500);
    this.#timer.unref();
  }

  write(request: FinishedRequest, times: RequestTimes, exchange: Exchange): void {
    const { trace } = exchange.headers;
    this.#destination.write(
      `{"time":"${this.#time(request.at)}","id":${quoted(request.id)},"method":"${request.method}","path":${quoted(request.path)},` +
        `"status":${request.status},"cause":"${request.cause}","instance":${quoted(request.instance)},"attempts":${request.attempts},` +
        `"queue_ms":${rounded(times.queueMs)},"connect_ms":${rounded(times.connectMs)},"ttfb_ms":${rounded(times.ttfbMs)},` +
        `"total_ms":${rounded(times.totalMs)},"bytes_in":${exchange.bytesIn},"bytes_out":${request.bytesOut},` +
        `"model":${quoted(request.model)},"client":${quoted(exchange.client)}${trace === null ? '' : `,"trace":"${trace}"`}}\n`,
    );
  }

  close(): void {
    clearInterval(this.#timer);
    try {
      this.#destination.flushSync();
    } catch {
      // Never opened, or the disk is full: there is nobody left to tell.
    }
    this.#destination.end();
  }

  /** RFC 3339; the part down to the second is made once a second. */
  #time(at: number): string {
    const second = Math.floor(at / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondText = new Date(second * 1000).toISOString().slice(0, 20);
    }
    return `${this.#secondText}${String(at - second * 1000).padStart(3, '0')}Z`;
  }
}

const plain = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;

function quoted(text: string | null): string {
  if (text === null) return 'null';
  return plain.test(text) ? `"${text}"` : JSON.stringify(text);
}

function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 1000) / 1000;
}
