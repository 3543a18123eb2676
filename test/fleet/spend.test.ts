import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test as serial } from 'vitest';
import { openLedger } from '../../src/fleet/ledger/ledger.ts';
import type { Rental } from '../../src/fleet/ledger/rows.ts';
import { createSpend } from '../../src/fleet/spend.ts';
import { createStage, until } from './fixture.ts';

const test = serial.concurrent;

const hour = 3_600_000;

/** A wall clock that a test moves; the monotonic one stays real. */
function movedClock() {
  let ahead = 0;
  return {
    clock: { now: () => Date.now() + ahead, monotonic: () => performance.now() },
    move(ms: number) {
      ahead += ms;
    },
  };
}

test('what is billed by use is charged for the time it runs, over restarts, and stops with the instance', async () => {
  await using stage = await createStage();
  const { clock, move } = movedClock();
  const app = await stage.start({ clock });
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  const rate = reserved[0]?.usdPerHour ?? 0;
  await until('running', () => app.state.get().upstreams[0]?.lifecycle.phase === 'running');
  expect(app.state.get().cost.usdPerHour).toBeCloseTo(rate, 3);
  expect(app.state.get().cost.spentUsd).toBeLessThan(0.01);
  move(10 * hour);
  await app.setWeight(reserved[0]?.instanceId ?? '', 1);
  expect(app.state.get().cost.spentUsd).toBeCloseTo(10 * rate, 1);
  expect(app.state.get().upstreams[0]?.spentUsd).toBeCloseTo(10 * rate, 1);
  await app[Symbol.asyncDispose]();
  move(10 * hour);
  const next = await stage.start({ clock });
  expect(next.state.get().cost.spentUsd).toBeCloseTo(20 * rate, 1);
  await next.destroy(reserved[0]?.instanceId ?? '', { now: true });
  move(100 * hour);
  await next.setStrategy('least_connections', 'test');
  const { cost } = next.state.get();
  expect(cost.spentUsd).toBeCloseTo(20 * rate, 1);
  expect(cost.usdPerHour).toBe(0);
  expect(cost.spentTodayUsd).toBe(0);
});

test('the disk of one that boots, is outbid or failed is billed, and its rate is what it costs then', async () => {
  await using stage = await createStage();
  const { clock, move } = movedClock();
  const app = await stage.start({ clock });
  const config = { maxBidUsdPerHour: 0.5, diskGb: 200 };
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config });
  const [item] = reserved;
  const contract = item?.contractId ?? '';
  const full = item?.usdPerHour ?? 0;
  const disk = full - 0.5;
  expect(disk).toBeGreaterThan(0.01);
  const view = () => app.state.get().upstreams[0];
  const spent = () => app.state.get().cost.spentUsd;
  await until('running', () => view()?.lifecycle.phase === 'running');
  expect(view()?.usdPerHour).toBeCloseTo(full, 5);
  for (const [kind, state] of [
    ['outbid', 'OUTBID'],
    ['exit', 'FAILED'],
  ] as const) {
    stage.simulator.faults.add({ kind, instance: contract });
    await until(state, () => view()?.state === state);
    expect(view()?.usdPerHour).toBeCloseTo(disk, 5);
    expect(app.state.get().cost.usdPerHour).toBeCloseTo(disk, 3);
    expect(app.state.get().providers[0]?.usdPerHour).toBeCloseTo(disk, 3);
    expect(app.state.get().reservations[0]?.usdPerHour).toBeCloseTo(disk, 5);
    const before = spent();
    move(100 * hour);
    await app.setWeight(item?.instanceId ?? '', 1);
    expect(spent() - before).toBeGreaterThan(99 * disk);
    expect(spent() - before).toBeLessThan(101 * disk);
    if (kind === 'exit') break;
    stage.simulator.faults.add({ kind: 'online', instance: contract });
    await until('running again', () => view()?.lifecycle.phase === 'running');
    expect(app.state.get().cost.usdPerHour).toBeCloseTo(full, 3);
  }
  // What is billed is kept over a restart.
  const before = spent();
  await app[Symbol.asyncDispose]();
  move(100 * hour);
  const next = await stage.start({ clock });
  expect(next.state.get().cost.spentUsd - before).toBeGreaterThan(99 * disk);
  expect(next.state.get().cost.spentUsd - before).toBeLessThan(101 * disk);
  // Also while it is being destroyed, and no longer.
  const broken = stage.simulator.faults.add({ kind: 'error', status: 503, route: 'destroy' });
  const going = next.destroy(item?.instanceId ?? '', { now: true });
  await until('destroying', () => next.state.get().upstreams[0]?.state === 'DESTROYING');
  expect(next.state.get().cost.usdPerHour).toBeCloseTo(disk, 3);
  stage.simulator.faults.remove(broken.id);
  await going;
  await until('gone', () => next.state.get().cost.usdPerHour === 0);
  const last = next.state.get().cost.spentUsd;
  move(100 * hour);
  await next.setStrategy('least_connections', 'test');
  expect(next.state.get().cost.spentUsd).toBe(last);
});

