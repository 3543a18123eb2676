import type { IncomingMessage } from 'node:http';
import { passedTrailers } from './answer-head.ts';
import type { ModelScan } from './model-scan.ts';

/** What takes a request body: the connection to an upstream. */
export interface BodySink {
  /** False: no more for now; `drained` is called when there is room again. */
  take(chunk: Buffer): boolean;
  finish(trailers: readonly string[]): void;
}

/**
 * The body of one request on its way from the client to one upstream after another. What has arrived is kept while it is
 * small enough to be sent again; beyond that it only passes through, at the pace of the upstream.
 */
export class Upload {
  /** Content-Length; -1: it comes in chunks. */
  readonly length: number;
  /** Bytes received from the client. */
  bytes = 0;
  /** The client has sent all of it. */
  complete = false;
  /** False once bytes went to an upstream that are no longer kept. */
  replayable = true;
  /** Set on every chunk, cleared by the timeout sweep. */
  touched = true;
  readonly #req: IncomingMessage;
  readonly #keepBytes: number;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #sink: BodySink | null = null;
  #scan: ModelScan | null = null;
  /** Reading ahead of a consumer stops here. */
  #aheadBytes: number;
  #onProgress: (() => void) | null = null;

  constructor(req: IncomingMessage, length: number, keepBytes: number) {
    this.#req = req;
    this.length = length;
    this.#keepBytes = keepBytes;
    this.#aheadBytes = keepBytes;
    req.on('data', (chunk: Buffer) => this.#data(chunk));
    req.on('end', () => this.#end());
    req.on('error', noop); // the answer's `close` tells the same
    req.pause();
  }

  /**
   * Reads ahead and calls back after every step until `stopProgress`. With a scan, up to `aheadBytes` are held while it
   * is undecided.
   */
  readAhead(onProgress: () => void, scan: ModelScan | null, aheadBytes: number): void {
    this.#onProgress = onProgress;
    this.#scan = scan;
    if (scan !== null) this.#aheadBytes = Math.max(this.#keepBytes, aheadBytes);
    this.#req.resume();
  }

  stopProgress(): void {
    this.#onProgress = null;
    this.#scan = null;
    if (!this.complete) this.#req.pause();
  }

  /** True when no more will be read before somebody takes what is here. */
  get full(): boolean {
    return this.#keptBytes >= this.#aheadBytes;
  }

  /** Bytes that are kept. */
  get size(): number {
    return this.#keptBytes;
  }

  /** All that is kept, in one piece: the whole body when it is complete. Only while `replayable`. */
  whole(): Buffer {
    if (this.#kept.length !== 1) this.#kept = [Buffer.concat(this.#kept)];
    return this.#kept[0]!;
  }

  /** From now on `sink` takes it, from the beginning. Only while `replayable`. */
  attach(sink: BodySink): void {
    this.#sink = sink;
    let more = true;
    for (const chunk of this.#kept) more = sink.take(chunk);
    this.#forgetIfLarge();
    if (this.complete) this.#finish();
    else if (more) this.#req.resume();
    else this.#req.pause();
  }

  /** `sink` has gone; what arrives now waits for the next one. */
  detach(sink: BodySink): void {
    if (this.#sink !== sink) return;
    this.#sink = null;
    if (!this.complete) this.#req.pause();
  }

  /** `sink` has room again. */
  drained(sink: BodySink): void {
    if (sink === this.#sink && !this.complete) this.#req.resume();
  }

  /** Nobody takes it any more: what is still to come is thrown away. */
  discard(): void {
    this.#sink = null;
    this.#onProgress = null;
    this.#scan = null;
    this.#kept = [];
    this.#keptBytes = 0;
    this.replayable = false;
    if (!this.complete) this.#req.resume();
  }

  #data(chunk: Buffer): void {
    this.touched = true;
    this.bytes += chunk.length;
    const sink = this.#sink;
    if (sink !== null) {
      if (this.replayable) this.#keep(chunk);
      this.#forgetIfLarge();
      if (!sink.take(chunk)) this.#req.pause();
      return;
    }
    if (!this.replayable) return; // discarded
    this.#keep(chunk);
    this.#scan?.write(chunk);
    if (this.full) this.#req.pause();
    this.#onProgress?.();
  }

  #end(): void {
    this.complete = true;
    this.touched = true;
    if (this.#sink !== null) this.#finish();
    this.#onProgress?.();
  }

  #finish(): void {
    const sink = this.#sink!;
    this.#sink = null;
    const { rawTrailers } = this.#req;
    sink.finish(rawTrailers.length === 0 ? rawTrailers : passedTrailers(rawTrailers));
  }

  #keep(chunk: Buffer): void {
    this.#kept.push(chunk);
    this.#keptBytes += chunk.length;
  }

  #forgetIfLarge(): void {
    if (!this.replayable || this.#keptBytes <= this.#keepBytes) return;
    this.#kept = [];
    this.#keptBytes = 0;
    this.replayable = false;
  }
}

function noop(): void {}
