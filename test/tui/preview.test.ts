import { expect, test } from 'vitest';
import { replaySteps } from '../../src/core/fleet-model.ts';
import type { FinishedRequest } from '../../src/core/report.ts';
import type { Snapshot } from '../../src/fleet/app.ts';
import { inSlices, predictByReplay, previewOf, sliceRows } from '../../src/tui/preview.ts';
import { createFakeApp } from './fake-app.ts';

const now = 1_000_000;

/** As many finished requests as the application keeps, all of the last minute. */
function requestsOf(ids: readonly string[], count = 5000): FinishedRequest[] {
  return Array.from({ length: count }, (_, index) => ({
    at: now - 59_000 + (index * 58_000) / count,
    method: 'POST',
    path: '/v1/chat/completions',
    model: null,
    instance: ids[(index * 31) % ids.length] as string,
    status: 200,
    cause: 'complete',
    ttfbMs: 80 + (index % 40),
    totalMs: 300 + ((index * 7919) % 900),
    queueMs: 0,
    attempts: 1,
    bytesOut: 1000,
    id: `req-${index}`,
  }));
}

function fleetOf(count: number): Snapshot {
  const snapshot = createFakeApp().state.get();
  const [first] = snapshot.upstreams;
  if (first === undefined) throw new Error('the fake application has no upstream');
  const upstreams = Array.from({ length: count }, (_, index) => ({
    ...first,
    id: `vast-${index}`,
    eligible: true,
    weight: 1 + (index % 3),
  }));
  return { ...snapshot, upstreams };
}

test.each([6, 200, 2000])(
  'a model on %i upstreams gives way again and again, after a bounded piece of work',
  async (count) => {
    const { upstreams } = fleetOf(count);
    const requests = requestsOf(upstreams.map(({ id }) => id));
    const taken: number[] = [];
    const counted = function* () {
      const steps = replaySteps(requests, upstreams, 'least_response_time');
      for (let step = steps.next(); ; step = steps.next()) {
        if (step.done) return step.value;
        taken[taken.length - 1] = (taken.at(-1) ?? 0) + step.value;
        yield step.value;
      }
    };
    taken.push(0);
    const result = await inSlices(counted(), async () => void taken.push(0));
    expect(result?.requests).toBe(requests.length);
    // Every request looks at every row, so so much work cannot be missing from what is counted.
    expect(taken.reduce((sum, rows) => sum + rows, 0)).toBeGreaterThan(requests.length * count);
    expect(Math.max(...taken)).toBeLessThan(sliceRows + 5000 + count);
    expect(taken.length).toBeGreaterThan(50);
  },
);

test('other work gets its turns while the preview of a great fleet is made', async () => {
  const snapshot = fleetOf(2000);
  let turns = 0;
  let over = false;
  const tick = () => {
    turns += 1;
    if (!over) setImmediate(tick);
  };
  setImmediate(tick);
  const found = await previewOf(
    'least_connections',
    requestsOf(snapshot.upstreams.map(({ id }) => id)),
    snapshot,
    now,
    predictByReplay,
  );
  over = true;
  expect(found.why).toBeNull();
  expect(found.requests).toBeGreaterThan(900);
  expect(turns).toBeGreaterThan(100);
});
