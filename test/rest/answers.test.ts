import { execFile } from 'node:child_process';
import { request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Fastify, { type FastifyInstance } from 'fastify';
import { afterAll, expect, test } from 'vitest';
import { createProgram } from '../cli/program.ts';
import { takeAnswerFaults } from '../helpers/answer-faults.ts';

const strategy = '/api/v1/loadbalancer/strategy';
const events = '/api/v1/events';
const event = { id: 1, at: new Date(0).toISOString(), level: 'ok', kind: 'rental', subject: null, message: 'x' };
const messageOf = (name: string, data: unknown) => `id: 1\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`;

/** A server with answers of its own at the paths of the control plane. */
let answered: { status?: number; type?: string; text: string } = { text: '' };
const server: FastifyInstance = Fastify({
  clientErrorHandler: (_error, socket) => void socket.end('HTTP/1.1 400 Bad\r\nContent-Type: text/plain\r\n\r\nno'),
});
server.get(strategy, (_request, reply) =>
  reply
    .code(answered.status ?? 200)
    .type(answered.type ?? 'application/json; charset=utf-8')
    .send(answered.text),
);
server.get(events, (_request, reply) => {
  reply.hijack();
  reply.raw.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
  // Pieces need not be messages.
  for (const piece of answered.text.match(/.{1,20}/gs) ?? []) reply.raw.write(piece);
  reply.raw.end();
});
await server.listen({ host: '127.0.0.1', port: 0 });
afterAll(() => server.close());
const { port } = server.server.address() as AddressInfo;

/** What the check has against an answer. */
function faultsOf(path: string, answer: typeof answered): Promise<string> {
  answered = answer;
  return new Promise((resolve, reject) => {
    const asked = request({ port, path, agent: false }, (incoming) => {
      incoming.resume().on('end', () => resolve(takeAnswerFaults()));
    });
    asked.on('error', reject).end();
  });
}

test('an answer that is not as the OpenAPI document says is a fault', async () => {
  const json = (body: unknown) => ({ text: JSON.stringify(body) });
  expect(await faultsOf(strategy, json({ strategy: 'round_robin' }))).toBe('');
  expect(await faultsOf(strategy, json({ strategy: 'round_robin', extra: 1 }))).toMatch(/not as described/);
  expect(await faultsOf(strategy, json({ strategy: 'nonsense' }))).toMatch(/not as described/);
  expect(await faultsOf(strategy, json({}))).toMatch(/GET \/api\/v1\/loadbalancer\/strategy 200 is not as described/);
  expect(await faultsOf(strategy, { text: '{' })).toMatch(/is not JSON/);
  expect(await faultsOf(strategy, { ...json({ strategy: 'round_robin' }), status: 201 })).toMatch(/is not described/);
  expect(await faultsOf(strategy, { text: 'x', type: 'text/plain' })).toMatch(/came as text\/plain/);
  expect(await faultsOf('/nowhere', json({}))).toMatch(/is no problem/);
});

test('so is a message of a stream, by its data or its name', async () => {
  const stream = (text: string) => ({ text: `retry: 2000\n\n:\n\n${text}` });
  expect(await faultsOf(events, stream(messageOf('rental', event)))).toBe('');
  expect(await faultsOf(events, stream(messageOf('gap', { missed: true })))).toBe('');
  expect(await faultsOf(events, stream(messageOf('rental', { ...event, id: '1' })))).toMatch(/not as described/);
  expect(await faultsOf(events, stream(messageOf('gap', { missed: false })))).toMatch(/not as described/);
  expect(await faultsOf(events, stream(messageOf('drain', event)))).toMatch(/a message called drain/);
  expect(await faultsOf(events, stream(`data: ${JSON.stringify(event)}\n\n`))).toMatch(/a message called undefined/);
  expect(await faultsOf(events, stream('event: rental\n\n'))).toMatch(/without data/);
});

test('and a refusal of what is no HTTP', async () => {
  const socket = connect(port, '127.0.0.1').setEncoding('utf8');
  socket.write('nonsense\r\n\r\n');
  await new Promise((resolve) => socket.on('close', resolve).resume());
  expect(takeAnswerFaults()).toMatch(/came as text\/plain, which is no problem/);
});

test('also where a program that a test started answers', async () => {
  const program = await createProgram();
  const code = `
    import Fastify from 'fastify';
    const server = Fastify();
    server.get('${strategy}', () => ({ strategy: 'nonsense' }));
    const url = await server.listen({ host: '127.0.0.1', port: 0 });
    await (await fetch(url + '${strategy}')).text();
    await server.close();`;
  try {
    await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', code], {
      cwd: join(import.meta.dirname, '..', '..'),
      env: program.environment(),
    });
    expect(takeAnswerFaults()).toMatch(/not as described/);
  } finally {
    program.remove();
  }
});
