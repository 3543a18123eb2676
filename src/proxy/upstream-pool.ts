import type { OnReadOpts, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { buildConnector, Client, type Dispatcher, errors } from 'undici';
import { monotonicMs } from '../clock.ts';
import type { AnswerHead } from './answer-head.ts';
import { maxShortBytes, readShortAnswer, requestText } from './short-exchange.ts';
import { hasEnded, TlsTransport } from './tls-transport.ts';

/** An idle connection is closed after this time, if the upstream has not told that it does so earlier. */
const maxIdleMs = 30_000;
/** So much earlier than the upstream says it will close, because a request may be on its way just then. */
const idleMarginMs = 1_000;
/** For so long at the most, with much to spare, undici does not know of a request under way. */
const untoldMs = 1_000;
/** As undici reads it. */
const keepAliveTimeout = /(?:^|,)[\t ]*timeout=(\d+)/i;
/** Longest head of an answer. */
export const maxHeadBytes = 65_536;

export type PoolSettings = Readonly<{ verifyUpstreamTls: boolean; connectTimeoutMs: number }>;

/** A plain connection, whose bytes are handed to undici without passing through a stream. */
type FedSocket = Socket & { connection: UpstreamConnection };

/** Plain connections read into this: what arrives is copied out before the next read. */
const readBuffer = Buffer.allocUnsafeSlow(65_536);
const onread = {
  buffer: readBuffer,
  callback(this: FedSocket, length: number): boolean {
    return this.connection.feed(length);
  },
};

const nothing = Buffer.alloc(0);

/** Where undici notes on a connection that it was used. Null: not known, then all requests are left to undici. */
let usedSymbol: symbol | null | undefined;

function usedSymbolOf(socket: Socket | null): symbol | null {
  if (usedSymbol === undefined && socket !== null) {
    usedSymbol = Object.getOwnPropertySymbols(socket).find((symbol) => symbol.description === 'kSocketUsed') ?? null;
  }
  return usedSymbol ?? null;
}

type Flushed = Readonly<{ flushHead: () => void }>;

/** Whom an answer is for. */
export type Taker = Dispatcher.DispatchHandler &
  Readonly<{
    /** The request was written. Called before `onRequestStart`, or in its place. */
    onSent: () => void;
    /** All of the answer, its body with one character a byte. */
    onShortAnswer: (head: AnswerHead, body: string) => void;
    onResponseError: (controller: null, error: Error) => void;
    /** Chunks of the answer can be handed over as they came, without being taken apart. */
    takesChunks: boolean;
    /** Whole chunks with their framing, one character a byte, and how many bytes of the body they hold. */
    onChunks: (text: string, bodyBytes: number) => void;
  }>;

/** Whom a connection tells about itself. */
type Owner = Readonly<{
  onFree: (connection: UpstreamConnection) => void;
  onClosed: (connection: UpstreamConnection) => void;
}>;

/** A connection to an upstream: an undici client of its own, one request at a time. */
export class UpstreamConnection {
  readonly client: Client;
  /** How long it took to connect: about a round trip, or some of them. */
  connectMs = 0;
  /** Requests sent before the present one. */
  used = 0;
  idle = false;
  closed = false;
  /** Called once after the read at hand, if there is one, when all that it brought is dealt with. */
  unflushed: Flushed | null = null;
  readonly #fed: boolean;
  readonly #owner: Owner;
  #transport: TlsTransport | null = null;
  #socket: Socket | null = null;
  #taker: Taker | null = null;
  /** undici's parser stands between two chunks of an answer. */
  #betweenChunks = false;
  /** undici is at work on what a read has brought. */
  #reading = false;
  #ended = false;
  readonly #host: string;
  /** A request that undici has not been told of; null when there is none. */
  #short: Dispatcher.DispatchOptions | null = null;
  /** That request until it is written. */
  #unsent: string | null = null;
  /** What undici writes has been written already. */
  #muted = false;
  /** undici counts from a later moment on how long the connection is idle. */
  #countedFrom = 0;
  /** … and closes it after this time, */
  #idleMs = maxIdleMs;
  /** which the upstream has told in these words. */
  #keepAlive: string | null = null;
  #error: Error | null = null;
  /** Read, and not asked for yet. */
  #pending: Buffer | null = null;
  /** Nothing more is read until that is asked for. */
  #stopped = false;
  /** A request was written, and the head of its answer is awaited. */
  #awaiting = false;
  /** What may be the beginning of a 100 Continue. */
  #held: Buffer | null = null;

  constructor(origin: string, connect: buildConnector.connector, fed: boolean, owner: Owner) {
    this.#fed = fed;
    this.#owner = owner;
    this.#host = new URL(origin).host;
    this.client = new Client(origin, {
      // HTTP/1.1 only: upgrades, trailers and early hints then behave the same towards every upstream.
      allowH2: false,
      // One at a time all the same, because the pool gives out idle connections alone; but told 1, undici waits and
      // counts twice more for every request.
      pipelining: 2,
      // Deadlines are kept by the proxy's own sweep, which is cheaper than a timer a request and exact enough.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: maxIdleMs,
      keepAliveMaxTimeout: maxIdleMs,
      keepAliveTimeoutThreshold: idleMarginMs,
      maxHeaderSize: maxHeadBytes,
      connect: (options, callback) => {
        const from = monotonicMs();
        if (options.protocol === 'https:')
          this.#transport = new TlsTransport(options.hostname, Number(options.port || 443));
        connect(
          this.#transport === null ? options : { ...options, httpSocket: this.#transport as unknown as Socket },
          (...result) => {
            const [error, socket] = result;
            this.connectMs = monotonicMs() - from;
            if (error === null) this.#opened(socket);
            else this.#transport?.destroy();
            callback(...result);
          },
        );
      },
    });
  }

  /** It was cut; that it is closed is told later in the turn. */
  get dead(): boolean {
    return this.#socket?.destroyed === true;
  }

  /** It has ended without a word of the upstream that this is the end. */
  get abrupt(): boolean {
    return this.#transport?.abrupt === true;
  }

  dispatch(options: Dispatcher.DispatchOptions, taker: Taker): void {
    this.#taker = taker;
    this.#betweenChunks = false;
    if (this.used > 0 && this.#mayBeShort()) {
      const text = requestText(options, this.#host);
      if (text !== null) {
        this.#short = options;
        this.#unsent = text;
        // One for each: what is asked for at the end of this turn is written at the end of the next one.
        setImmediate(writeShort, this);
        return;
      }
    }
    this.#tell(options, taker);
  }

  #tell(options: Dispatcher.DispatchOptions, taker: Taker): void {
    this.#countedFrom = monotonicMs();
    this.client.dispatch(options, taker);
  }

  /** undici takes the connection for idle meanwhile, and would close it. */
  #mayBeShort(): boolean {
    if (!this.#fed || usedSymbolOf(this.#socket) === null) return false;
    return monotonicMs() - this.#countedFrom < this.#idleMs - untoldMs;
  }

  /** undici writes the request now: what comes from here on may be its answer. */
  writing(): void {
    this.#awaiting = true;
  }

  /** Keep-Alive of an answer that undici has read. */
  told(keepAlive: string | string[] | undefined): void {
    const said = keepAlive === undefined ? null : String(keepAlive);
    if (said === this.#keepAlive) return;
    this.#keepAlive = said;
    const seconds = keepAliveTimeout.exec(said ?? '')?.[1];
    this.#idleMs = seconds === undefined ? maxIdleMs : Math.min(Number(seconds) * 1_000 - idleMarginMs, maxIdleMs);
  }

  /**
   * Writes the request that waits. In between was time for what is there already: bytes that nobody asked for, or the
   * news that the connection was closed.
   */
  writeShort(): void {
    const text = this.#unsent;
    const socket = this.#socket!;
    if (text === null || socket.destroyed) return; // `close` tells its taker
    this.#unsent = null;
    try {
      this.#taker!.onSent();
    } catch (error) {
      this.#broke(error as Error);
      return;
    }
    this.#awaiting = true;
    socket.write(text, 'latin1');
  }

  /** The fault is ours, and it ends this exchange alone. */
  #broke(error: Error): void {
    this.#short = null;
    this.#taker!.onResponseError(null, error);
    this.destroy();
  }

  /** Leaves the request under way to undici: what comes, or does not come for long, is more than a short answer. */
  settleIn(): void {
    const options = this.#short;
    if (options === null || this.#unsent !== null) return;
    this.#short = null;
    // It would first look whether the connection is alive, and write in the next turn.
    (this.#socket as unknown as Record<symbol, unknown>)[usedSymbol!] = false;
    this.#muted = true;
    this.#tell(options, this.#taker!);
    this.#muted = false;
  }

  /**
   * The answer on it has ended. It goes back to the pool when undici has put that answer away: a request that came
   * before would be sent behind one that may yet close the connection.
   */
  release(): void {
    if (this.#reading) this.#ended = true;
    else process.nextTick(giveBack, this.#owner, this);
  }

  /** Calls `flushHead` when all is dealt with that has arrived so far. */
  flushSoon(waiting: Flushed): void {
    if (this.#reading) this.unflushed = waiting;
    else process.nextTick(flush, waiting);
  }

  /** Cuts it, whatever it is doing. */
  destroy(): void {
    if (this.closed) return;
    this.closed = true;
    if (this.#short !== null) {
      this.#short = null;
      this.#unsent = null;
      process.nextTick(fail, this.#taker, this.#error);
    }
    // undici waits for a connection that it has asked for.
    if (this.#socket === null) this.#transport?.destroy();
    this.client.destroy().catch(noop);
    this.#owner.onClosed(this);
  }

  #opened(socket: Socket): void {
    this.#socket = socket;
    this.#transport?.carries(socket as TLSSocket);
    // undici takes this one code for the end of an answer without a length. A reset is never that.
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNRESET') error.code = 'RESET';
      this.#error = error;
    });
    socket.on('close', () => {
      // Bytes that are read later would tell undici of an end that it takes for one of an open connection.
      socket.removeAllListeners('end');
      this.destroy();
    });
    // The pool decides how long an idle connection lives; undici would tell libuv twice a request.
    Object.defineProperty(socket, 'unref', { value: undefined });
    const read = socket.read.bind(socket);
    if (this.#fed) this.#feed(socket as FedSocket, read);
    else {
      socket.read = (size?: number) => {
        const chunk = read(size) as Buffer | null;
        return this.#awaiting && chunk !== null ? this.#withoutContinue(chunk) : chunk;
      };
    }
  }

  /**
   * undici asks for bytes when it is told that there are some. A stream between it and the connection would only cost
   * time; its end still comes the usual way.
   */
  #feed(socket: FedSocket, read: (size?: number) => unknown): void {
    socket.connection = this;
    const { write } = socket;
    socket.write = (...args: unknown[]) => (this.#muted ? true : write.apply(socket, args as Parameters<typeof write>));
    socket.unshift = (bytes: Buffer) => {
      if (bytes.length > 0) this.#put(bytes, true);
    };
    socket.read = (size?: number) => {
      if (this.#pending === null || size === 0) {
        return size === 0 || socket.closed || hasEnded(socket) ? read(size) : null;
      }
      const bytes = this.#pending;
      this.#pending = null;
      if (this.#stopped) {
        this.#stopped = false;
        socket._read(0);
      }
      return this.#awaiting ? this.#withoutContinue(bytes) : bytes;
    };
  }

  #put(bytes: Buffer, first: boolean): void {
    const pending = this.#pending;
    if (pending === null) this.#pending = bytes;
    else this.#pending = Buffer.concat(first ? [bytes, pending] : [pending, bytes]);
  }

  /** So many bytes are in `readBuffer`. False: no more for now. */
  feed(length: number): boolean {
    if (this.#betweenChunks) {
      // The commonest read of a stream: nothing that undici's parser would have to remember.
      const bodyBytes = length <= maxPassedBytes ? wholeChunks(readBuffer, 0, length) : -1;
      if (bodyBytes !== -1 && this.#taker?.takesChunks === true) {
        this.#taker.onChunks(readBuffer.toString('latin1', 0, length), bodyBytes);
        return true;
      }
      this.#betweenChunks = false;
    }
    this.#reading = true;
    let first = false;
    let bytes = nothing;
    if (!this.#tookShort(length)) {
      this.settleIn();
      first = this.#awaiting && this.#held === null;
      bytes = Buffer.allocUnsafe(length);
      readBuffer.copy(bytes, 0, 0, length);
      this.#put(bytes, false);
      this.#socket?.emit('readable');
    }
    this.#reading = false;
    this.#stopped = this.#pending !== null;
    if (this.unflushed !== null) {
      const waiting = this.unflushed;
      this.unflushed = null;
      waiting.flushHead();
    }
    if (this.#ended) {
      this.#ended = false;
      this.#owner.onFree(this);
    } else if (first && !this.#stopped && this.#taker?.takesChunks === true) {
      this.#betweenChunks = endsBetweenChunks(bytes);
    }
    return !this.#stopped;
  }

  #tookShort(length: number): boolean {
    if (this.#short === null || this.#unsent !== null || this.#held !== null || length > maxShortBytes) return false;
    const answer = readShortAnswer(readBuffer.toString('latin1', 0, length), this.#keepAlive);
    if (answer === null) return false;
    this.#short = null;
    this.#awaiting = false;
    try {
      this.#taker!.onShortAnswer(answer.head, answer.body);
    } catch (error) {
      this.#broke(error as Error);
    }
    return true;
  }

  #withoutContinue(chunk: Buffer): Buffer | null {
    if (this.#held === null && chunk.length > informationDigit && chunk[informationDigit] !== 0x31) {
      this.#awaiting = false;
      return chunk;
    }
    const passed = withoutContinue(this.#held === null ? chunk : Buffer.concat([this.#held, chunk]));
    this.#held = passed.held;
    this.#awaiting = passed.awaiting;
    return passed.bytes.length === 0 ? null : passed.bytes;
  }
}

const informationStart = Buffer.from('HTTP/1.1 1');
const informationDigit = informationStart.length - 1;
const continuePattern =
  /^HTTP\/1\.1 100(?: [\t\x20-\x7e\x80-\xff]*)?\r\n(?:[!#$%&'*+\-.^_`|~\w]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n$/;
const headEnd = Buffer.from('\r\n\r\n');

/**
 * Takes 100 Continue from what comes before an answer: the client was told by us, and undici takes one that it has not
 * asked for, as it never does, for a breach of the protocol. `held` needs more bytes to be told apart; `awaiting`: the
 * answer itself has not begun.
 */
function withoutContinue(bytes: Buffer): { bytes: Buffer; held: Buffer | null; awaiting: boolean } {
  const kept: Buffer[] = [];
  let at = 0;
  for (;;) {
    const compared = Math.min(bytes.length - at, informationStart.length);
    const other = bytes.compare(informationStart, 0, compared, at, at + compared) !== 0;
    const end = other ? -1 : bytes.indexOf(headEnd, at);
    const partial = !other && end === -1 && bytes.length - at <= maxHeadBytes;
    if (partial)
      return { bytes: Buffer.concat(kept), held: at < bytes.length ? bytes.subarray(at) : null, awaiting: true };
    const code =
      other || end === -1
        ? ''
        : bytes.toString('latin1', at + informationStart.length, at + informationStart.length + 2);
    // 101 is an answer.
    if (code === '' || code === '01') {
      const rest = at === 0 ? bytes : Buffer.concat([...kept, bytes.subarray(at)]);
      return { bytes: rest, held: null, awaiting: false };
    }
    const whole = bytes.subarray(at, end + headEnd.length);
    // One with faults is left to undici to refuse.
    if (code !== '00' || !continuePattern.test(whole.toString('latin1'))) kept.push(whole);
    at = end + headEnd.length;
  }
}

/** Reads up to this size are passed on as text. */
const maxPassedBytes = 8_192;
const lineFeed = 0x0a;
const carriageReturn = 0x0d;

/** Does an answer, of which this is the beginning, have its whole head here and then nothing but whole chunks? */
function endsBetweenChunks(bytes: Buffer): boolean {
  const end = bytes.indexOf(headEnd);
  if (end === -1) return false;
  // A parser that takes a lone line feed for the end of a line may see the end of the head elsewhere.
  for (let at = bytes.indexOf(lineFeed); at !== -1 && at < end; at = bytes.indexOf(lineFeed, at + 1)) {
    if (bytes[at - 1] !== carriageReturn) return false;
  }
  const body = end + headEnd.length;
  return body === bytes.length || wholeChunks(bytes, body, bytes.length) !== -1;
}

/** What a byte is worth as a digit to the base of 16; -1: it is none. */
const digitValues = new Int8Array(256).fill(-1);
for (const [value, digit] of [...'0123456789abcdef'].entries()) {
  digitValues[digit.charCodeAt(0)] = value;
  digitValues[digit.toUpperCase().charCodeAt(0)] = value;
}
/** Of the size of a chunk that is passed on as it came. */
const maxDigits = 4;

/**
 * Bytes of the body in `bytes` from `start` to `end`, if that is one or more whole chunks with something in them and nothing
 * else; -1 otherwise, also where a chunk has an extension or is the last one. A parser that stands before such chunks
 * is in the same state behind them.
 */
export function wholeChunks(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  let total = 0;
  while (at < end) {
    let size = 0;
    let digits = 0;
    for (let value = digitValues[bytes[at]!]!; value !== -1; value = digitValues[bytes[at]!]!) {
      size = size * 16 + value;
      at++;
      if (++digits > maxDigits || at >= end) return -1;
    }
    const next = at + size + 4;
    if (size === 0 || next > end || bytes[at] !== carriageReturn || bytes[at + 1] !== lineFeed) return -1;
    if (bytes[next - 2] !== carriageReturn || bytes[next - 1] !== lineFeed) return -1;
    total += size;
    at = next;
  }
  return total > 0 ? total : -1;
}

/** The connections to one upstream. The one used last is used next, so that the others can grow old and go. */
export class UpstreamPool {
  readonly #origin: string;
  readonly #settings: PoolSettings;
  readonly #all = new Set<UpstreamConnection>();
  readonly #idle: UpstreamConnection[] = [];
  #connector: { key: string; connect: buildConnector.connector } | null = null;
  #destroyed = false;
  #retired = false;

  /** The settings are looked up for every connection: they can change. */
  constructor(origin: URL, settings: PoolSettings) {
    this.#origin = origin.origin;
    this.#settings = settings;
  }

  /** An idle connection, or a new one. Null when the pool is closed. */
  take(fresh: boolean, upgrade: boolean): UpstreamConnection | null {
    if (this.#destroyed) return null;
    while (!fresh && !upgrade) {
      const kept = this.#idle.pop();
      if (kept === undefined) break;
      kept.idle = false;
      if (!kept.dead) return kept;
    }
    // A connection that changes its protocol is handed over as a stream.
    const fed = !upgrade && !this.#origin.startsWith('https:');
    const connection = new UpstreamConnection(this.#origin, this.#connect(fed), fed, this.#owner);
    this.#all.add(connection);
    return connection;
  }

  #free(connection: UpstreamConnection): void {
    if (connection.closed) return;
    if (this.#destroyed || this.#retired) {
      connection.destroy();
      return;
    }
    connection.used++;
    connection.idle = true;
    this.#idle.push(connection);
  }

  /** Finishes what is under way and keeps nothing for later. */
  retire(): void {
    this.#retired = true;
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }

  destroy(): void {
    this.#destroyed = true;
    for (const connection of [...this.#all]) connection.destroy();
  }

  readonly #owner: Owner = {
    onFree: (connection) => this.#free(connection),
    onClosed: (connection) => {
      this.#all.delete(connection);
      if (!connection.idle) return;
      const at = this.#idle.lastIndexOf(connection);
      if (at !== -1) this.#idle.splice(at, 1);
    },
  };

  #connect(fed: boolean): buildConnector.connector {
    const timeout = this.#settings.connectTimeoutMs + 1_000;
    const { verifyUpstreamTls } = this.#settings;
    const key = `${timeout} ${verifyUpstreamTls} ${fed}`;
    if (this.#connector?.key !== key) {
      const connect = buildConnector({
        timeout,
        rejectUnauthorized: verifyUpstreamTls,
        allowH2: false,
        ...(fed ? { onread: onread as OnReadOpts } : {}),
      });
      this.#connector = { key, connect };
    }
    return this.#connector.connect;
  }
}

function giveBack(owner: Owner, connection: UpstreamConnection): void {
  owner.onFree(connection);
}

function writeShort(connection: UpstreamConnection): void {
  connection.writeShort();
}

function fail(taker: Taker, error: Error | null): void {
  taker.onResponseError(null, error ?? new errors.SocketError('closed'));
}

function flush(waiting: Flushed): void {
  waiting.flushHead();
}

function noop(): void {}
