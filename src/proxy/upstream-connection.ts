import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { type AnswerHead, readAnswerHead, readTrailers } from './answer-head.ts';
import type { BodySink, Upload } from './upload.ts';

/** Where to connect to, and how. */
export type Target = {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
  /** Value of the Host header. */
  readonly authority: string;
  readonly settings: Readonly<{ verifyUpstreamTls: boolean }>;
  /** TLS session of an earlier connection. */
  session: Buffer | undefined;
};

/** One request as it goes out. */
export type Outgoing = Readonly<{
  method: string;
  path: string;
  /** Lines with their ends, without Host, Connection and the framing of the body. */
  headers: string;
  body: Upload | null;
  /** Value of Trailer when the client has announced trailers and sends chunks. */
  trailer: string | null;
  /** Protocol asked for. */
  upgrade: string | null;
}>;

/** What hears of the answer to a request; one at a time per connection. */
export interface AnswerListener {
  /** The request begins to go out. */
  onSent(): void;
  /** 1xx other than 100 and 101. */
  onInformation(head: AnswerHead): void;
  onHead(head: AnswerHead): void;
  /** Bytes of the body. Up to `loanBytes` they are lent for the time of the call, beyond that they are given. */
  onData(chunk: Buffer): void;
  /** Whole chunks with their framing, `from` to `to` of a lent buffer. False: they are wanted one by one through `onData`. */
  onChunks(buffer: Buffer, from: number, to: number, bytes: number): boolean;
  onEnd(trailers: readonly string[]): void;
  onUpgrade(head: AnswerHead, socket: Socket): void;
  /** It went wrong; nothing more will come. `code` is a system error code or a word of ours. */
  onFailure(code: string): void;
}

/** Pieces up to this size are cheaper to copy into a string than to hand on. */
export const loanBytes = 8_192;

const maxHeadBytes = 65_536;
const maxTrailerBytes = 16_384;
const maxInformation = 64;

// What the next byte of the upstream belongs to.
const idle = 0;
const inHead = 1;
const byLength = 2;
const untilClose = 3;
const chunkSize = 4;
const chunkExtension = 5;
const chunkSizeEnd = 6;
const chunkData = 7;
const chunkDataEnd = 8;
const chunkDataEnd2 = 9;
const inTrailers = 10;
const handedOver = 11;

/** All plain connections of a thread read into this: what arrives is dealt with before the next read. */
const readBuffer = Buffer.allocUnsafeSlow(65_536);
const nothing = Buffer.alloc(0);
const payloadMethods: Readonly<Record<string, true>> = {
  POST: true,
  PUT: true,
  PATCH: true,
  QUERY: true,
  PROPFIND: true,
  PROPPATCH: true,
};

/**
 * One connection to an upstream, HTTP/1.1, one request at a time. Written for this proxy alone: it checks an answer as strictly
 * as a parser must that stands between two others, and it copies and allocates as little as can be. No timers: deadlines
 * are kept by the proxy's sweep.
 */
export class UpstreamConnection implements BodySink {
  /** Requests sent before the present one. */
  used = 0;
  /** When it became idle, and how long it may stay so; milliseconds. */
  idleSince = 0;
  idleMs = 0;
  readonly #socket: Socket;
  readonly #onIdle: (connection: UpstreamConnection) => void;
  readonly #authority: string;
  readonly #onBytes = (chunk: Buffer): void => this.#received(chunk, chunk.length);
  #connected = false;
  #listener: AnswerListener | null = null;
  #outgoing: Outgoing | null = null;
  #state = idle;
  /** Bytes of the answer were seen. */
  answering = false;
  #head: AnswerHead | null = null;
  #pending: Buffer = nothing;
  #left = 0;
  #sizeDigits = 0;
  #skipped = 0;
  #informed = 0;
  #text = '';
  /** How far `#wholeChunks` got. */
  #framedTo = 0;
  // The request body on its way.
  #upload: Upload | null = null;
  #chunkedUpload = false;

