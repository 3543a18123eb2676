import { mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { pino } from 'pino';
import type { FinishedRequest } from '../core/report.ts';
import type { RequestTimes } from './exchange.ts';

type Destination = NodeJS.EventEmitter & { write(bytes: Buffer): boolean; flush(): void; end(): void };

type LoggedExchange = Readonly<{
  bytesIn: number;
  /** Address of the client. */
  client: string | null;
  headers: Readonly<{ trace: string | null }>;
}>;

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
  /** Of a line, down to the second. */
  #start = words.null;

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

  write(request: FinishedRequest, times: RequestTimes, exchange: LoggedExchange): void {
    const { trace } = exchange.headers;
    const { id, path, instance, model } = request;
    const { client } = exchange;
    const room = this.#begin(request.at, id, path, instance, model, client);
    this.#quoted(id);
    this.#bytes(words.method);
    this.#text(request.method);
    this.#bytes(words.path);
    this.#quoted(path);
    this.#bytes(words.status);
    this.#whole(request.status);
    this.#bytes(words.cause);
    this.#text(request.cause);
    this.#bytes(words.instance);
    this.#quoted(instance);
    this.#bytes(words.attempts);
    this.#whole(request.attempts);
    this.#bytes(words.queue);
    this.#milliseconds(times.queueMs);
    this.#bytes(words.connect);
    this.#milliseconds(times.connectMs);
    this.#bytes(words.ttfb);
    this.#milliseconds(times.ttfbMs);
    this.#bytes(words.total);
    this.#milliseconds(times.totalMs);
    this.#bytes(words.bytesIn);
    this.#whole(exchange.bytesIn);
    this.#bytes(words.bytesOut);
    this.#whole(request.bytesOut);
    this.#bytes(words.model);
    this.#quoted(model);
    this.#bytes(words.client);
    this.#quoted(client);
    if (trace !== null) {
      this.#bytes(words.trace);
      this.#quoted(trace);
    }
    this.#end(room);
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
    const room = this.#begin(request.at, request.id, request.client, null, null, null);
    this.#text(
      `"${request.id}","method":null,"path":null,"status":${request.status},"cause":"${request.cause}",` +
        `"instance":null,"attempts":0,"queue_ms":0,"connect_ms":null,"ttfb_ms":null,"total_ms":0,"bytes_in":0,"bytes_out":${request.bytesOut},` +
        '"model":null,"client":',
    );
    this.#quoted(request.client);
    this.#end(room);
  }

  /**
   * Begins a line, in the batch or, if it can be longer than that, in a buffer of its own: written as bytes from the
   * start, because to join strings and then to copy the result takes five times as long. Returns the batch to go back to.
   */
  #begin(
    at: number,
    a: string | null,
    b: string | null,
    c: string | null,
    d: string | null,
    e: string | null,
  ): Buffer<ArrayBuffer> | null {
    const most = fixedBytes + longestEscape * (lengthOf(a) + lengthOf(b) + lengthOf(c) + lengthOf(d) + lengthOf(e));
    if (this.#used + most > batchBytes) this.#hand();
    let batch: Buffer<ArrayBuffer> | null = null;
    if (most > batchBytes) {
      batch = this.#batch;
      this.#batch = Buffer.allocUnsafeSlow(most);
    }
    const second = Math.floor(at / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#start = Buffer.from(`{"time":"${new Date(second * 1000).toISOString().slice(0, 20)}`);
    }
    this.#bytes(this.#start);
    this.#threeDigits(at - second * 1000);
    this.#bytes(words.id);
    return batch;
  }

  #end(batch: Buffer<ArrayBuffer> | null): void {
    this.#bytes(words.end);
    if (batch !== null) {
      this.#hand();
      this.#batch = batch;
    }
    this.#flushLater();
  }

  #bytes(bytes: Uint8Array): void {
    const batch = this.#batch;
    let at = this.#used;
    for (let i = 0; i < bytes.length; i++) batch[at++] = bytes[i]!;
    this.#used = at;
  }

  /** ASCII that needs no escapes. */
  #text(text: string): void {
    const batch = this.#batch;
    let at = this.#used;
    for (let i = 0; i < text.length; i++) batch[at++] = text.charCodeAt(i);
    this.#used = at;
  }

  #quoted(text: string | null): void {
    if (text === null) {
      this.#bytes(words.null);
      return;
    }
    const batch = this.#batch;
    let at = this.#used;
    batch[at++] = quote;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code < 0x20 || code > 0x7e || code === quote || code === backslash) {
        this.#text(escaped(text));
        return;
      }
      batch[at++] = code;
    }
    batch[at++] = quote;
    this.#used = at;
  }

  #whole(value: number): void {
    if (value >= 1000) this.#text(String(value));
    else if (value >= 100) this.#threeDigits(value);
    else if (value >= 10) this.#text(String(value));
    else this.#batch[this.#used++] = zero + value;
  }

  /** To the microsecond. */
  #milliseconds(ms: number | null): void {
    if (ms === null) {
      this.#bytes(words.null);
      return;
    }
    const us = Math.max(0, Math.round(ms * 1000));
    const whole = Math.floor(us / 1000);
    this.#whole(whole);
    this.#batch[this.#used++] = point;
    this.#threeDigits(us - whole * 1000);
  }

  #threeDigits(value: number): void {
    const batch = this.#batch;
    const at = this.#used;
    const hundreds = (value / 100) | 0;
    const tens = (value / 10) | 0;
    batch[at] = zero + hundreds;
    batch[at + 1] = zero + tens - 10 * hundreds;
    batch[at + 2] = zero + value - 10 * tens;
    this.#used = at + 3;
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
}

function opened(file: string): number {
  mkdirSync(dirname(file), { recursive: true });
  return openSync(file, 'a');
}

/** What stands between the values of a line. */
const words = {
  id: Buffer.from('Z","id":'),
  method: Buffer.from(',"method":"'),
  path: Buffer.from('","path":'),
  status: Buffer.from(',"status":'),
  cause: Buffer.from(',"cause":"'),
  instance: Buffer.from('","instance":'),
  attempts: Buffer.from(',"attempts":'),
  queue: Buffer.from(',"queue_ms":'),
  connect: Buffer.from(',"connect_ms":'),
  ttfb: Buffer.from(',"ttfb_ms":'),
  total: Buffer.from(',"total_ms":'),
  bytesIn: Buffer.from(',"bytes_in":'),
  bytesOut: Buffer.from(',"bytes_out":'),
  model: Buffer.from(',"model":'),
  client: Buffer.from(',"client":'),
  trace: Buffer.from(',"trace":'),
  null: Buffer.from('null'),
  end: Buffer.from('}\n'),
};
const [quote, backslash, zero, point] = [0x22, 0x5c, 0x30, 0x2e];
/** More than all of a line but its texts: names, numbers, method, cause and trace. */
const fixedBytes = 1_024;
/** `\\u` and four digits. */
const longestEscape = 6;
const lengthOf = (text: string | null): number => (text === null ? 0 : text.length);

const beyondAscii = /[^\0-\x7e]/g;

/** With its quotes, in ASCII alone. */
function escaped(text: string): string {
  return JSON.stringify(text).replace(beyondAscii, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