test('while it boots its disk alone is charged, from the rental on', async () => {
  await using stage = await createStage({ bootMs: { min: 600_000, max: 600_000 } });
  const { clock, move } = movedClock();
  const app = await stage.start({ clock });
  const config = { maxBidUsdPerHour: 0.5, diskGb: 200 };
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config });
  const disk = (reserved[0]?.usdPerHour ?? 0) - 0.5;
  // What it is about to cost, which is what was agreed to.
  expect(app.state.get().cost.usdPerHour).toBeCloseTo(disk + 0.5, 3);
  await until('booting', () => app.state.get().upstreams[0]?.lifecycle.phase === 'booting');
  move(100 * hour);
  await app.setWeight(reserved[0]?.instanceId ?? '', 1);
  expect(app.state.get().cost.spentUsd).toBeGreaterThan(99 * disk);
  expect(app.state.get().cost.spentUsd).toBeLessThan(101 * disk);
});

test('prepaid time is charged when it is bought, extended for more, and announced before it ends', async () => {
  await using stage = await createStage();
  const { clock, move } = movedClock();
  const app = await stage.start({ clock });
  const { reserved } = await app.reserve({
    count: 1,
    filter: { provider: 'io.net' },
    config: { durationHours: 2 },
  });
  const item = reserved[0];
  const rate = item?.usdPerHour ?? 0;
  expect(app.state.get().cost.spentUsd).toBeCloseTo(2 * rate, 2);
  const view = await until('its end is known', () =>
    app.state.get().upstreams.find((upstream) => upstream.expiresAt !== null),
  );
  const left = (view.expiresAt ?? 0) - Date.now();
  expect(left).toBeGreaterThan(1.9 * hour);
  expect(left).toBeLessThan(2.1 * hour);
  const extended = await app.extend(item?.instanceId ?? '', 3);
  expect(extended.expiresAt).toBeGreaterThan((view.expiresAt ?? 0) + 2.9 * hour);
  expect(app.state.get().cost.spentUsd).toBeCloseTo(5 * rate, 2);
  move((extended.expiresAt ?? 0) - clock.now() - 5 * 60_000);
  const warning = await until('a warning', () =>
    app.events.recent().find((event) => event.level === 'warn' && event.message.includes('prepaid time ends')),
  );
  expect(warning.subject).toBe(item?.instanceId);
  expect(app.state.get().cost.spentUsd).toBeCloseTo(5 * rate, 2);
});

test('prepaid time that is given up early stays booked as it was paid, and the event says how much was not used', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'io.net' }, config: { durationHours: 4 } });
  const id = reserved[0]?.instanceId ?? '';
  const rate = reserved[0]?.usdPerHour ?? 0;
  await until('its end is known', () => app.state.get().upstreams[0]?.expiresAt);
  await app.destroy(id, { now: true });
  const event = await until('said', () =>
    app.events.recent().find((each) => each.kind === 'destroy' && each.message.includes('destroyed (')),
  );
  const unused = Number(/\$([\d.]+) of its prepaid time was not used and stays booked/.exec(event.message)?.[1]);
  expect(unused).toBeGreaterThan(3.9 * rate - 0.01);
  expect(unused).toBeLessThan(4.1 * rate + 0.01);
  expect(app.state.get().cost.spentUsd).toBeCloseTo(4 * rate, 2);
});

