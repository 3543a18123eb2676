import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { Rig, sleep, until } from './rig.ts';

/** Small seeded generator (mulberry32), so that a failing run can be run again. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

type Asked = Readonly<{ id: string; method: string; size: number; oldHttp: boolean; last: boolean }>;
type Outcome = 'whole' | 'refused' | 'broken';

/** The answer to `id` is made of its name, so that every piece of it tells whose it is. */
function bodyOf(id: string, size: number): string {
  return `<${id}>`.repeat(Math.ceil(size / (id.length + 2))).slice(0, size);
}

/** Reads the answers to `asked` from the bytes of one connection; throws when one is not that of its request. */
class AnswerReader {
  readonly outcomes: Outcome[] = [];
  readonly #asked: readonly Asked[];
  #bytes = '';

  constructor(asked: readonly Asked[]) {
    this.#asked = asked;
  }

  get done(): boolean {
    return this.outcomes.length === this.#asked.length;
  }

  push(bytes: Buffer): void {
    this.#bytes += bytes.toString('latin1');
    while (this.#one(false));
  }

  /** `clean`: it was closed and not reset. */
  close(clean: boolean): void {
    while (this.#one(clean));
    while (!this.done) this.outcomes.push('broken');
  }

  #one(ended: boolean): boolean {
    const asked = this.#asked[this.outcomes.length];
    if (asked === undefined) {
      if (this.#bytes !== '')
        throw new Error(`bytes beyond the last answer: ${JSON.stringify(this.#bytes.slice(0, 200))}`);
      return false;
    }
    const headEnd = this.#bytes.indexOf('\r\n\r\n');
    if (headEnd === -1) return false;
    const head = this.#bytes.slice(0, headEnd);
    const status = /^HTTP\/1\.1 (\d{3}) [^\r\n]*(?:\r\n|$)/.exec(head)?.[1];
    if (status === undefined)
      throw new Error(`no status line where ${asked.id} is answered: ${JSON.stringify(head.slice(0, 200))}`);
    const rest = this.#bytes.slice(headEnd + 4);
    if (status.startsWith('1')) {
      this.#bytes = rest;
      return true;
    }
    const field = (name: string) => new RegExp(`\\r\\n${name}: ([^\\r\\n]*)`, 'i').exec(head)?.[1];
    const own = field('x-gpuproxy-instance') === undefined;
    const named = own ? field('x-request-id') : field('x-answer-to');
    if (named !== asked.id) throw new Error(`${asked.id} got the answer to ${named}: ${JSON.stringify(head)}`);
    const none = asked.method === 'HEAD' || status === '204' || status === '304';
    const length = field('content-length');
    let body: string | null = '';
    let used = 0;
    if (none) body = '';
    else if (/chunked/i.test(field('transfer-encoding') ?? '')) [body, used] = dechunked(rest);
    else if (length !== undefined) {
      body = rest.length >= Number(length) ? rest.slice(0, Number(length)) : null;
      used = Number(length);
    } else {
      body = ended ? rest : null;
      used = rest.length;
    }
    const wanted = own || none ? null : bodyOf(asked.id, status === '503' ? 20 : asked.size);
    if (body === null) {
      if (wanted !== null && length !== undefined && !wanted.startsWith(rest)) {
        throw new Error(`${asked.id} got bytes of another one: ${JSON.stringify(rest.slice(0, 200))}`);
      }
      return false;
    }
    if (wanted !== null && body !== wanted) {
      throw new Error(
        `${asked.id} got ${body.length} bytes of ${wanted.length} that are not its own: ${JSON.stringify(head)} ${JSON.stringify(body.slice(0, 200))}`,
      );
    }
    this.outcomes.push(own ? 'refused' : 'whole');
    this.#bytes = rest.slice(used);
    return true;
  }
}

/** The body of a chunked message and how many bytes it took; null when it is not all there. */
function dechunked(text: string): [string | null, number] {
  let at = 0;
  let body = '';
  for (;;) {
    const lineEnd = text.indexOf('\r\n', at);
    if (lineEnd === -1) return [null, 0];
    const line = text.slice(at, lineEnd);
    if (!/^[0-9a-f]+$/i.test(line)) throw new Error(`no size of a chunk: ${JSON.stringify(line.slice(0, 100))}`);
    const size = Number.parseInt(line, 16);
    const end = lineEnd + 2 + size;
    if (text.length < end + 2) return [null, 0];
    if (size === 0) return [body, end + 2];
    body += text.slice(lineEnd + 2, end);
    if (text.slice(end, end + 2) !== '\r\n') throw new Error('a chunk that does not end where it said');
    at = end + 2;
  }
}

const decoy =
  'HTTP/1.1 200 OK\r\nX-Answer-To: nobody\r\nContent-Length: 8\r\n\r\n<nobody>HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';

/** An upstream that answers in every way there is, mostly right. */
function upstream(chance: () => number) {
  return (req: IncomingMessage, res: ServerResponse): void => {
    const socket = req.socket as Socket;
    req.on('error', () => {});
    req.resume();
    const [, id = '', size = '0'] = (req.url ?? '').split('/');
    const none = req.method === 'HEAD';
    const write = (text: string) => {
      if (!socket.destroyed) socket.write(text, 'latin1');
    };
    /** In one piece, or in several, so that reads cut it anywhere. */
    const send = (text: string, then?: () => void) => {
      const pieces = chance() < 0.6 ? 1 : 1 + Math.floor(chance() * 4);
      let sent = 0;
      const next = (left: number) => {
        const take = left === 1 ? text.length - sent : Math.floor(chance() * (text.length - sent));
        write(text.slice(sent, sent + take));
        sent += take;
        if (left > 1) setTimeout(next, chance() < 0.5 ? 0 : 3, left - 1);
        else then?.();
      };
      next(pieces);
    };
    const answer = () => {
      const fate = chance();
      const named = `X-Answer-To: ${id}\r\n`;
      if (fate < 0.02) socket.resetAndDestroy();
      else if (fate < 0.03) socket.destroy();
      else if (fate < 0.06)
        send(`HTTP/1.1 503 Busy\r\n${named}Content-Length: 20\r\n\r\n${none ? '' : bodyOf(id, 20)}`);
      else if (fate < 0.08) send(`HTTP/1.1 204 No Content\r\n${named}\r\n`);
      else {
        const body = none ? '' : bodyOf(id, Number(size));
        const hints = chance() < 0.1 ? 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n' : '';
        const style = chance();
        const cutAt = chance() < 0.04 ? Math.floor(chance() * body.length) : -1;
        const die = () => (chance() < 0.5 ? socket.resetAndDestroy() : socket.destroy());
        if (style < 0.5) {
          const closes = chance() < 0.1;
          const text = `${hints}HTTP/1.1 200 OK\r\n${named}Content-Length: ${Number(size)}\r\n${closes ? 'Connection: close\r\n' : ''}\r\n`;
          if (cutAt !== -1) send(text + body.slice(0, cutAt), die);
          else if (chance() < 0.05 && !none) write(text + body + decoy);
          // Promises to keep the connection, and does not.
          else if (chance() < 0.1) send(text + body, () => socket.end());
          else send(text + body);
        } else if (style < 0.85) {
          let text = `${hints}HTTP/1.1 200 OK\r\n${named}Transfer-Encoding: chunked\r\n\r\n`;
          for (let at = 0; at < body.length; ) {
            const piece = body.slice(at, at + 1 + Math.floor(chance() * 9_000));
            text += `${piece.length.toString(16)}\r\n${piece}\r\n`;
            at += piece.length;
          }
          if (cutAt !== -1) send(text, die);
          else send(none ? text : `${text}0\r\n\r\n`);
        } else send(`HTTP/1.1 200 OK\r\n${named}Connection: close\r\n\r\n${body}`, () => socket.end());
      }
    };
    const early = chance() < 0.05;
    const later = () => (chance() < 0.4 ? answer() : setTimeout(answer, Math.floor(chance() * 8)));
    if (early) later();
    else req.on('end', later);
    res.on('error', () => {});
  };
}

const methods = ['GET', 'GET', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE'];

async function traffic(seed: number): Promise<Record<Outcome | 'left', number>> {
  const chance = random(seed);
  const seen = { whole: 0, refused: 0, broken: 0, left: 0 };
  await using rig = await Rig.start({
    strategy: 'least_connections',
    balancer: { ejectAfterFailures: 1_000 },
    settings: { retryBodyBytes: 4_096, queueLimit: 40 },
  });
  const backends = [];
  for (const name of ['a', 'b', 'c']) backends.push(await rig.backend(name, upstream(chance), { ceiling: 6 }));
  let made = 0;
  const connection = async (): Promise<void> => {
    const asked: Asked[] = [];
    const oldHttp = chance() < 0.08;
    const count = oldHttp ? 1 : 1 + Math.floor(chance() * 6);
    for (let i = 0; i < count; i++) {
      const spread = chance();
      const size = Math.floor(chance() * (spread < 0.5 ? 300 : spread < 0.9 ? 12_000 : 150_000));
      const method = methods[Math.floor(chance() * methods.length)]!;
      asked.push({ id: `${seed}.${++made}`, method, size, oldHttp, last: i === count - 1 });
    }
    const reader = new AnswerReader(asked);
    const socket = connect(rig.proxy.port, '127.0.0.1');
    let failure: Error | null = null;
    let left = false;
    let reset = false;
    /** How many requests are on their way at once; 1: each waits for the answer to the one before. */
    const depth = chance() < 0.5 ? 1 : 1 + Math.floor(chance() * 4);
    let sent = 0;
    const sendMore = () => {
      while (sent < asked.length && sent - reader.outcomes.length < depth && !socket.destroyed) {
        socket.write(requestText(asked[sent++]!, chance), 'latin1');
      }
    };
    const leaveAfter = chance() < 0.2 ? Math.floor(chance() * 20_000) : Number.POSITIVE_INFINITY;
    let received = 0;
    const leave = () => {
      left = true;
      if (chance() < 0.5) socket.resetAndDestroy();
      else socket.destroy();
    };
    socket.on('data', (bytes: Buffer) => {
      received += bytes.length;
      try {
        reader.push(bytes);
      } catch (error) {
        failure = error as Error;
        socket.destroy();
        return;
      }
      if (received > leaveAfter) leave();
      else if (reader.done) setTimeout(() => socket.destroy(), chance() * 5);
      else sendMore();
    });
    socket.on('error', () => {
      reset = true;
    });
    if (chance() < 0.1) setTimeout(leave, chance() * 15);
    if (chance() < 0.1) {
      socket.pause();
      setTimeout(() => socket.resume(), chance() * 30);
    }
    sendMore();
    await new Promise<void>((resolve) => socket.on('close', () => resolve()));
    if (failure === null) {
      try {
        reader.close(!reset && !left);
      } catch (error) {
        failure = error as Error;
      }
    }
    if (failure !== null) throw new Error(`seed ${seed}: ${failure.message}`);
    for (const outcome of reader.outcomes) seen[outcome === 'broken' && left ? 'left' : outcome]++;
  };
  const client = async () => {
    for (let i = 0; i < 25; i++) await connection();
  };
  await Promise.all(Array.from({ length: 16 }, client));
  await until(() => rig.proxy.active === 0);
  for (const id of rig.refs.keys()) expect([seed, id, rig.active(id)]).toEqual([seed, id, 0]);
  const totals = rig.table.totals();
  expect(Object.values(totals.endings).reduce((sum, one) => sum + one, 0)).toBe(totals.total);
  await rig.proxy.close();
  for (const backend of backends) await until(() => backend.sockets.size === 0);
  await sleep(0);
  return seen;
}

function requestText({ id, method, size, oldHttp, last }: Asked, chance: () => number): string {
  let text = `${method} /${id}/${size} HTTP/1.${oldHttp ? 0 : 1}\r\nHost: x\r\nX-Request-Id: ${id}\r\n`;
  if (last && chance() < 0.3) text += 'Connection: close\r\n';
  if (method !== 'POST' && method !== 'PUT') return `${text}\r\n`;
  const upload = 'u'.repeat(Math.floor(chance() * (chance() < 0.8 ? 2_000 : 60_000)));
  if (!oldHttp && chance() < 0.15) text += 'Expect: 100-continue\r\n';
  if (!oldHttp && chance() < 0.3) {
    const chunk = upload === '' ? '' : `${upload.length.toString(16)}\r\n${upload}\r\n`;
    return `${text}Transfer-Encoding: chunked\r\n\r\n${chunk}0\r\n\r\n`;
  }
  return `${text}Content-Length: ${upload.length}\r\n\r\n${upload}`;
}

test.each([1, 2, 3, 4])(
  'no answer reaches another client than its own, none is cut and looks whole (seed %i)',
  {
    timeout: 120_000,
  },
  async (seed) => {
    const seen = await traffic(seed);
    // All of it happens, and most of it goes well.
    expect(seen.whole).toBeGreaterThan(500);
    expect(seen.broken + seen.refused).toBeGreaterThan(0);
    expect(seen.left).toBeGreaterThan(0);
  },
);
