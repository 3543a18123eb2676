import type { Socket } from 'node:net';

/** Once one side has said its last word the other one has so long to do the same. */
const farewellMs = 5_000;

/**
 * Watches two connections that were joined. Silence is no fault, but a side that does not take what the other sends, or
 * that stays when the other has gone, would hold both for ever.
 */
export class Tunnel {
  readonly #sides: readonly [Socket, Socket];
  readonly #stallMs: number;
  #endedAt: number | null = null;
  #unsent = 0;
  #movedAt: number;

  constructor(client: Socket, upstream: Socket, stallMs: number, now: number) {
    this.#sides = [client, upstream];
    this.#stallMs = stallMs;
    this.#movedAt = now;
  }

  /** Called a few times a second: cuts both when one is gone for too long, or takes nothing. */
  sweep(now: number): void {
    const [client, upstream] = this.#sides;
    const ended = client.readableEnded || upstream.readableEnded || client.destroyed || upstream.destroyed;
    if (ended) this.#endedAt ??= now;
    // A number that stands still while bytes wait: nobody takes them.
    const unsent = client.writableLength + upstream.writableLength;
    const moved = unsent === 0 || unsent !== this.#unsent;
    this.#unsent = unsent;
    if (moved) this.#movedAt = now;
    const isOver = this.#endedAt !== null && now - this.#endedAt > farewellMs && unsent === 0;
    if (isOver || now - this.#movedAt > this.#stallMs) for (const side of this.#sides) side.destroy();
  }
}
