import { pino } from 'pino';
import type { FinishedRequest } from '../core/report.ts';
import type { Exchange, RequestTimes } from './exchange.ts';

type Destination = { write(bytes: Buffer): boolean; flush(): void; flushSync(): void; end(): void };

/** Lines are handed over in pieces of about this size: each costs a trip to another thread. */
const batchBytes = 65_536;
const flushMs = 500;

/**
 * One JSON line a request, handed to pino's destination, which writes them in batches off the request's way. The lines
 * are put together here: a logger that takes any object costs several times as much. No headers, no bodies, no query,
 * no key.
 */
export class AccessLog {
  readonly #destination: Destination;
  readonly #timer: NodeJS.Timeout;
  #batch = Buffer.allocUnsafeSlow(batchBytes);
  #used = 0;
  #second = 0;
  #secondText = '';

  /** `target`: `-` for stderr, or a file, which is appended to. */
  constructor(target: string) {
    this.#destination = pino.destination({
      dest: target === '-' ? 2 : target,
      append: true,
      mkdir: true,
      sync: false,
      contentMode: 'buffer',
      // It writes when it is told to, or when a batch and more is there.
      minLength: batchBytes,
      maxWrite: 2 * batchBytes,
    }) as unknown as Destination;
    this.#timer = setInterval(() => {
      this.#hand();
      this.#destination.flush();
    }, flushMs);
    this.#timer.unref();
  }

  write(request: FinishedRequest, times: RequestTimes, exchange: Exchange): void {
    const { trace } = exchange.headers;
    this.#append(
      `{"time":"${this.#time(request.at)}","id":${quoted(request.id)},"method":"${request.method}","path":${quoted(request.path)},` +
        `"status":${request.status},"cause":"${request.cause}","instance":${quoted(request.instance)},"attempts":${request.attempts},` +
        `"queue_ms":${rounded(times.queueMs)},"connect_ms":${rounded(times.connectMs)},"ttfb_ms":${rounded(times.ttfbMs)},` +
        `"total_ms":${rounded(times.totalMs)},"bytes_in":${exchange.bytesIn},"bytes_out":${request.bytesOut},` +
        `"model":${quoted(request.model)},"client":${quoted(exchange.client)}${trace === null ? '' : `,"trace":"${trace}"`}}\n`,
    );
  }

  /** A string would live until it is written; as bytes it is gone at once. */
  #append(line: string): void {
    // Three bytes is the most that a UTF-16 unit becomes.
    if (this.#used + line.length * 3 > batchBytes) this.#hand();
    if (line.length * 3 > batchBytes) this.#destination.write(Buffer.from(line));
    else this.#used += this.#batch.write(line, this.#used);
  }

  #hand(): void {
    if (this.#used === 0) return;
    this.#destination.write(Buffer.from(this.#batch.subarray(0, this.#used)));
    this.#used = 0;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#hand();
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
