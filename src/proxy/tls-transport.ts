import { connect, type Socket, type TcpNetConnectOpts } from 'node:net';
import { Duplex, type Readable } from 'node:stream';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';

/** All transports read into this: what arrives is copied out before the next read. */
const readBuffer = Buffer.allocUnsafeSlow(65_536);

/**
 * The TCP connection below a TLS connection to an upstream. Node tells the same of a TLS connection whether its peer said
 * that it has sent all (close_notify) or the connection below it just ended, which anybody on the way can bring about
 * (RFC 8446, section 6.1). Standing between the two, this tells one from the other.
 */
export class TlsTransport extends Duplex {
  /** The connection has ended, and not by the word of the peer: what came last may not be all. */
  abrupt = false;
  readonly #socket: Socket;
  #secured: TLSSocket | null = null;

  constructor(host: string, port: number) {
    super({ decodeStrings: true });
    const socket = connect({
      host,
      port,
      noDelay: true,
      // It closes when TLS does, which may have bytes to read long after the last has come.
      allowHalfOpen: true,
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
      // Node's own way takes 64 kB for each read, however little it brings: half of what a short answer costs.
      onread: {
        buffer: readBuffer,
        callback: (length) => this.push(Buffer.from(readBuffer.subarray(0, length))),
      },
    } as TcpNetConnectOpts);
    this.#socket = socket;
    socket.on('end', () => this.push(null));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => {
      if (!hasEnded(this)) this.destroy();
    });
    // Before TLS hears of the end, but after it has got every byte before it.
    this.on('end', () => {
      this.abrupt = this.#secured === null || !hasEnded(this.#secured);
    });
  }

  /** Speaks TLS over it. */
  secure(options: ConnectionOptions): TLSSocket {
    const secured = connectTls({ ...options, socket: this });
    this.carries(secured);
    return secured;
  }

  /** `secured` speaks TLS over it and takes it along when it closes. */
  carries(secured: TLSSocket): void {
    this.#secured = secured;
    secured.on('close', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(bytes, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }
}

/** No more bytes will come: those that were not asked for yet are here already. */
export function hasEnded(stream: Readable): boolean {
  return (stream as unknown as { _readableState: { ended: boolean } })._readableState.ended;
}
