import { afterEach, describe, expect, test, vi } from 'vitest';
import { AppError, type CancelResult, type ReserveResult } from '../../src/fleet/app.ts';
import { createDashboard, type Dashboard, type DashboardSettings } from '../../src/tui/dashboard.ts';
import { textOf } from '../../src/tui/line.ts';
import { createFakeApp, type FakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

/** A dashboard whose reservation of four GPUs is under way until the test lets it end. */
async function renting(settings: Partial<DashboardSettings> = {}) {
  const fake = createFakeApp();
  const answer = Promise.withResolvers<ReserveResult>();
  const cancelled = Promise.withResolvers<CancelResult>();
  const cancels: [key: string, keep: boolean][] = [];
  let used = '';
  const app: FakeApp = {
    ...fake,
    async reserve(request, options) {
      used = options?.idempotencyKey ?? '';
      const { upstreams, reservations } = fake.state.get();
      const result = await fake.reserve(request, options);
      // Two of four are rented, the others wait for their answers.
      fake.show((now) => ({
        ...now,
        upstreams: [
          ...upstreams,
          ...now.upstreams
            .filter((row) => row.reservation === 'r-0200')
            .map((row, index) =>
              index < 2
                ? row
                : { ...row, contract: null, state: 'RESERVING', lifecycle: { phase: 'reserving' as const, at: 0 } },
            ),
        ],
        reservations: [
          ...reservations,
          ...now.reservations
            .filter((item) => item.id === 'r-0200')
            .map((item) => ({ ...item, state: 'renting' as const })),
        ],
      }));
      void result;
      return answer.promise;
    },
    async cancel(key, options) {
      cancels.push([key, options?.keep ?? false]);
      return cancelled.promise;
    },
  };
  const dashboard = createDashboard({ columns: 160, rows: 45, color: 0, now: app.now, ...settings, app });
  open.push(dashboard);
  const screen = () => dashboard.lines().map(textOf).join('\n');
  const press = (...keys: string[]) => dashboard.press(keys);
  press('r', '4');
  await vi.waitFor(() => expect(screen()).toContain('4 of 4 GPUs'));
  press('enter');
  fake.tick(400);
  press('4', 'enter');
  await vi.waitFor(() => expect(screen()).toMatch(/Renting 4 GPUs: 2 of 4 instances rented/));
  fake.tick(400);
  return { fake, dashboard, screen, press, answer, cancelled, cancels, key: () => used };
}

const nothing = { reservation: 'r-0200', kept: [], released: [], pending: [] };
const rented: ReserveResult = { reservation: 'r-0200', reserved: [], count: 2, requested: 4, errors: ['cancelled'] };

describe('Esc while something is being rented', () => {
  test('asks, and shows how far each instance is', async () => {
    const { fake, screen, press, cancels, dashboard } = await renting();
    expect(screen()).toMatch(/BOOT[\s\S]*RESERVING/);
    press('escape');
    for (const choice of ['Let it go on in the background', 'Stop, and keep what is rented', 'give everything back']) {
      expect(screen()).toContain(choice);
    }
    // The question itself stops nothing.
    fake.tick(400);
    dashboard.press(['escape']);
    expect(cancels).toEqual([]);
    expect(screen()).not.toContain('STOP RENTING?');
    expect(dashboard.overlays).toHaveLength(1);
  });

  test('gives back what was rented when that is chosen, and says which', async () => {
    const { fake, dashboard, screen, press, answer, cancelled, cancels, key } = await renting();
    press('escape');
    fake.tick(400);
    press('down', 'down', 'enter');
    expect(cancels).toEqual([[key(), false]]);
    expect(key()).not.toBe('');
    expect(screen()).toContain('Stopping: waiting for the paid calls under way, then all is given back');
    answer.reject(new AppError('incomplete', 'r-0200 cancelled: 2 rented instances are given back'));
    cancelled.resolve({ ...nothing, released: ['vast-1'], pending: ['vast-2'] });
    await vi.waitFor(() => expect(dashboard.overlays).toEqual([]));
    await vi.waitFor(() =>
      expect(screen()).toContain(
        'r-0200 cancelled: 1 instance given back, 1 instance not confirmed yet: tried until the provider does',
      ),
    );
  });

  test('keeps what is rented by then when that is chosen, and says how many', async () => {
    const { fake, screen, press, answer, cancelled, cancels, key } = await renting();
    press('escape');
    fake.tick(400);
    press('down', 'enter');
    expect(cancels).toEqual([[key(), true]]);
    answer.resolve(rented);
    cancelled.resolve({ ...nothing, kept: ['vast-1', 'vast-2'] });
    await vi.waitFor(() => expect(screen()).toContain('Reserved 2 GPUs (requested: 4)'));
    await vi.waitFor(() => expect(screen()).toContain('r-0200 cancelled: 2 instances kept'));
  });

  test('before the request has left, keeps it from being made', async () => {
    const fake = createFakeApp();
    const price = Promise.withResolvers<void>();
    let plans = 0;
    const app: FakeApp = {
      ...fake,
      async plan(request) {
        plans += 1;
        // The last look at the price takes its time.
        if (plans > 2) await price.promise;
        return fake.plan(request);
      },
    };
    const dashboard = createDashboard({ columns: 160, rows: 45, color: 0, now: app.now, app });
    open.push(dashboard);
    const screen = () => dashboard.lines().map(textOf).join('\n');
    dashboard.press(['r', '4']);
    await vi.waitFor(() => expect(screen()).toContain('4 of 4 GPUs'));
    plans = 2;
    dashboard.press(['enter']);
    fake.tick(400);
    dashboard.press(['4', 'enter']);
    await vi.waitFor(() => expect(screen()).toContain('the price is asked for again'));
    fake.tick(400);
    dashboard.press(['escape']);
    fake.tick(400);
    dashboard.press(['down', 'down', 'enter']);
    price.resolve();
    await vi.waitFor(() => expect(dashboard.overlays).toEqual([]));
    expect(screen()).toContain('cancelled: nothing had been rented');
    expect(app.calls.filter(([name]) => name === 'reserve' || name === 'cancel')).toEqual([]);
  });

  test('is told again where the server learnt of the request too late', async () => {
    const { fake, dashboard, screen, press, answer, cancels, cancelled } = await renting();
    press('escape');
    fake.tick(400);
    press('down', 'down', 'enter');
    expect(cancels).toHaveLength(1);
    answer.resolve({ ...rented, count: 4 });
    cancelled.resolve({ ...nothing, released: ['vast-1', 'vast-2'] });
    await vi.waitFor(() => expect(dashboard.overlays).toEqual([]));
    expect(cancels).toHaveLength(2);
    await vi.waitFor(() => expect(screen()).toContain('r-0200 cancelled: 2 instances given back'));
  });

  test('lets it go on out of sight when that is chosen, and the end is told all the same', async () => {
    const { fake, dashboard, screen, press, answer, cancels } = await renting();
    press('escape');
    fake.tick(400);
    press('enter');
    expect(dashboard.overlays).toEqual([]);
    expect(cancels).toEqual([]);
    answer.resolve({ ...rented, count: 4 });
    await vi.waitFor(() => expect(screen()).toContain('r-0200: reserved 4 of 4 GPUs'));
  });

  test('has nothing left to ask once the answer is there', async () => {
    const { fake, dashboard, screen, press, answer } = await renting();
    press('escape');
    fake.tick(400);
    expect(screen()).toContain('STOP RENTING?');
    answer.resolve({ ...rented, count: 4 });
    await vi.waitFor(() => expect(screen()).not.toContain('STOP RENTING?'));
    expect(screen()).toContain('Reserved 4 GPUs (requested: 4)');
    expect(dashboard.overlays).toHaveLength(1);
  });
});

describe('q while something is being rented', () => {
  test('asks first, gives back and leaves when that is chosen', async () => {
    let quits = 0;
    const { fake, dashboard, screen, press, answer, cancelled, cancels } = await renting({
      onQuit: () => (quits += 1),
    });
    press('escape');
    fake.tick(400);
    press('enter');
    press('q');
    expect(quits).toBe(0);
    expect(screen()).toMatch(/QUIT\?[\s\S]*Still being rented: 4 GPUs/);
    fake.tick(400);
    press('escape');
    expect(dashboard.overlays).toEqual([]);
    press('ctrl-c');
    fake.tick(400);
    press('down', 'down', 'enter');
    expect(cancels.map(([, keep]) => keep)).toEqual([false]);
    expect(quits).toBe(0);
    answer.reject(new AppError('incomplete', 'cancelled'));
    cancelled.resolve(nothing);
    await vi.waitFor(() => expect(quits).toBe(1));
    press('q');
    expect(quits).toBe(2);
  });

  test.each([
    ['whether to stop', 0],
    ['whether to quit', 1],
  ])('Ctrl-C in the question %s leaves at once: whoever presses it again means it', async (_question, background) => {
    let quits = 0;
    const { fake, screen, press } = await renting({ onQuit: () => (quits += 1) });
    if (background) {
      press('escape');
      fake.tick(400);
      press('enter');
    }
    press('ctrl-c');
    expect(screen()).toContain(background ? 'QUIT?' : 'STOP RENTING?');
    fake.tick(400);
    expect(quits).toBe(0);
    press('ctrl-c');
    expect(quits).toBe(1);
  });

  test('stays when it could not be stopped, and says why', async () => {
    let quits = 0;
    const { fake, screen, press, cancelled } = await renting({ onQuit: () => (quits += 1) });
    press('escape');
    fake.tick(400);
    press('enter', 'q');
    fake.tick(400);
    press('down', 'enter');
    cancelled.reject(new AppError('disconnected', 'connection reset'));
    await vi.waitFor(() => expect(screen()).toContain('cancel: connection reset'));
    expect(quits).toBe(0);
  });
});