  /** `shared`: reads go into the buffer that all connections share; not for one that may be handed over. */
  constructor(
    target: Target,
    shared: boolean,
    onIdle: (connection: UpstreamConnection) => void,
    onClose: (connection: UpstreamConnection) => void,
  ) {
    this.#onIdle = onIdle;
    this.#authority = target.authority;
    let socket: Socket;
    if (target.secure) {
      const tls = connectTls({
        host: target.host,
        port: target.port,
        rejectUnauthorized: target.settings.verifyUpstreamTls,
        ALPNProtocols: ['http/1.1'],
        ...(isIP(target.host) === 0 ? { servername: target.host } : {}),
        ...(target.session === undefined ? {} : { session: target.session }),
      });
      tls.on('session', (session) => {
        target.session = session;
      });
      tls.on('secureConnect', () => this.#opened());
      tls.on('data', this.#onBytes);
      socket = tls;
    } else {
      const onread = {
        buffer: readBuffer,
        callback: (length: number) => {
          this.#received(readBuffer, length);
          return true;
        },
      };
      socket = connectTcp({
        host: target.host,
        port: target.port,
        noDelay: true,
        ...(shared ? { onread } : {}),
      });
      socket.on('connect', () => this.#opened());
      if (!shared) socket.on('data', this.#onBytes);
    }
    this.#socket = socket;
    socket.on('drain', () => this.#upload?.drained(this));
    socket.on('end', () => this.#ended());
    socket.on('error', (error: NodeJS.ErrnoException) => this.#failed(error.code ?? error.name));
    socket.on('close', () => {
      this.#failed('closed');
      onClose(this);
    });
  }

  get broken(): boolean {
    return this.#socket.destroyed || !this.#socket.writable;
  }

  /** Sends a request, at once or when the connection stands. */
  send(outgoing: Outgoing, listener: AnswerListener): void {
    this.#listener = listener;
    this.#outgoing = outgoing;
    this.answering = false;
    if (this.#connected) this.#write();
  }

  /** Ends the request of `listener`, if it is still in hand, and the connection with it. The listener hears nothing more. */
  abort(listener: AnswerListener): void {
    if (this.#listener !== listener) return;
    this.#listener = null;
    this.#detach();
    this.#socket.destroy();
  }

  /** Closes it; a request in hand fails. */
  close(): void {
    this.#failed('removed');
    this.#socket.destroy();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  #opened(): void {
    this.#connected = true;
    if (this.#outgoing !== null) this.#write();
  }

  #write(): void {
    const outgoing = this.#outgoing!;
    const listener = this.#listener!;
    this.#outgoing = null;
    const { method, body, upgrade } = outgoing;
    this.#state = inHead;
    this.#informed = 0;
    this.#bodiless = method === 'HEAD';
    this.#upgrading = upgrade !== null;
    listener.onSent();
    // It may have been given up in that very moment.
    if (this.#listener !== listener) return;
    let head = `${method} ${outgoing.path} HTTP/1.1\r\nhost: ${this.#authority}\r\n`;
    head += upgrade === null ? 'connection: keep-alive\r\n' : `connection: upgrade\r\nupgrade: ${upgrade}\r\n`;
    head += outgoing.headers;
    const socket = this.#socket;
    const trailers = outgoing.trailer !== null;
    if (body === null || (body.complete && body.size === 0 && !trailers)) {
      socket.write(payloadMethods[method] === true ? `${head}content-length: 0\r\n\r\n` : `${head}\r\n`, 'latin1');
      return;
    }
    if (body.complete && !trailers) {
      const bytes = body.whole();
      head += `content-length: ${bytes.length}\r\n\r\n`;
      if (bytes.length <= loanBytes) socket.write(head + bytes.toString('latin1'), 'latin1');
      else {
        socket.cork();
        socket.write(head, 'latin1');
        socket.write(bytes);
        socket.uncork();
      }
      return;
    }
    this.#upload = body;
    this.#chunkedUpload = body.length === -1;
    if (!this.#chunkedUpload) head += `content-length: ${body.length}\r\n\r\n`;
    else head += `${trailers ? `trailer: ${outgoing.trailer}\r\n` : ''}transfer-encoding: chunked\r\n\r\n`;
    socket.cork();
    socket.write(head, 'latin1');
    body.attach(this);
    socket.uncork();
  }
  #bodiless = false;
  #upgrading = false;

  // --- the request body, called by the upload ---

  take(chunk: Buffer): boolean {
    const socket = this.#socket;
    if (!this.#chunkedUpload) return socket.write(chunk);
    if (chunk.length === 0) return true;
    socket.cork();
    socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1');
    socket.write(chunk);
    const more = socket.write('\r\n', 'latin1');
    socket.uncork();
    return more;
  }

  finish(trailers: readonly string[]): void {
    this.#upload = null;
    if (this.#chunkedUpload) {
      let text = '0\r\n';
      for (let i = 0; i < trailers.length; i += 2) text += `${trailers[i]}: ${trailers[i + 1]}\r\n`;
      this.#socket.write(`${text}\r\n`, 'latin1');
    }
  }

  #detach(): void {
    this.#upload?.detach(this);
    this.#upload = null;
  }

  // --- the answer ---

  /** Takes the first `end` bytes of `chunk`. */
  #received(chunk: Buffer, end: number): void {
    let at = 0;
    while (at < end) {
      switch (this.#state) {
        case inHead:
          at = this.#takeHead(chunk.subarray(0, end), at);
          break;
        case byLength: {
          const n = Math.min(this.#left, end - at);
          this.#left -= n;
          const last = this.#left === 0;
          if (last) this.#state = idle;
          this.#data(chunk, at, at + n);
          at += n;
          if (last) at = this.#complete([], at === end, at);
          break;
        }
        case untilClose:
          this.#data(chunk, at, end);
          at = end;
          break;
        case chunkSize:
          if (this.#sizeDigits === 0) {
            const bytes = this.#wholeChunks(chunk, at, end);
            if (bytes > 0 && this.#listener?.onChunks(chunk, at, this.#framedTo, bytes) === true) {
              at = this.#framedTo;
              break;
            }
          }
          at = this.#takeChunked(chunk, at, end);
          break;
        case chunkExtension:
        case chunkSizeEnd:
        case chunkData:
        case chunkDataEnd:
        case chunkDataEnd2:
          at = this.#takeChunked(chunk, at, end);
          break;
        case inTrailers:
          at = this.#takeTrailers(chunk, at, end);
          break;
        default:
          // Bytes that nobody asked for.
          this.#broke('unasked');
          return;
      }
      if (at < 0) return;
    }
  }

  /** Returns how far it got; -1: nothing more is to be read. */
  #takeHead(chunk: Buffer, from: number): number {
    this.answering = true;
    let bytes = chunk;
    let start = from;
    const before = this.#pending.length;
    if (before > 0) {
      bytes = Buffer.concat([this.#pending, chunk.subarray(from)]);
      start = 0;
    }
    const end = bytes.indexOf('\r\n\r\n', before > 3 ? start + before - 3 : start, 'latin1');
    if (end === -1 || end - start > maxHeadBytes) {
      if (bytes.length - start > maxHeadBytes) return this.#broke('headers_too_large');
      this.#pending = before > 0 ? bytes : Buffer.from(chunk.subarray(from));
      return chunk.length;
    }
    this.#pending = nothing;
    const next = before > 0 ? from + (end + 4 - before) : end + 4;
    const head = readAnswerHead(bytes.toString('latin1', start, end));
    if (head === null) return this.#broke('bad_answer');
    const { status } = head;
    if (status < 200) return this.#information(head, chunk, next);
    this.#head = head;
    const bodiless = this.#bodiless || status === 204 || status === 304;
    if (bodiless || head.contentLength === 0) this.#state = idle;
    else if (head.chunked) {
      this.#state = chunkSize;
      this.#left = 0;
      this.#sizeDigits = 0;
    } else if (head.contentLength > 0) {
      this.#state = byLength;
      this.#left = head.contentLength;
    } else {
      this.#state = untilClose;
      head.close = true;
    }
    this.#listener?.onHead(head);
    if (this.#listener === null) return -1;
    return this.#state === idle ? this.#complete([], next === chunk.length, next) : next;
  }

  #information(head: AnswerHead, chunk: Buffer, next: number): number {
    const { status } = head;
    if (status === 101) {
      if (!this.#upgrading) return this.#broke('unasked_upgrade');
      const listener = this.#listener;
      this.#listener = null;
      this.#state = handedOver;
      const socket = this.#socket;
      socket.off('data', this.#onBytes);
      socket.pause();
      if (next < chunk.length) socket.unshift(chunk.subarray(next));
      listener?.onUpgrade(head, socket);
      return -1;
    }
    if (++this.#informed > maxInformation) return this.#broke('too_many_1xx');
    // We told the client ourselves to go on when its body was wanted.
    if (status !== 100) this.#listener?.onInformation(head);
    return this.#listener === null ? -1 : next;
  }

  #data(chunk: Buffer, from: number, to: number): void {
    if (to === from) return;
    const piece = chunk.subarray(from, to);
    // The shared buffer is read into again before a large piece may be written.
    const given = piece.length > loanBytes && chunk.buffer === readBuffer.buffer ? Buffer.from(piece) : piece;
    this.#listener?.onData(given);
  }

  /**
   * Looks for chunks that are here as a whole, are framed in the plainest way and are not the last. Returns the bytes in
   * them, and sets `#framedTo` to where they end.
   */
  #wholeChunks(chunk: Buffer, from: number, end: number): number {
    let at = from;
    let bytes = 0;
    for (;;) {
      let size = 0;
      let i = at;
      for (; i < end && i - at < 7; i++) {
        const digit = hexDigit(chunk[i]!);
        if (digit < 0) break;
        size = size * 16 + digit;
      }
      const after = i + 2 + size;
      // Beyond `end` lies what was read before.
      if (after + 2 > end || i === at || size === 0 || chunk[at] === 0x30) break;
      if (chunk[i] !== 0x0d || chunk[i + 1] !== 0x0a || chunk[after] !== 0x0d || chunk[after + 1] !== 0x0a) break;
      bytes += size;
      at = after + 2;
    }
    this.#framedTo = at;
    return bytes;
  }

  #takeChunked(chunk: Buffer, from: number, end: number): number {
    let at = from;
    while (at < end) {
      const byte = chunk[at]!;
      switch (this.#state) {
        case chunkSize: {
          const digit = hexDigit(byte);
          if (digit >= 0) {
            if (++this.#sizeDigits > 12) return this.#broke('bad_chunk');
            this.#left = this.#left * 16 + digit;
          } else if (this.#sizeDigits === 0) return this.#broke('bad_chunk');
          else if (byte === 0x0d) this.#state = chunkSizeEnd;
          else if (byte === 0x3b || byte === 0x20 || byte === 0x09) {
            this.#state = chunkExtension;
            this.#skipped = 0;
          } else return this.#broke('bad_chunk');
          at++;
          break;
        }
        case chunkExtension:
          if (byte === 0x0d) this.#state = chunkSizeEnd;
          else if (byte === 0x0a || ++this.#skipped > 4096) return this.#broke('bad_chunk');
          at++;
          break;
        case chunkSizeEnd:
          if (byte !== 0x0a) return this.#broke('bad_chunk');
          at++;
          if (this.#left === 0) {
            this.#state = inTrailers;
            this.#text = '';
            return at;
          }
          this.#state = chunkData;
          break;
        case chunkData: {
          const n = Math.min(this.#left, end - at);
          this.#left -= n;
          if (this.#left === 0) this.#state = chunkDataEnd;
          this.#data(chunk, at, at + n);
          if (this.#listener === null) return -1;
          at += n;
          break;
        }
        case chunkDataEnd:
          if (byte !== 0x0d) return this.#broke('bad_chunk');
          this.#state = chunkDataEnd2;
          at++;
          break;
        default:
          if (byte !== 0x0a) return this.#broke('bad_chunk');
          at++;
          this.#state = chunkSize;
          this.#sizeDigits = 0;
          return at;
      }
    }
    return at;
  }

  #takeTrailers(chunk: Buffer, from: number, to: number): number {
    const before = this.#text.length;
    this.#text += chunk.toString('latin1', from, Math.min(to, from + maxTrailerBytes + 4));
    if (this.#text.startsWith('\r\n')) {
      const next = from + 2 - before;
      return this.#complete([], next === to, next);
    }
    const end = this.#text.indexOf('\r\n\r\n');
    if (end === -1) return this.#text.length > maxTrailerBytes ? this.#broke('trailers_too_large') : to;
    const trailers = readTrailers(this.#text.slice(0, end));
    if (trailers === null) return this.#broke('bad_trailers');
    const next = from + end + 4 - before;
    return this.#complete(trailers, next === to, next);
  }

  /** The answer is whole. Returns `at`, or -1 when the connection is of no further use. */
  #complete(trailers: readonly string[], clean: boolean, at: number): number {
    const listener = this.#listener;
    if (listener === null) return -1;
    const head = this.#head!;
    this.#listener = null;
    this.#head = null;
    this.#state = idle;
    this.#text = '';
    // An upload that is still under way would be taken for the next request.
    const reusable = clean && !head.close && this.#upload === null && !this.#socket.destroyed;
    this.#detach();
    if (reusable) {
      this.used++;
      this.idleMs = head.idleMs;
      // Reading may have been paused for a client that was slow to take the last bytes.
      if (this.#socket.isPaused()) this.#socket.resume();
      this.#onIdle(this);
    } else this.#socket.destroy();
    listener.onEnd(trailers);
    return reusable ? at : -1;
  }

  #ended(): void {
    if (this.#state === handedOver) return;
    if (this.#state === untilClose && this.#listener !== null) this.#complete([], false, 0);
    else this.#failed('closed');
    this.#socket.destroy();
  }

  /** The upstream does not keep to the protocol. */
  #broke(code: string): number {
    this.#failed(code);
    this.#socket.destroy();
    return -1;
  }

  #failed(code: string): void {
    const listener = this.#listener;
    if (listener === null) return;
    this.#listener = null;
    this.#detach();
    listener.onFailure(code);
  }
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  if (byte >= 0x61 && byte <= 0x66) return byte - 0x57;
  if (byte >= 0x41 && byte <= 0x46) return byte - 0x37;
  return -1;
}
