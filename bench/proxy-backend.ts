import { type AddressInfo, createServer, type Socket } from 'node:net';

/**
 * Upstream for bench/proxy.ts: prints its port. It writes bytes it has ready, so that it costs as little as can be:
 * `/small` one short answer, `/stream?ms=50` an event every so many milliseconds for ever, `/idle` headers and silence.
 */
const small = Buffer.from(
  'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 120\r\nConnection: keep-alive\r\n\r\n' +
    JSON.stringify({ pad: 'x'.repeat(110) }),
);
const head = Buffer.from(
  'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n',
);
const event = `data: ${JSON.stringify({ choices: [{ delta: { content: 'token'.padEnd(60) } }] })}\n\n`;
const chunk = Buffer.from(`${event.length.toString(16)}\r\n${event}\r\n`);

/** Streams by period, so that one timer serves many. */
const streams = new Map<number, Set<Socket>>();

function stream(socket: Socket, ms: number): void {
  let set = streams.get(ms);
  if (set === undefined) {
    const all = new Set<Socket>();
    set = all;
    streams.set(ms, all);
    // Spread over the period instead of all at once.
    let at = 0;
    const slices = 10;
    setInterval(() => {
      let i = 0;
      for (const one of all) if (i++ % slices === at) one.write(chunk);
      at = (at + 1) % slices;
    }, ms / slices);
  }
  set.add(socket);
}

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => {});
  socket.on('close', () => {
    for (const set of streams.values()) set.delete(socket);
  });
  let pending = '';
  socket.on('data', (data: Buffer) => {
    pending += data.toString('latin1');
    for (let end = pending.indexOf('\r\n\r\n'); end !== -1; end = pending.indexOf('\r\n\r\n')) {
      const length = /\r\ncontent-length: *(\d+)/i.exec(pending.slice(0, end));
      const total = end + 4 + Number(length?.[1] ?? 0);
      if (pending.length < total) return;
      const target = pending.slice(0, pending.indexOf('\r\n')).split(' ')[1] ?? '/';
      pending = pending.slice(total);
      if (target.startsWith('/stream')) {
        socket.write(head);
        stream(socket, Number(/ms=(\d+)/.exec(target)?.[1] ?? 50));
      } else if (target.startsWith('/idle')) {
        socket.write(head);
        socket.write(chunk);
      } else socket.write(small);
    }
  });
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => console.log((server.address() as AddressInfo).port));
