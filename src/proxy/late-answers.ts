import type { ProxyResponse } from './proxy-response.ts';

/**
 * Short answers leave at the end of a turn of the event loop, all together. A write wakes the process that reads it if that
 * one sleeps, which costs more than the rest of it; of several in a row the first one alone does. Nothing waits longer
 * than for what else has arrived meanwhile.
 */
export class LateAnswers {
  #responses: ProxyResponse[] = [];
  #bodies: string[] = [];
  #armed = false;

  /** Ends an answer of which nothing was written with a body of one character a byte. */
  end(response: ProxyResponse, body: string): void {
    this.#responses.push(response);
    this.#bodies.push(body);
    if (this.#armed) return;
    this.#armed = true;
    setImmediate(this.flush);
  }

  /** Writes all that waits now. */
  readonly flush = (): void => {
    this.#armed = false;
    const responses = this.#responses;
    const bodies = this.#bodies;
    this.#responses = [];
    this.#bodies = [];
    for (let i = 0; i < responses.length; i++) responses[i]!.endWith(bodies[i]!);
  };
}
