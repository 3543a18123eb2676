import { expect, test as serial } from 'vitest';
import { upstreamWire } from '../../src/rest/wire.ts';
import { createStage, until } from './fixture.ts';

// Each has marketplaces and a ledger of its own, and most of its time is waiting.
const test = serial.concurrent;

const filter = { provider: 'vast.ai' } as const;
const config = { maxBidUsdPerHour: 0.5, diskGb: 100 };

test('what is booked for a bid is what the contract costs, with its disk, before any list says so', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  await app.refresh();
  stage.simulator.faults.add({ kind: 'error', status: 503, route: 'list' });
  const plan = await app.plan({ count: 1, filter, config });
  const { reserved } = await app.reserve({ count: 1, filter, config });
  const [contract] = stage.simulator.instances();
  expect(contract?.interruptible).toBe(true);
  expect(contract?.usdPerHour).toBeGreaterThan(0.505);
  expect(reserved[0]?.usdPerHour).toBeCloseTo(contract?.usdPerHour ?? 0, 5);
  expect(app.state.get().upstreams[0]?.usdPerHour).toBeCloseTo(contract?.usdPerHour ?? 0, 5);
  expect(app.state.get().cost.usdPerHour).toBeCloseTo(contract?.usdPerHour ?? 0, 3);
  expect(plan.usdPerHour).toBeCloseTo(contract?.usdPerHour ?? 0, 5);
});

test('the same on demand with another disk than the offer was priced with', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  await app.refresh();
  stage.simulator.faults.add({ kind: 'error', status: 503, route: 'list' });
  const { reserved } = await app.reserve({ count: 1, filter, config: { diskGb: 8 } });
  expect(reserved[0]?.usdPerHour).toBeCloseTo(stage.simulator.instances()[0]?.usdPerHour ?? 0, 5);
});

test('a budget and a highest price hold for bid and disk together', async () => {
  await using stage = await createStage();
  const app = await stage.start({ flags: { MAX_USD_PER_HOUR: 0.5 } });
  const over = await app.reserve({ count: 1, filter, config }).catch((error: unknown) => error);
  expect(over).toMatchObject({ code: 'budget_exceeded' });
  const dear = await app
    .reserve({ count: 1, filter: { ...filter, maxUsdPerHour: 0.5 }, config })
    .catch((error: unknown) => error);
  expect(dear).toMatchObject({ code: 'no_offers' });
  expect(stage.simulator.ledger()).toEqual([]);
});

test('an outbid instance is shown as that, told in an event, and runs again when its bid wins', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter, config });
  const id = reserved[0]?.instanceId ?? '';
  const contract = reserved[0]?.contractId ?? '';
  const messages = () => app.events.recent().flatMap((event) => (event.subject === id ? [event.message] : []));
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  stage.simulator.faults.add({ kind: 'outbid', instance: contract });
  const view = await until('outbid', () => app.state.get().upstreams.find((item) => item.state === 'OUTBID'));
  expect(view).toMatchObject({ eligible: false, interruptible: true, lifecycle: { phase: 'halted', cause: 'outbid' } });
  expect(view.reason).toContain('somebody bids more');
  expect(upstreamWire(view)).toMatchObject({
    state: 'OUTBID',
    reason: view.reason,
    lifecycle: { phase: 'halted', detail: view.reason },
  });
  expect(app.dataPlane.directory()).toEqual([]);
  expect(messages().filter((message) => message.includes(`${id} was outbid at vast.ai`))).toHaveLength(1);
  stage.simulator.faults.add({ kind: 'online', instance: contract });
  await until('in rotation again', () => app.state.get().upstreams[0]?.eligible);
  expect(messages().some((message) => /(starts|runs) again/.test(message))).toBe(true);
  // Once more: one event each time.
  stage.simulator.faults.add({ kind: 'outbid', instance: contract });
  await until('outbid again', () => app.state.get().upstreams[0]?.state === 'OUTBID');
  await until('told again', () => messages().filter((message) => message.includes('was outbid')).length === 2);
});

test('one that is outbid before it ever ran is told too', async () => {
  await using stage = await createStage({ bootMs: { min: 60_000, max: 60_000 } });
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter, config });
  await until('booting', () => app.state.get().upstreams[0]?.state === 'BOOT');
  stage.simulator.faults.add({ kind: 'outbid', instance: reserved[0]?.contractId ?? '' });
  await until('outbid', () => app.state.get().upstreams[0]?.state === 'OUTBID');
  expect(app.events.recent().some((event) => event.message.includes('was outbid'))).toBe(true);
});

test('one that failed says FAILED with the reason of the provider, not BOOT', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter, config: {} });
  await until('up', () => app.state.get().upstreams[0]?.eligible);
  stage.simulator.faults.add({ kind: 'exit', instance: reserved[0]?.contractId ?? '' });
  const view = await until('failed', () => app.state.get().upstreams.find((item) => item.state === 'FAILED'));
  expect(view.reason).toContain('exited');
});