test('what is billed by use cannot be extended', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  const id = reserved[0]?.instanceId ?? '';
  await expect(app.extend(id, 1)).rejects.toMatchObject({ code: 'unsupported' });
  await expect(app.extend(id, 0)).rejects.toMatchObject({ code: 'invalid' });
});

test('prepaid time that runs out ends the instance and says why', async () => {
  await using stage = await createStage();
  const app = await stage.start();
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'io.net' }, config: {} });
  await until('running', () => app.state.get().upstreams[0]?.lifecycle.phase === 'running');
  stage.simulator.faults.add({ kind: 'expire', instance: 'ionet' });
  const ended = await until('ended', () =>
    app.state.get().upstreams.find((view) => view.id === reserved[0]?.instanceId && view.state === 'ENDED'),
  );
  expect(ended.reason).not.toBe('');
});

test('the budget counts what is being destroyed, because it is billed until it is gone', async () => {
  await using stage = await createStage();
  const app = await stage.start({ timing: { destroyWaitMs: 100 } });
  const { reserved } = await app.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  const rate = reserved[0]?.usdPerHour ?? 0;
  await app[Symbol.asyncDispose]();
  const tight = await stage.start({ flags: { MAX_USD_PER_HOUR: rate * 1.2 }, timing: { destroyWaitMs: 100 } });
  const more = () => tight.reserve({ count: 1, filter: { provider: 'vast.ai' }, config: {} });
  await expect(more()).rejects.toMatchObject({ code: 'budget_exceeded' });
  const broken = stage.simulator.faults.add({ kind: 'error', status: 503, route: 'destroy' });
  expect(await tight.destroy(reserved[0]?.instanceId ?? '', { now: true })).toMatchObject({ status: 'destroying' });
  await expect(more()).rejects.toMatchObject({ code: 'budget_exceeded' });
  stage.simulator.faults.remove(broken.id);
  await until('gone', () => tight.state.get().cost.usdPerHour === 0);
  expect((await more()).count).toBe(1);
  expect(tight.state.get().cost.maxUsdPerHour).toBeCloseTo(rate * 1.2, 6);
});

test('what is spent today begins at local midnight, for what is open, what has ended and what was prepaid', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'gpuproxy-spend-'));
  try {
    using ledger = openLedger(dataDir);
    const spend = createSpend(ledger);
    const midnight = new Date(2026, 5, 15).getTime();
    const rental = (label: string, billedFrom: number | null, usdPerHour: number) =>
      ({ label, billedFrom, diskFrom: null, usdPerHour }) as Rental;
    const open = rental('open', midnight - 2 * hour, 1);
    expect(spend.totals([open], midnight - hour)).toEqual({ spentUsd: 1, spentTodayUsd: 1 });
    spend.prepaid('prepaid', 5, midnight - hour);
    spend.close(rental('yesterday', midnight - 4 * hour, 1), midnight - 3 * hour);
    expect(spend.totals([open], midnight - hour).spentTodayUsd).toBeCloseTo(7, 9);
    // Past midnight, all of that is of yesterday but what still runs.
    expect(spend.totals([open], midnight + hour)).toEqual({ spentUsd: 9, spentTodayUsd: 1 });
    spend.close(rental('over midnight', midnight - 3 * hour, 1), midnight + hour);
    const { spentUsd, spentTodayUsd } = spend.totals([open], midnight + hour);
    expect([spentUsd, spentTodayUsd]).toEqual([13, 2]);
    // A clock that was set back charges nothing negative.
    const back = spend.totals([open], midnight - 5 * hour);
    expect(back.spentTodayUsd).toBeGreaterThanOrEqual(0);
    expect(createSpend(ledger).totals([open], midnight + hour)).toEqual({ spentUsd: 13, spentTodayUsd: 2 });
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});
