import type { ServerResponse } from 'node:http';

/** A reader that leaves more than this waiting gets nothing further: it is dropped and comes back with Last-Event-ID. */
const maxPendingBytes = 1024 * 1024;
export const eventStreamType = 'text/event-stream; charset=utf-8';
/** A reader that takes nothing for this long is dropped. */
const stalledMs = 60_000;

/** One open text/event-stream answer. */
export interface EventStream {
  /** False when the stream is closed, also when this very call found the reader too slow and dropped it. */
  send(message: { id?: number; event?: string; data: unknown }): boolean;
  /** True while bytes wait for the reader. */
  readonly waiting: boolean;
  readonly closed: boolean;
  /** Called each time that everything written was taken. */
  onDrain(listener: () => void): void;
  onClose(listener: () => void): void;
  close(): void;
}

/** Takes over a response. Every `keepAliveMs` a comment goes out, so that nothing between here and the reader gives up. */
export function createEventStream(
  response: ServerResponse,
  headers: Readonly<Record<string, string>>,
  keepAliveMs: number,
): EventStream {
  let closed = false;
  let waitingSince: number | null = null;
  const closeListeners: (() => void)[] = [];

  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  response.setHeader('content-type', eventStreamType);
  // nginx in front would otherwise hold events back.
  response.setHeader('x-accel-buffering', 'no');
  response.writeHead(200);
  // The size of one snapshot may exceed a buffer; latency matters more than packets.
  response.socket?.setNoDelay(true);

  const write = (text: string): boolean => {
    if (closed) return false;
    if (response.writableLength > maxPendingBytes) {
      drop();
      return false;
    }
    if (!response.write(text)) waitingSince ??= performance.now();
    return true;
  };
  const keepAlive = setInterval(() => {
    if (waitingSince !== null && performance.now() - waitingSince > stalledMs) drop();
    else write(':\n\n');
  }, keepAliveMs);
  keepAlive.unref();

  response.on('drain', () => {
    waitingSince = null;
  });
  response.on('close', () => {
    end();
  });
  // A reset shows up here as well as in 'close'; unheard it would end the process.
  response.on('error', () => {});

  function end(): void {
    if (closed) return;
    closed = true;
    clearInterval(keepAlive);
    for (const listener of closeListeners) listener();
  }

  function drop(): void {
    end();
    response.destroy();
  }

  const stream: EventStream = {
    send({ id, event, data }) {
      const lines = [
        ...(id === undefined ? [] : [`id: ${id}`]),
        ...(event === undefined ? [] : [`event: ${event}`]),
        // JSON.stringify leaves no line break, so one data line is enough.
        `data: ${JSON.stringify(data)}`,
      ];
      return write(`${lines.join('\n')}\n\n`);
    },
    get waiting() {
      return waitingSince !== null;
    },
    get closed() {
      return closed;
    },
    onDrain(listener) {
      response.on('drain', listener);
    },
    onClose(listener) {
      if (closed) listener();
      else closeListeners.push(listener);
    },
    close() {
      if (closed) return;
      end();
      response.end();
    },
  };
  write('retry: 2000\n\n');
  return stream;
}
