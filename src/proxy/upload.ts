import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import type { ModelScan } from './model-scan.ts';

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
  #stream: UploadStream | null = null;
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

  /** What to give to undici: all of the body when it is here, else a stream of it. Only while `replayable`. */
  body(): Buffer | Readable | null {
    if (this.complete) {
      this.#stream = null;
      if (this.#keptBytes === 0) return null;
      if (this.#kept.length > 1) this.#kept = [Buffer.concat(this.#kept)];
      return this.#kept[0]!;
    }
    this.#stream = new UploadStream(this);
    return this.#stream;
  }

  /** The upstream begins to take `stream`: everything kept goes first. */
  consume(stream: UploadStream): void {
    if (stream !== this.#stream) return;
    for (const chunk of this.#kept) stream.push(chunk);
    this.#forgetIfLarge();
    if (this.complete) stream.push(null);
    else this.#req.resume();
  }

  /** The upstream does not take what the client has sent. */
  get held(): boolean {
    return this.#stream?.consuming === true && this.#req.isPaused();
  }

  resume(stream: UploadStream): void {
    if (stream === this.#stream && !this.complete) this.#req.resume();
  }

  /** Nobody takes it any more: what is still to come is thrown away. */
  discard(): void {
    this.#stream = null;
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
    const stream = this.#stream;
    if (stream?.consuming === true) {
      if (this.replayable) this.#keep(chunk);
      this.#forgetIfLarge();
      if (!stream.push(chunk)) this.#req.pause();
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
    if (this.#stream?.consuming === true) this.#stream.push(null);
    this.#onProgress?.();
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

/** One upstream's view of an upload. A new one for every attempt, so that an upstream that fails takes nothing with it. */
export class UploadStream extends Readable {
  consuming = false;
  readonly #upload: Upload;

  constructor(upload: Upload) {
    super({ highWaterMark: 65_536 });
    this.#upload = upload;
  }

  override _read(): void {
    if (this.consuming) {
      this.#upload.resume(this);
      return;
    }
    this.consuming = true;
    this.#upload.consume(this);
  }
}

function noop(): void {}
