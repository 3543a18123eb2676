import { connect, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
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

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** What is held on to; rubbish is not counted. */
function keptBytes(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

const soakMs = Number(process.env.SOAK_SECONDS ?? 20) * 1000;

test('after random traffic with random faults every count is zero and no connection is left', {
  timeout: soakMs + 60_000,
}, async () => {
  const seed = Number(process.env.SOAK_SEED ?? Math.floor(Math.random() * 1e9));
  const chance = random(seed);
  await using rig = await Rig.start({
    strategy: 'least_connections',
    balancer: { ejectBaseMs: 100, ejectMaxMs: 500 },
    settings: {
      idleTimeoutMs: 300,
      firstByteTimeoutMs: 400,
      queueTimeoutMs: 500,
      queueLimit: 20,
      connectTimeoutMs: 500,
    },
  });
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
          const die = () => (chance() < 0.5 ? (req.socket as Socket).resetAndDestroy() : req.socket.destroy());
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
        { ceiling: 6 },
      ),
    );
  }
  let sent = 0;
  const client = async (): Promise<void> => {
    const end = Date.now() + soakMs;
    while (Date.now() < end) {
      sent++;
      await new Promise<void>((resolve) => {
        const socket = connect(rig.proxy.port, '127.0.0.1');
        socket.on('error', () => {});
        // A timer would hold what the socket has not sent.
        const limit = setTimeout(() => socket.destroy(), 3_000);
        socket.on('close', () => {
          clearTimeout(limit);
          resolve();
        });
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
  const third = sleep(soakMs / 3).then(keptBytes);
  await Promise.all(Array.from({ length: 40 }, client));
  clearInterval(forget);
  rig.reports.length = 0;
  // A leak of one object a request would show.
  expect(keptBytes() - (await third)).toBeLessThan(40 * 1024 * 1024);
  await until(() => rig.proxy.active === 0);
  for (const id of rig.refs.keys()) expect([id, rig.active(id), seed]).toEqual([id, 0, seed]);
  const totals = rig.table.totals();
  expect(totals.active).toBe(0);
  expect(Object.values(totals.endings).reduce((sum, count) => sum + count, 0)).toBe(totals.total);
  await rig.proxy.close();
  await sleep(50);
  for (const backend of backends) await until(() => backend.sockets.size === 0);
  expect(sent).toBeGreaterThan(100);
});
