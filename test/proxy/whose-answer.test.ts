import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { Rig, sleep, until } from './rig.ts';

/**
 * Every request has a number, and every answer tells of which request it is, in its head and in its body. Upstreams
 * answer in every way, break off at any moment, send two answers where one was asked for, and a body to HEAD. Whatever a client takes for a whole
 * answer must be that to its own request. ANSWERS_SECONDS (8) for longer runs.
 */
const runMs = Number(process.env.ANSWERS_SECONDS ?? 8) * 1_000;

const chance = () => Math.random();
const pick = <T>(all: readonly T[]): T => all[Math.floor(chance() * all.length)]!;

/** Says for which request it is, at its beginning and at its end. */
const bodyOf = (id: string, length: number) => `<${id}>${'.'.repeat(length)}</${id}>`;

/** The answer to `id` in pieces, and whether the connection has to end for it to end. */
function answerTo(id: string): { pieces: string[]; ends: boolean } {
  const body = bodyOf(id, pick([0, 0, 0, 10, 500, 9_000, 60_000]));
  const status = pick(['200 OK', '200 OK', '200 OK', '404 Not Found', '503 Busy', '205 Reset']);
  const head = `HTTP/1.1 ${status}\r\nX-Id: ${id}\r\n${pick(['', '', 'Keep-Alive: timeout=5\r\n', 'Keep-Alive: timeout=3\r\n'])}`;
  const form = chance();
  let text = `${head}Content-Length: ${body.length}\r\n\r\n${body}`;
  let ends = false;
  if (form < 0.15)
    text = `${head}Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
  else if (form < 0.2) {
    text = `${head}X-Open: yes\r\n\r\n${body}`;
    ends = true;
  } else if (form < 0.25) text = `HTTP/1.1 204 No Content\r\nX-Id: ${id}\r\n\r\n`;
  else if (form < 0.28) {
    // It thinks that there was one more request. What comes later than the answer could be that to the next one.
    return { pieces: [`${text}HTTP/1.1 200 OK\r\nX-Id: 0\r\nContent-Length: 0\r\n\r\n`], ends };
  }
  if (chance() < 0.1) text = `HTTP/1.1 ${pick(['100 Continue', '103 Early Hints'])}\r\n\r\n${text}`;
  const cut = Math.floor(chance() * text.length);
  return { pieces: chance() < 0.3 ? [text.slice(0, cut), text.slice(cut)] : [text], ends };
}

async function startUpstream() {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    const end = () => (chance() < 0.5 ? socket.end() : socket.resetAndDestroy());
    let got = '';
    socket.on('data', async (chunk) => {
      got += chunk.toString('latin1');
      const id = /^\w+ \/(\d+) /.exec(got)?.[1];
      const headEnd = got.indexOf('\r\n\r\n');
      const length = Number(/content-length: (\d+)/.exec(got)?.[1] ?? 0);
      if (id === undefined || headEnd === -1 || got.length < headEnd + 4 + length) return;
      got = '';
      if (chance() < 0.1) await sleep(chance() * 300);
      const { pieces, ends } = answerTo(id);
      const stops = chance() < 0.03 ? Math.floor(chance() * pieces.length) : -1;
      for (const [i, piece] of pieces.entries()) {
        if (i === stops) {
          end();
          return;
        }
        socket.write(piece, 'latin1');
        if (i + 1 < pieces.length) await sleep(chance() * 4);
      }
      if (ends) socket.end();
      else if (chance() < 0.05) end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    sockets,
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** `open`: its body ended where the upstream's connection did, which may be too early for all that anybody can know. */
type Answer = Readonly<{ status: number; id: string | null; body: string; end: number; open: boolean }>;

/** The first whole answer in `text` after `at`; null: it is not all there. */
function nextAnswer(text: string, at: number, hasBody: boolean, ended: boolean): Answer | null {
  const headEnd = text.indexOf('\r\n\r\n', at);
  if (headEnd === -1) return null;
  const head = text.slice(at, headEnd + 2);
  const status = Number(head.slice(9, 12));
  const from = headEnd + 4;
  if (status < 200) return nextAnswer(text, from, hasBody, ended);
  const id = /\r\nx-id: (\d+)\r\n/i.exec(head)?.[1] ?? null;
  const open = /\r\nx-open:/i.test(head);
  const length = /\r\ncontent-length: (\d+)\r\n/i.exec(head)?.[1];
  if (!hasBody || status === 204) return { status, id, body: '', end: from, open };
  if (length !== undefined) {
    const end = from + Number(length);
    return text.length < end ? null : { status, id, body: text.slice(from, end), end, open };
  }
  if (/\r\ntransfer-encoding: chunked\r\n/i.test(head)) {
    let body = '';
    for (let next = from; ; ) {
      const line = text.indexOf('\r\n', next);
      const size = Number.parseInt(text.slice(next, line), 16);
      if (line === -1 || text.length < line + 4 + size) return null;
      body += text.slice(line + 2, line + 2 + size);
      next = line + 4 + size;
      if (size === 0) return { status, id, body, end: next, open };
    }
  }
  return ended ? { status, id, body: text.slice(from), end: text.length, open } : null;
}

test('a whole answer is that to the request that was asked, whatever upstreams do', {
  timeout: runMs + 30_000,
}, async () => {
  const upstreams = await Promise.all([1, 2, 3].map(startUpstream));
  const rig = await Rig.start({ settings: { firstByteTimeoutMs: 1_000, idleTimeoutMs: 1_000, retryBudgetMin: 50 } });
  const join = (i: number) => rig.join(`u${i}`, upstreams[i]!.origin, { ceiling: i === 0 ? 4 : 0 });
  for (const i of upstreams.keys()) join(i);
  const end = Date.now() + runMs;
  const seen = { whole: 0, broken: 0, left: 0 };
  let requests = 0;

  /** One connection, with some requests one after the other, some of them several at once. */
  const client = async (): Promise<void> => {
    const socket = connect(rig.proxy.port, '127.0.0.1');
    let got = '';
    let ended: 'no' | 'end' | 'reset' = 'no';
    socket.on('data', (chunk) => (got += chunk.toString('latin1')));
    socket.on('error', () => (ended = 'reset'));
    socket.on('close', () => (ended = ended === 'no' ? 'end' : ended));
    const over = () => ended !== 'no';
    for (let round = 0; round < 10 && !over(); round++) {
      got = '';
      const method = pick(['GET', 'GET', 'POST', 'POST', 'HEAD']);
      const ids = Array.from({ length: method !== 'HEAD' && chance() < 0.3 ? 3 : 1 }, () => String(++requests));
      for (const id of ids) {
        const framed = method === 'POST' ? `Content-Length: ${id.length}\r\n\r\n${id}` : '\r\n';
        socket.write(`${method} /${id} HTTP/1.1\r\nHost: x\r\n${framed}`);
      }
      if (chance() < 0.05) {
        await sleep(chance() * 20);
        seen.left++;
        break;
      }
      let at = 0;
      for (const id of ids) {
        let answer: Answer | null = null;
        await until(() => {
          answer = nextAnswer(got, at, method !== 'HEAD', ended === 'end');
          return answer !== null || over();
        });
        answer ??= nextAnswer(got, at, method !== 'HEAD', (ended as string) === 'end');
        if (answer === null) {
          seen.broken++;
          break;
        }
        const { status, id: told, body, end: next, open } = answer as Answer;
        at = next;
        seen.whole++;
        // What the proxy says in its own name is for nobody else either.
        if (told === null) expect([502, 503, 504, 408]).toContain(status);
        else {
          expect(told).toBe(id);
          if (open) expect(`<${id}>`.slice(0, body.length)).toBe(body.slice(0, id.length + 2));
          else if (method !== 'HEAD' && status !== 204) expect(body).toMatch(new RegExp(`^<${id}>\\.*</${id}>$`));
        }
      }
      if (!over() && at > 0) expect(got.slice(at)).toBe('');
    }
    socket.destroy();
  };
  const clients = async () => {
    while (Date.now() < end) await client();
  };
  const cutting = async () => {
    while (Date.now() < end) {
      await sleep(20);
      const socket = pick([...pick(upstreams).sockets]);
      if (chance() < 0.5) socket?.end();
      else socket?.resetAndDestroy();
    }
  };
  const coming = async () => {
    while (Date.now() < end) {
      await sleep(400);
      rig.leave('u2');
      await sleep(30);
      join(2);
    }
  };
  await Promise.all([...Array.from({ length: 8 }, clients), cutting(), coming()]);
  await until(() => rig.proxy.active === 0);
  for (const id of rig.refs.keys()) expect([id, rig.active(id)]).toEqual([id, 0]);
  expect(seen.whole).toBeGreaterThan(1_000);
  expect(seen.broken).toBeGreaterThan(0);
  await rig.close();
  for (const upstream of upstreams) {
    await until(() => [...upstream.sockets].every((socket) => socket.destroyed));
    upstream.close();
  }
});

test('a body that an upstream sends to HEAD, and late, comes into no other answer', async () => {
  const upstream = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {});
    socket.on('data', async (chunk) => {
      const isHead = chunk.toString('latin1').startsWith('HEAD');
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n${isHead ? '' : 'go'}`);
      await sleep(isHead ? 30 : 60);
      socket.write(isHead ? 'evil' : 'od');
    });
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  const rig = await Rig.start();
  rig.join('a', `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`);
  expect((await fetch(rig.url, { method: 'HEAD' })).headers.get('content-length')).toBe('4');
  expect(await (await fetch(rig.url)).text()).toBe('good');
  await rig.close();
  upstream.close();
});
