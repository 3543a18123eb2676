import { expect, test } from 'vitest';
import { type Echo, echo, Rig } from './rig.ts';

test('a request reaches an upstream and its answer comes back', async () => {
  await using rig = await Rig.start();
  await rig.backend('a', echo);
  const answer = await fetch(`${rig.url}/v1/thing?x=1`, { method: 'POST', body: 'hello', headers: { 'x-a': 'b' } });
  expect(answer.status).toBe(200);
  const seen = (await answer.json()) as Echo;
  expect(seen).toMatchObject({ method: 'POST', url: '/v1/thing?x=1', body: 'hello' });
  expect(seen.headers['x-a']).toBe('b');
  expect(answer.headers.get('x-gpuproxy-instance')).toBe('a');
  expect(rig.active('a')).toBe(0);
  expect(rig.endings('a')).toEqual({ complete: 1 });
  const [request] = await rig.reported(1);
  expect(request).toMatchObject({
    method: 'POST',
    path: '/v1/thing',
    status: 200,
    cause: 'complete',
    instance: 'a',
    attempts: 1,
  });
});
