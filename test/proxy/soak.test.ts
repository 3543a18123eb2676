import { connect, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { certificate } from '../helpers/certificate.ts';
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

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** What is held on to; rubbish is not counted. What is freed with a socket is gone after the second time alone. */
function keptBytes(): number {
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

const tls = certificate();
const soakMs = Number(process.env.SOAK_SECONDS ?? 20) * 1000;

test('after random traffic with random faults every count is zero and no connection is left', {
  timeout: soakMs + 60_000,
}, async () => {
  const seed = Number(process.env.SOAK_SEED ?? Math.floor(Math.random() * 1e9));
  const chance = random(seed);
  const settings = {
    idleTimeoutMs: 300,
    firstByteTimeoutMs: 400,
    queueTimeoutMs: 500,
    queueLimit: 20,
    connectTimeoutMs: 500,
    verifyUpstreamTls: false,
  };
  await using rig = await Rig.start({
    strategy: 'least_connections',
    balancer: { ejectBaseMs: 100, ejectMaxMs: 500 },
    settings,
  });
  // A second thread's proxy over the same table: they wait in one line and count in one place.
  const second = await rig.otherThread(settings, { ejectBaseMs: 100, ejectMaxMs: 500 });
  const backends = [];
  for (const id of ['a', 'b', 'c', 'd', 'e']) {
    backends.push(
      await rig.backend(
        id,
        (req, res) => {
          req.on('error', () => {});
          res.on('error', () => {});
          // A server that does not read would not notice that the proxy has closed the connection.
          req.resume();
          const die = () => {
            const socket = req.socket as Socket & { _parent?: Socket };
            // TLS itself knows no reset.
            if (chance() < 0.5) (socket._parent ?? socket).resetAndDestroy();
            socket.destroy();
          };
          const fate = chance();
          if (fate < 0.04) die();
          else if (fate < 0.07) res.writeHead(500 + Math.floor(chance() * 5)).end('bad');
          else if (fate < 0.09) res.writeHead(503, { 'retry-after': '0' }).end();
          else if (fate < 0.1)
            return; // hangs
          else if (fate < 0.14) {
            res.write('part');
            setTimeout(die, chance() * 30);
          } else if (fate < 0.15) res.write('then silence');
          else if (fate < 0.3) {
            let left = Math.floor(chance() * 10);
            const next = () => {
              if (left-- > 0 && !res.destroyed) {
                res.write('data: x\n\n');
                setTimeout(next, 5);
              } else res.end();
            };
            next();
          } else req.on('end', () => res.end(Buffer.alloc(Math.floor(chance() * 100_000))));
        },
        { ceiling: 6, models: id < 'd' ? ['m', 'n'] : ['n'], tls: id === 'a' || id === 'd' ? tls : null },
      ),
    );
    backends.at(-1)!.server.on('upgrade', (_req, duplex) => {
      duplex.on('error', () => {});
      if (chance() < 0.2) duplex.destroy();
      else {
        duplex.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
        duplex.pipe(duplex);
        if (chance() < 0.3) setTimeout(() => duplex.destroy(), chance() * 60);
      }
    });
  }
  second.setDirectory([...rig.entries]);
  let sent = 0;
  const client = async (end: number): Promise<void> => {
    while (Date.now() < end) {
      sent++;
      await new Promise<void>((resolve) => {
        const socket = connect(chance() < 0.5 ? rig.proxy.port : second.port, '127.0.0.1');
        socket.on('error', () => {});
        // A timer would hold what the socket has not sent.
        const limit = setTimeout(() => socket.destroy(), 3_000);
        socket.on('close', () => {
          clearTimeout(limit);
          resolve();
        });
        const kind = chance();
        if (kind < 0.08) {
          socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly');
          setTimeout(() => (chance() < 0.5 ? socket.end() : socket.destroy()), chance() * 80);
          socket.resume();
          return;
        }
        if (kind < 0.14) {
          socket.write(
            'POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n',
          );
          setTimeout(() => (chance() < 0.8 ? socket.write('0\r\nX-Sum: 1\r\n\r\n') : socket.destroy()), chance() * 20);
          socket.resume();
          return;
        }
        if (kind < 0.3) {
          const body = JSON.stringify({ model: chance() < 0.5 ? 'm' : 'n', pad: 'x'.repeat(chance() * 2000) });
          socket.write(
            `POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
          );
          socket.resume();
          if (chance() < 0.2) setTimeout(() => socket.destroy(), chance() * 50);
          return;
        }
        const size = chance() < 0.3 ? Math.floor(chance() * 200_000) : 0;
        socket.write(
          `${size > 0 ? 'POST' : 'GET'} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${size}\r\n\r\n`,
        );
        if (size > 0) socket.write(Buffer.alloc(chance() < 0.9 ? size : Math.floor(size / 2)));
        const mood = chance();
        if (mood < 0.1) {
          socket.pause();
          setTimeout(() => socket.destroy(), 100);
        } else socket.resume();
        if (mood > 0.9) setTimeout(() => socket.destroy(), chance() * 50);
      });
    }
  };
  // The rig keeps every report; here nobody reads them.
  const forget = setInterval(() => {
    rig.reports.length = 0;
  }, 1_000);
  /** Traffic for so long, then what is kept when all of it is over: in the middle of it bodies are on their way. */
  const keptAfter = async (ms: number): Promise<number> => {
    const end = Date.now() + ms;
    await Promise.all(Array.from({ length: 40 }, () => client(end)));
    await until(() => rig.proxy.active === 0 && second.active === 0, 20_000);
    // Clients that went on sending after their answer are listened to for two seconds.
    await sleep(2_500);
    rig.reports.length = 0;
    return keptBytes();
  };
  const before = await keptAfter(soakMs / 3);
  const after = await keptAfter((soakMs * 2) / 3);
  clearInterval(forget);
  // A leak of one object a request would show.
  expect(after - before).toBeLessThan(5 * 1024 * 1024);
  expect(rig.table.line(9).elsewhere).toBe(false);
  for (const id of rig.refs.keys()) expect([id, rig.active(id), seed]).toEqual([id, 0, seed]);
  const totals = rig.table.totals();
  expect(totals.active).toBe(0);
  expect(Object.values(totals.endings).reduce((sum, count) => sum + count, 0)).toBe(totals.total);
  await rig.proxy.close();
  await second.close();
  await sleep(50);
  for (const backend of backends) await until(() => backend.sockets.size === 0);
  expect(sent).toBeGreaterThan(100);
});
