import { expect, test } from 'vitest';
import { ModelScan } from '../../src/proxy/model-scan.ts';
import { echo, RawClient, Rig, until } from './rig.ts';

const chat = (url: string, body: unknown, init: object = {}) =>
  fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json; charset=utf-8' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...init,
  });

test('a JSON request goes to an upstream that has its model', async () => {
  await using rig = await Rig.start();
  await rig.backend('llama', echo, { models: ['llama-3', 'shared'] });
  await rig.backend('qwen', echo, { models: ['qwen-3', 'shared'] });
  for (let i = 0; i < 3; i++) {
    expect((await chat(rig.url, { messages: [], model: 'qwen-3' })).headers.get('x-gpuproxy-instance')).toBe('qwen');
    expect((await chat(rig.url, { model: 'llama-3' })).headers.get('x-gpuproxy-instance')).toBe('llama');
  }
  const shared = new Set<string | null>();
  for (let i = 0; i < 4; i++) shared.add((await chat(rig.url, { model: 'shared' })).headers.get('x-gpuproxy-instance'));
  expect([...shared].sort()).toEqual(['llama', 'qwen']);
  expect((await rig.reported(10))[0]!.model).toBe('qwen-3');
});

test('the body arrives byte for byte, however it is spelled', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo, { models: ['m'] });
  const text = '{ "messages" : [ {"content": "say \\"model\\": \\u00e9 "} ],\n\t"model":\t"\\u006d" , "x": 1e5 }  ';
  const answer = await chat(rig.url, text);
  expect(answer.status).toBe(200);
  expect(((await answer.json()) as { body: string }).body).toBe(text);
});

test('a model nobody has is 404, one that is known but down is 503, both in the form OpenAI clients read', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo, { models: ['up'] });
  await rig.backend('b', echo, { models: ['down'], running: false });
  const unknown = await chat(rig.url, { model: 'nope' });
  expect(unknown.status).toBe(404);
  expect(await unknown.json()).toMatchObject({
    error: { code: 'model_not_found', type: 'invalid_request_error', param: 'model' },
  });
  const down = await chat(rig.url, { model: 'down' });
  expect(down.status).toBe(503);
  expect(down.headers.get('retry-after')).toBe('1');
  expect(await down.json()).toMatchObject({ error: { code: 'model_unavailable' } });
});

test('an upstream that has not told its models may serve any', async () => {
  await using rig = await Rig.start();
  await rig.backend('told', echo, { models: ['a'] });
  await rig.backend('untold', echo, { models: null });
  for (let i = 0; i < 3; i++) {
    expect((await chat(rig.url, { model: 'b' })).headers.get('x-gpuproxy-instance')).toBe('untold');
  }
});

test('no model, no JSON, broken JSON: any upstream', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo, { models: ['m'] });
  for (const body of ['{"input": 1}', '[{"model": "x"}]', '{"model": 5}', '{"a": {"model": "x"}}', 'nonsense', '']) {
    expect((await chat(rig.url, body)).status).toBe(200);
  }
  const form = await chat(rig.url, '{"model":"x"}', { headers: { 'content-type': 'text/plain' } });
  expect(form.status).toBe(200);
});

test('the choice is made as soon as the model was read: a body that is still coming does not hold it up', async () => {
  await using rig = await Rig.start();
  let begun = '';
  await rig.backend(
    'a',
    (req, res) => {
      req.on('data', (chunk) => {
        begun += chunk;
      });
      req.on('end', () => res.end('ok'));
    },
    { models: ['m'] },
  );
  const client = new RawClient(rig.proxy.port);
  client.send('POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n');
  client.send('e\r\n{"model": "m",\r\n');
  await until(() => begun === '{"model": "m",');
  client.send('8\r\n"x": 1 }\r\n0\r\n\r\n');
  await client.until(/ok/);
  client.socket.destroy();
});

test('looking for the model is bounded: after so many bytes any upstream will do', async () => {
  await using rig = await Rig.start({ settings: { modelScanBytes: 100_000, retryBodyBytes: 1000 } });
  await rig.backend('a', echo, { models: ['m'] });
  const body = JSON.stringify({ image: 'x'.repeat(400_000), model: 'unknown' });
  const answer = await chat(rig.url, body);
  expect(answer.status).toBe(200);
  expect(((await answer.json()) as { body: string }).body).toBe(body);
  const near = JSON.stringify({ image: 'x'.repeat(50_000), model: 'unknown' });
  expect((await chat(rig.url, near)).status).toBe(404);
});

test('/v1/models is the union over upstreams that work', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo, { models: ['m1', 'm2'] });
  await rig.backend('b', echo, { models: ['m2', 'm3'] });
  await rig.backend('c', echo, { models: ['off'], running: false });
  const list = (await (await fetch(`${rig.url}/v1/models?x=1`)).json()) as {
    object: string;
    data: { id: string; object: string }[];
  };
  expect(list.object).toBe('list');
  expect(list.data.map((model) => model.id)).toEqual(['m1', 'm2', 'm3']);
  expect(list.data[0]!.object).toBe('model');
  expect((await fetch(`${rig.url}/v1/models/m3`)).headers.get('x-gpuproxy-instance')).toBe('b');
  expect((await fetch(`${rig.url}/v1/models/none`)).status).toBe(404);
  expect((await fetch(`${rig.url}/v1/models/off`)).status).toBe(503);
});

test('when nobody has told its models, /v1/models is asked of an upstream', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo);
  expect((await fetch(`${rig.url}/v1/models`)).headers.get('x-gpuproxy-instance')).toBe('a');
});

test('the scan finds the model at any cut of the bytes', () => {
  const bytes = Buffer.from('{"a\\"b": [1, {"model": "no"}, "}{"], "n": null, "model": "gpt \\u00e4ö/7", "z": {}}');
  for (let size = 1; size <= bytes.length; size++) {
    const scan = new ModelScan();
    for (let at = 0; at < bytes.length; at += size) if (scan.write(bytes.subarray(at, at + size))) break;
    expect([scan.state, scan.model]).toEqual(['found', 'gpt äö/7']);
  }
});
