import { expect, test } from 'vitest';
import { RawClient, Rig, until } from './rig.ts';

test('a drain cuts no answer that is whole already, however slowly its client takes it', async () => {
  await using rig = await Rig.start();
  const size = 20_000;
  let answered = 0;
  await rig.backend('a', (_req, res) => {
    answered++;
    res.end('x'.repeat(size));
  });
  const client = new RawClient(rig.proxy.port);
  client.socket.pause();
  // Until the sockets hold no more: the last answer is whole in the proxy, and waits.
  client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(2_000));
  await until(() => answered > 10);
  let last = -1;
  while (last !== answered) {
    last = answered;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const drained = rig.proxy.drain(8_000);
  await new Promise((resolve) => setTimeout(resolve, 100));
  client.socket.resume();
  await until(() => client.closed);
  await drained;
  // Every answer that has begun is whole.
  const answers = client.received.split('HTTP/1.1 200 OK').slice(1);
  expect(answers.length).toBeGreaterThanOrEqual(last);
  for (const answer of answers) expect(answer.slice(answer.indexOf('\r\n\r\n') + 4).length).toBe(size);
  expect(answered).toBe(answers.length);
});

test('in a drain whoever was asked is answered', async () => {
  await using rig = await Rig.start();
  let asked = 0;
  await rig.backend('a', (_req, res) => {
    asked++;
    if (asked % 3 === 0) setTimeout(() => res.end('<whole>'), 3);
    else res.end('<whole>');
  });
  const clients: RawClient[] = [];
  for (let i = 0; i < 24; i++) {
    const client = new RawClient(rig.proxy.port);
    clients.push(client);
    let answers = 0;
    const ask = () => void client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    client.socket.on('data', () => {
      const count = client.received.split('<whole>').length - 1;
      if (count === answers) return;
      answers = count;
      ask();
    });
    ask();
  }
  await until(() => asked > 200);
  await rig.proxy.drain(8_000);
  await until(() => clients.every((client) => client.closed));
  let answers = 0;
  for (const { received } of clients) {
    expect(received).toMatch(/^(?:HTTP\/1\.1 200 OK\r\n(?:[^\r]+\r\n)+\r\n(?:7\r\n)?<whole>(?:\r\n0\r\n\r\n)?)*$/);
    answers += received.split('<whole>').length - 1;
  }
  expect(answers).toBe(asked);
  expect(rig.endings('a')).toEqual({ complete: asked });
});

test('a tunnel lives through a drain until its deadline', async () => {
  await using rig = await Rig.start();
  const backend = await rig.backend('a', () => {});
  backend.server.on('upgrade', (_req, socket) => {
    socket.on('error', () => {});
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    socket.pipe(socket);
  });
  const client = new RawClient(rig.proxy.port);
  client.send('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  await client.until(/ 101 /);
  const drained = rig.proxy.drain(600);
  await new Promise((resolve) => setTimeout(resolve, 150));
  client.send('still here');
  await client.until(/still here/);
  await drained;
  await until(() => client.closed);
  expect(rig.endings('a')).toEqual({ drained: 1 });
});
