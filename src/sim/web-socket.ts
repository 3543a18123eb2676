import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

const magic = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const largestFrame = 16 * 1024 * 1024;

/** Completes the handshake (RFC 6455 §4.2.2) and sends every data frame back as it came. */
export function echoWebSocket(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const key = request.headers['sec-websocket-key'];
  if (key === undefined || request.headers['sec-websocket-version'] !== '13') {
    socket.end(
      'HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\nConnection: close\r\n\r\n',
    );
    return;
  }
  const accept = createHash('sha1')
    .update(key + magic)
    .digest('base64');
  const protocol = request.headers['sec-websocket-protocol']?.split(',')[0]?.trim();
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${accept}\r\n${protocol ? `Sec-WebSocket-Protocol: ${protocol}\r\n` : ''}\r\n`,
  );
  let pending = head;
  socket.on('data', (part: Buffer) => {
    pending = pending.length === 0 ? part : Buffer.concat([pending, part]);
    for (;;) {
      const frame = takeFrame(pending);
      if (frame === null) return;
      if (frame === 'bad') {
        socket.destroy();
        return;
      }
      pending = pending.subarray(frame.length);
      if (frame.opcode === 8) {
        socket.end(encodeFrame(true, 8, frame.payload));
        return;
      }
      if (frame.opcode === 9) write(socket, encodeFrame(true, 10, frame.payload));
      else if (frame.opcode <= 2) write(socket, encodeFrame(frame.fin, frame.opcode, frame.payload));
    }
  });
  socket.on('end', () => socket.end());
  if (head.length > 0) socket.emit('data', Buffer.alloc(0));
}

function write(socket: Duplex, frame: Buffer): void {
  if (socket.write(frame)) return;
  socket.pause();
  socket.once('drain', () => socket.resume());
}

type Frame = Readonly<{ fin: boolean; opcode: number; payload: Buffer; length: number }>;

/** The first whole frame; null when more bytes are needed; `bad` when a client's frame is unmasked or too long. */
function takeFrame(bytes: Buffer): Frame | null | 'bad' {
  if (bytes.length < 2) return null;
  const first = bytes[0] as number;
  const second = bytes[1] as number;
  if ((second & 0x80) === 0) return 'bad';
  let size = second & 0x7f;
  let at = 2;
  if (size === 126) {
    if (bytes.length < 4) return null;
    size = bytes.readUInt16BE(2);
    at = 4;
  } else if (size === 127) {
    if (bytes.length < 10) return null;
    const wide = bytes.readBigUInt64BE(2);
    if (wide > BigInt(largestFrame)) return 'bad';
    size = Number(wide);
    at = 10;
  }
  if (bytes.length < at + 4 + size) return null;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + size));
  for (let i = 0; i < size; i++) payload[i] = (payload[i] as number) ^ (mask[i & 3] as number);
  return { fin: (first & 0x80) !== 0, opcode: first & 0x0f, payload, length: at + 4 + size };
}

function encodeFrame(fin: boolean, opcode: number, payload: Buffer): Buffer {
  const first = (fin ? 0x80 : 0) | opcode;
  const size = payload.length;
  let header: Buffer;
  if (size < 126) header = Buffer.from([first, size]);
  else if (size < 65_536) header = Buffer.from([first, 126, size >> 8, size & 0xff]);
  else {
    header = Buffer.alloc(10);
    header[0] = first;
    header[1] = 127;
    header.writeBigUInt64BE(BigInt(size), 2);
  }
  return Buffer.concat([header, payload]);
}
