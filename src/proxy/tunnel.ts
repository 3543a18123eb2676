import type { Socket } from 'node:net';

/** Once one side has said its last word the other one may be silent for so long. */
const farewellMs = 5_000;

/**
 * Watches two connections that were joined. Silence is no fault, but a side that does not take what the other sends, or
 * that stays silent when the other has said its last word, would hold both for ever.
 */
export class Tunnel {
  readonly #sides: readonly [Side, Side];
  readonly #stallMs: number;
  #quietSince: number;
  #read = -1;

  constructor(client: Socket, upstream: Socket, stallMs: number, now: number) {
    this.#sides = [
      { socket: client, unsent: 0, movedAt: now },
      { socket: upstream, unsent: 0, movedAt: now },
    ];
    this.#stallMs = stallMs;
    this.#quietSince = now;
  }

  /** Called a few times a second: cuts both when one is gone and the other is silent, or takes nothing. */
  sweep(now: number): void {
    let ended = false;
    let unsent = 0;
    let read = 0;
    let stalled = false;
    for (const side of this.#sides) {
      const { socket } = side;
      ended ||= socket.readableEnded || socket.destroyed;
      read += socket.bytesRead;
      unsent += socket.writableLength;
      // A number that stands still while bytes wait: nobody takes them.
      if (socket.writableLength === 0 || socket.writableLength !== side.unsent) side.movedAt = now;
      side.unsent = socket.writableLength;
      stalled ||= now - side.movedAt > this.#stallMs;
    }
    if (!ended || unsent > 0 || read !== this.#read) this.#quietSince = now;
    this.#read = read;
    if (stalled || now - this.#quietSince > farewellMs) for (const { socket } of this.#sides) socket.destroy();
  }
}

type Side = { readonly socket: Socket; unsent: number; movedAt: number };
