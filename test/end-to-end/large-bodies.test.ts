import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createProgram, type Program } from '../cli/program.ts';
import { eventually } from '../helpers/eventually.ts';

const size = 2 * 1024 * 1024 * 1024;
const piece = Buffer.alloc(1024 * 1024, 'x');

let program: Program;
let upstream: Server;
let server: ChildProcess;
let proxy = 0;

beforeAll(async () => {
  program = await createProgram();
  upstream = createServer((req, res) => {
    if (req.method === 'GET' && req.url !== '/large') {
      res.end('ok');
      return;
    }
    let received = 0;
    req.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    req.on('end', () => {
      if (req.method === 'POST') res.end(String(received));
      else send(res, () => res.end());
    });
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  server = spawn(process.execPath, [program.main, 'serve', '--port', '0', '--proxy-port', '0'], {
    env: program.environment({
      GPUPROXY_API_KEY: 'an-admin-key-for-tests',
      UPSTREAMS: `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`,
    }),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  server.stderr?.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  await eventually(() => /data plane +http:\/\/[0-9.]+:(\d+)/.test(log), 'the server');
  proxy = Number(/data plane +http:\/\/[0-9.]+:(\d+)/.exec(log)?.[1]);
  await eventually(async () => (await fetch(`http://127.0.0.1:${proxy}/`)).status === 200, 'an upstream');
}, 60_000);
afterAll(() => {
  server?.kill('SIGKILL');
  upstream?.closeAllConnections();
  upstream?.close();
  program?.remove();
});

/** Writes `size` bytes at the pace of whoever takes them. */
function send(to: NodeJS.WritableStream, done: () => void): void {
  let sent = 0;
  const more = () => {
    while (sent < size) {
      sent += piece.length;
      if (!to.write(piece)) {
        to.once('drain', more);
        return;
      }
    }
    done();
  };
  more();
}

const peakMb = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1]) / 1024;

test('bodies of 2 GB pass in either direction in constant memory', async () => {
  const before = peakMb();
  const posted = await new Promise<string>((resolve, reject) => {
    const req = request({ port: proxy, method: 'POST', headers: { 'content-length': size } }, (res) => {
      let text = '';
      res.on('data', (chunk) => {
        text += chunk;
      });
      res.on('end', () => resolve(text));
    });
    req.on('error', reject);
    send(req, () => req.end());
  });
  expect(Number(posted)).toBe(size);
  const received = await new Promise<number>((resolve, reject) => {
    const req = request({ port: proxy, path: '/large' }, (res) => {
      let bytes = 0;
      res.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      res.on('end', () => resolve(bytes));
      res.on('error', reject);
    });
    req.on('error', reject);
    req.end();
  });
  expect(received).toBe(size);
  // The young generation of a thread grows to its bound once, whatever passes.
  expect(peakMb() - before).toBeLessThan(150);
}, 180_000);
