import { expect, test } from 'vitest';
import { createStage, until } from './fixture.ts';

test('four reserved GPUs boot, are probed and take their place in the load table and the directory', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const result = await app.reserve({ count: 4, filter: {}, config: {} });
  expect(result).toMatchObject({ count: 4, requested: 4, errors: [] });
  expect(new Set(result.reserved.map((item) => item.instanceId)).size).toBe(4);
  const ready = await until('all four eligible', () => {
    const views = app.state.get().upstreams.filter((view) => view.eligible);
    return views.length === 4 ? views : null;
  });
  expect(ready.every((view) => view.state === 'OK' && view.health.state === 'up')).toBe(true);
  expect(app.dataPlane.directory()).toHaveLength(4);
  await until('models are known', () => app.dataPlane.directory().every((entry) => (entry.models?.length ?? 0) > 0));
});
