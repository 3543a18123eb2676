import type { Socket } from 'node:net';
import type { ProxyResponse } from './proxy-response.ts';

/**
 * Writes to clients at the end of a turn of the event loop, all together. A write wakes the process that reads it if that
 * one sleeps, which costs more than the rest of it; of several in a row the first one alone does. Nothing waits longer
 * than for what else has arrived meanwhile.
 */
export class LateWrites {
  #responses: ProxyResponse[] = [];
  #bodies: string[] = [];
  #sockets: Socket[] = [];
  #armed = false;

  /** Ends an answer of which nothing was written with a body of one character a byte. */
  end(response: ProxyResponse, body: string): void {
    this.#responses.push(response);
    this.#bodies.push(body);
    this.#arm();
  }

  /** What is written to the socket from now on leaves at the end of the turn. */
  hold(socket: Socket): void {
    if (socket.writableCorked > 0) return;
    socket.cork();
    this.#sockets.push(socket);
    this.#arm();
  }

  /** Writes all that waits now. */
  readonly flush = (): void => {
    this.#armed = false;
    const responses = this.#responses;
    const bodies = this.#bodies;
    const sockets = this.#sockets;
    if (responses.length > 0) {
      this.#responses = [];
      this.#bodies = [];
      for (let i = 0; i < responses.length; i++) responses[i]!.endWith(bodies[i]!);
    }
    if (sockets.length > 0) {
      this.#sockets = [];
      for (const socket of sockets) socket.uncork();
    }
  };

  #arm(): void {
    if (this.#armed) return;
    this.#armed = true;
    setImmediate(this.flush);
  }
}
