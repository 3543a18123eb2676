import { mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { pino } from 'pino';
import type { FinishedRequest } from '../core/report.ts';
import type { Exchange, RequestTimes } from './exchange.ts';

type Destination = NodeJS.EventEmitter & { write(bytes: Buffer): boolean; flush(): void; end(): void };

/** Lines are handed over in pieces of about this size: each costs a trip to another thread. */
const batchBytes = 65_536;
const flushMs = 500;
/** Lines that cannot be written are tried again until there are so many of them; then further ones are lost. */
const keptBytes = 4 * 1024 * 1024;
/** A disk that does not answer holds up the end of a thread for so long. */
const closeMs = 2_000;

/**
 * One JSON line a request, handed to pino's destination, which writes them in batches off the request's way. The lines
 * are put together here: a logger that takes any object costs several times as much. No headers, no bodies, no query,
 * no key.
 */
export class AccessLog {
  /** Why lines cannot be written at the moment; null when they can. */
  fault: string | null = null;
  readonly #destination: Destination;
  /** Runs while lines wait to be written. */
  #timer: NodeJS.Timeout | null = null;
  #batch = Buffer.allocUnsafeSlow(batchBytes);
  #used = 0;
  #second = 0;
  #secondText = '';

  /**
   * `target`: `-` for stderr, or a file, which is appended to. Throws the error of the system when the file cannot be
   * opened.
   */
  constructor(target: string) {
    this.#destination = pino.destination({
      dest: target === '-' ? 2 : opened(target),
      sync: false,
      contentMode: 'buffer',
      // It writes when it is told to, or when a batch and more is there.
      minLength: batchBytes,
      maxWrite: 2 * batchBytes,
      maxLength: keptBytes,
    }) as unknown as Destination;
    // pino's own listener would end the thread; a full disk must not take the traffic with it.
    this.#destination.removeAllListeners('error');
    this.#destination.on('error', (error: Error) => {
      this.fault = error.message;
    });
    this.#destination.on('write', () => {
      this.fault = null;
    });
  }

  write(request: FinishedRequest, times: RequestTimes, exchange: Exchange): void {
    const { trace } = exchange.headers;
    this.#append(
      `{"time":"${this.#time(request.at)}","id":${quoted(request.id)},"method":"${request.method}","path":${quoted(request.path)},` +
        `"status":${request.status},"cause":"${request.cause}","instance":${quoted(request.instance)},"attempts":${request.attempts},` +
        `"queue_ms":${milliseconds(times.queueMs)},"connect_ms":${milliseconds(times.connectMs)},"ttfb_ms":${milliseconds(times.ttfbMs)},` +
        `"total_ms":${milliseconds(times.totalMs)},"bytes_in":${exchange.bytesIn},"bytes_out":${request.bytesOut},` +
        `"model":${quoted(request.model)},"client":${quoted(exchange.client)}${trace === null ? '' : `,"trace":"${trace}"`}}\n`,
    );
  }

  /** Of a request whose method and path nobody knows. */
  writeUnread(
    request: Readonly<{
      at: number;
      id: string;
      status: number;
      cause: string;
      bytesOut: number;
      client: string | null;
    }>,
  ): void {
    this.#append(
      `{"time":"${this.#time(request.at)}","id":"${request.id}","method":null,"path":null,"status":${request.status},"cause":"${request.cause}",` +
        `"instance":null,"attempts":0,"queue_ms":0,"connect_ms":null,"ttfb_ms":null,"total_ms":0,"bytes_in":0,"bytes_out":${request.bytesOut},` +
        `"model":null,"client":${quoted(request.client)}}\n`,
    );
  }

  /** A line is ASCII alone. A string would live until it is written; as bytes it is gone at once. */
  #append(line: string): void {
    if (this.#used + line.length > batchBytes) this.#hand();
    this.#flushLater();
    if (line.length > batchBytes) this.#destination.write(Buffer.from(line, 'latin1'));
    else this.#used += this.#batch.write(line, this.#used, 'latin1');
  }

  #flushLater(): void {
    if (this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#hand();
      this.#destination.flush();
      // What could not be written is tried again.
      if (this.fault !== null) this.#flushLater();
    }, flushMs);
    this.#timer.unref();
  }

  #hand(): void {
    if (this.#used === 0) return;
    this.#destination.write(Buffer.from(this.#batch.subarray(0, this.#used)));
    this.#used = 0;
  }

  /** Resolves when all lines are written, or cannot be. */
  async close(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#hand();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, closeMs);
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#destination.once('close', done);
      this.#destination.once('error', done);
      this.#destination.end();
    });
  }

  /** RFC 3339; the part down to the second is made once a second. */
  #time(at: number): string {
    const second = Math.floor(at / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondText = new Date(second * 1000).toISOString().slice(0, 20);
    }
    return `${this.#secondText}${threeDigits[at - second * 1000]}Z`;
  }
}

function opened(file: string): number {
  mkdirSync(dirname(file), { recursive: true });
  return openSync(file, 'a');
}

const threeDigits: readonly string[] = Array.from({ length: 1000 }, (_, i) => String(i).padStart(3, '0'));

const plain = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;
const beyondAscii = /[^\0-\x7e]/g;

function quoted(text: string | null): string {
  if (text === null) return 'null';
  if (plain.test(text)) return `"${text}"`;
  return JSON.stringify(text).replace(beyondAscii, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** To the microsecond. Put together from whole numbers: to print a fraction takes several times as long. */
function milliseconds(ms: number | null): string {
  if (ms === null) return 'null';
  const us = Math.max(0, Math.round(ms * 1000));
  const whole = Math.floor(us / 1000);
  return `${whole}.${threeDigits[us - whole * 1000]}`;
}
