import type { Socket } from 'node:net';
import { buildConnector, Client, type Dispatcher } from 'undici';

/** An idle connection is closed after this time, if the upstream has not told that it does so earlier. */
const maxIdleMs = 30_000;
/** So much earlier than the upstream says it will close, because a request may be on its way just then. */
const idleMarginMs = 1_000;
const maxHeadBytes = 65_536;

export type PoolSettings = Readonly<{ verifyUpstreamTls: boolean; connectTimeoutMs: number }>;

/** Plain connections read into this: what arrives is copied out before the next read. */
const readBuffer = Buffer.allocUnsafeSlow(65_536);
const onread = {
  buffer: readBuffer,
  callback(this: Socket, length: number): boolean {
    return this.push(Buffer.from(readBuffer.subarray(0, length)));
  },
};

/** A connection to an upstream: an undici client of its own, one request at a time. */
export class UpstreamConnection {
  readonly client: Client;
  /** Requests sent before the present one. */
  used = 0;
  /** The head of an answer is awaited. */
  awaiting = false;
  idle = false;
  closed = false;
  readonly #onClosed: (connection: UpstreamConnection) => void;

  constructor(origin: string, connect: buildConnector.connector, onClosed: (connection: UpstreamConnection) => void) {
    this.#onClosed = onClosed;
    this.client = new Client(origin, {
      // HTTP/1.1 only: upgrades, trailers and early hints then behave the same towards every upstream.
      allowH2: false,
      pipelining: 1,
      // Deadlines are kept by the proxy's own sweep, which is cheaper than a timer a request and exact enough.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: maxIdleMs,
      keepAliveMaxTimeout: maxIdleMs,
      keepAliveTimeoutThreshold: idleMarginMs,
      maxHeaderSize: maxHeadBytes,
      connect: (options, callback) =>
        connect(options, (...result) => {
          const [error, socket] = result;
          if (error === null) this.#opened(socket);
          callback(...result);
        }),
    });
  }

  dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    this.awaiting = true;
    this.client.dispatch(options, handler);
  }

  /** Cuts it, whatever it is doing. */
  destroy(): void {
    if (this.closed) return;
    this.closed = true;
    this.client.destroy().catch(noop);
    this.#onClosed(this);
  }

  #opened(socket: Socket): void {
    // undici takes this one code for the end of an answer without a length. A reset is never that.
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNRESET') error.code = 'RESET';
    });
    socket.on('close', () => this.destroy());
    const read = socket.read.bind(socket);
    let held: Buffer | null = null;
    socket.read = (size?: number) => {
      const chunk = read(size) as Buffer | null;
      if (!this.awaiting || chunk === null) return chunk;
      const bytes = held === null ? chunk : Buffer.concat([held, chunk]);
      const passed = withoutContinue(bytes);
      held = passed.held;
      this.awaiting = passed.awaiting;
      return passed.bytes.length === 0 ? null : passed.bytes;
    };
  }
}

const informationStart = Buffer.from('HTTP/1.1 1');
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
    if (code !== '00') kept.push(bytes.subarray(at, end + headEnd.length));
    at = end + headEnd.length;
  }
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
  take(fresh: boolean): UpstreamConnection | null {
    if (this.#destroyed) return null;
    const kept = fresh ? undefined : this.#idle.pop();
    if (kept !== undefined) {
      kept.idle = false;
      return kept;
    }
    const connection = new UpstreamConnection(this.#origin, this.#connect(), this.#onClosed);
    this.#all.add(connection);
    return connection;
  }

  /** The answer on it has ended. */
  release(connection: UpstreamConnection): void {
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

  readonly #onClosed = (connection: UpstreamConnection): void => {
    this.#all.delete(connection);
    if (!connection.idle) return;
    const at = this.#idle.lastIndexOf(connection);
    if (at !== -1) this.#idle.splice(at, 1);
  };

  #connect(): buildConnector.connector {
    const timeout = this.#settings.connectTimeoutMs + 1_000;
    const { verifyUpstreamTls } = this.#settings;
    const key = `${timeout} ${verifyUpstreamTls}`;
    if (this.#connector?.key !== key) {
      const secure = this.#origin.startsWith('https:');
      const connect = buildConnector({
        timeout,
        rejectUnauthorized: verifyUpstreamTls,
        allowH2: false,
        ...(secure ? {} : { onread }),
      });
      this.#connector = { key, connect };
    }
    return this.#connector.connect;
  }
}

function noop(): void {}
