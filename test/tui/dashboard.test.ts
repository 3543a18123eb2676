import { afterEach, describe, expect, test, vi } from 'vitest';
import { commands as cliCommands } from '../../src/cli/index.ts';
import { AppError } from '../../src/fleet/app.ts';
import { commandForKey, commands } from '../../src/tui/commands.ts';
import {
  type ConnectionSource,
  createDashboard,
  type Dashboard,
  type DashboardSettings,
} from '../../src/tui/dashboard.ts';
import { paneIds } from '../../src/tui/layout.ts';
import { textOf } from '../../src/tui/line.ts';
import { commandsFor } from '../../src/tui/overlays/palette.ts';
import { themes } from '../../src/tui/theme.ts';
import type { Connection } from '../../src/tui/view.ts';
import { createFakeApp, type FakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function start(settings: Partial<DashboardSettings> = {}): {
  app: FakeApp;
  dashboard: Dashboard;
  screen: () => string;
  press: (...keys: string[]) => void;
} {
  const app = (settings.app as FakeApp | undefined) ?? createFakeApp();
  const dashboard = createDashboard({ columns: 160, rows: 45, color: 0, now: app.now, ...settings, app });
  open.push(dashboard);
  return {
    app,
    dashboard,
    screen: () => dashboard.lines().map(textOf).join('\n'),
    press: (...keys) => dashboard.press(keys),
  };
}

/** Lets answers of the app arrive. */
const settle = async () => {
  for (let i = 0; i < 5; i += 1) await new Promise((done) => setImmediate(done));
};
const callsOf = (app: FakeApp, name: string) => app.calls.filter(([called]) => called === name);

describe('the strategy', () => {
  test('is switched at once by the digits of the guide, from any pane', async () => {
    const { app, press, screen } = start();
    for (const [digit, name] of [
      ['2', 'equal_weighted'],
      ['3', 'weighted_round_robin'],
      ['4', 'least_connections'],
      ['5', 'least_response_time'],
      ['1', 'round_robin'],
    ] as const) {
      press('tab', digit);
      await settle();
      expect(app.state.get().strategy.name).toBe(name);
      expect(screen()).toContain(`CLI gpuproxy lb-strategy ${name}`);
    }
  });

  test('goes back with u within ten seconds, and not later', async () => {
    const { app, press, screen } = start();
    press('4');
    await settle();
    expect(screen()).toContain('undo (10 s)');
    press('u');
    await settle();
    expect(app.state.get().strategy.name).toBe('round_robin');
    press('5');
    await settle();
    app.tick(10_001);
    press('u');
    await settle();
    expect(app.state.get().strategy.name).toBe('least_response_time');
    expect(screen()).toContain('nothing to undo');
  });

  test('is applied by Enter in the picker and kept by Escape', async () => {
    const { app, press } = start();
    press('s', 'j', 'j', 'escape');
    await settle();
    expect(callsOf(app, 'setStrategy')).toEqual([]);
    press('s', 'j', 'j', 'enter');
    await settle();
    expect(app.state.get().strategy.name).toBe('weighted_round_robin');
  });

  test('that cannot be switched says why and stays', async () => {
    const { app, press, screen } = start();
    app.fail('setStrategy', new AppError('conflict', 'bob changed it 4 s ago'));
    press('4');
    await settle();
    expect(screen()).toContain('ERROR switching to least_connections: bob changed it 4 s ago');
    expect(app.state.get().strategy.name).toBe('round_robin');
  });

  test('is previewed by the model while the cursor moves', async () => {
    const { app, press, screen } = start({
      predict: (strategy, _requests, snapshot) => ({
        p95Ms: strategy === 'least_connections' ? 198 : 220,
        shares: new Map(snapshot.upstreams.map((row) => [row.id, 1 / snapshot.upstreams.length])),
      }),
    });
    press('s', 'j', 'j', 'j');
    await settle();
    expect(screen()).toContain('PREVIEW');
    expect(screen()).toMatch(/p95 whole answer +1\.\d+s → 198ms/);
    // Most of these requests were placed before the last switch: the model cannot be held against them.
    expect(screen()).toMatch(/model of 120[01] requests, unchecked/);
    app.show((snapshot) => ({ ...snapshot, strategy: { ...snapshot.strategy, since: snapshot.startedAt } }));
    press('k', 'j');
    await settle();
    expect(screen()).toMatch(/model of 120[01] requests, error \d+%/);
    expect(app.calls.some(([name]) => name === 'setStrategy')).toBe(false);
  });
});

describe('the selection', () => {
  test('follows the instance when rows move', () => {
    const { app, dashboard, press } = start();
    press('j', 'j', 'j');
    const before = dashboard.view().selected?.id;
    press('o', 'a');
    expect(dashboard.view().selected?.id).toBe(before);
    app.show((snapshot) => ({ ...snapshot, upstreams: [...snapshot.upstreams].reverse() }));
    press('O');
    expect(dashboard.view().selected?.id).toBe(before);
  });

  test('counts every key that arrives in one chunk', () => {
    const { dashboard, press } = start();
    const { rows } = dashboard.view();
    press('j', 'j', 'j', 'j');
    expect(dashboard.view().selected?.id).toBe(rows[4]?.id);
    press('G');
    expect(dashboard.view().selected?.id).toBe(rows.at(-1)?.id);
    press('g', 'k');
    expect(dashboard.view().selected?.id).toBe(rows[0]?.id);
  });

  test('moves to a neighbour when its instance is gone', () => {
    const { app, dashboard, press } = start();
    press('G');
    const gone = dashboard.view().selected?.id;
    app.show((snapshot) => ({ ...snapshot, upstreams: snapshot.upstreams.filter((row) => row.id !== gone) }));
    press('T');
    expect(dashboard.view().selected).not.toBeNull();
    expect(dashboard.view().selected?.id).not.toBe(gone);
  });

  test('rows keep their place for two seconds although figures change', () => {
    const { app, dashboard, press } = start();
    press('o', 'a');
    const order = dashboard.view().rows.map((row) => row.id);
    app.show((snapshot) => ({
      ...snapshot,
      upstreams: snapshot.upstreams.map((row) => (row.id === order.at(-1) ? { ...row, active: 10_000 } : row)),
    }));
    dashboard.changed();
    app.tick(250);
    dashboard.changed();
    expect(dashboard.view().rows.map((row) => row.id)).toEqual(order);
    app.tick(2500);
    dashboard.changed();
    expect(dashboard.view().rows[0]?.id).toBe(order.at(-1));
  });
});

describe('the filter', () => {
  const type = (press: (...keys: string[]) => void, text: string) =>
    press('/', ...[...text].map((letter) => (letter === ' ' ? 'space' : letter)), 'enter');

  test('understands text, exclusion, fields and comparisons', () => {
    for (const [query, check] of [
      ['rtx', (row) => row.gpuModel.includes('RTX')],
      ['!rtx', (row) => !row.gpuModel.includes('RTX')],
      ['prov:io', (row) => row.provider === 'io.net'],
      ['state:ok $<0.5', (row) => row.state === 'OK' && row.usdPerHour < 0.5],
      ['active>=20', (row) => row.active >= 20],
    ] as const satisfies readonly (readonly [
      string,
      (row: { gpuModel: string; provider: string; state: string; usdPerHour: number; active: number }) => boolean,
    ])[]) {
      const { app, dashboard, press } = start();
      type(press, query);
      const wanted = app.state.get().upstreams.filter(check);
      expect(
        dashboard
          .view()
          .rows.map((row) => row.id)
          .sort(),
      ).toEqual(wanted.map((row) => row.id).sort());
    }
  });

  test('that is not understood keeps the last good result and says what is wrong', () => {
    const { dashboard, press, screen } = start();
    press(
      '/',
      ...'prov:vast prov'
        .replace(' ', '\u0000')
        .split('')
        .map((key) => (key === '\u0000' ? 'space' : key)),
    );
    press(...'iderx>3'.split(''));
    expect(screen()).toContain('no field "providerx"');
    // It can be mended where it stands.
    press('enter');
    expect(dashboard.view().prompt).toMatchObject({ error: expect.stringContaining('no field "providerx"') });
    press('escape');
    expect(dashboard.view().filter).toBe('');
  });

  test('goes away with Escape', () => {
    const { app, dashboard, press } = start();
    type(press, 'state:down');
    expect(dashboard.view().rows.length).toBe(1);
    press('escape');
    expect(dashboard.view().rows.length).toBe(app.state.get().upstreams.length);
  });
});

describe('actions', () => {
  test('d drains, d again resumes, u takes it back', async () => {
    const { app, dashboard, press } = start();
    const id = dashboard.view().selected?.id ?? '';
    press('d');
    await settle();
    expect(app.calls.at(-1)).toEqual(['drain', id]);
    press('d');
    await settle();
    expect(app.calls.at(-1)).toEqual(['resume', id]);
    press('u');
    await settle();
    expect(app.calls.at(-1)).toEqual(['drain', id]);
  });

  test('marks make an action reach all of them', async () => {
    const { app, dashboard, press } = start();
    const ids = dashboard
      .view()
      .rows.slice(0, 3)
      .map((row) => row.id);
    press('space', 'space', 'space', 'd');
    await settle();
    expect(callsOf(app, 'drain').map(([, id]) => id)).toEqual(ids);
  });

  test('destroy needs the last four characters of the id', async () => {
    const { app, dashboard, press, screen } = start();
    const id = dashboard.view().selected?.id ?? '';
    press('x');
    expect(screen()).toContain('This cannot be undone');
    app.tick(400);
    press('enter');
    expect(screen()).toContain(`type ${id.slice(-4)} first`);
    press(...'wxyz', 'enter');
    expect(callsOf(app, 'destroy')).toEqual([]);
    press('ctrl-u', ...id.slice(-4), 'enter');
    await settle();
    expect(callsOf(app, 'destroy')).toEqual([['destroy', id, { now: false }]]);
  });

  test('a burst of keys that was on its way cannot confirm', async () => {
    const { app, dashboard, press } = start();
    const id = dashboard.view().selected?.id ?? '';
    press('x', ...id.slice(-4), 'enter');
    await settle();
    expect(callsOf(app, 'destroy')).toEqual([]);
    expect(dashboard.overlays.length).toBe(1);
  });

  test('destroying several needs their number, and says what the rest would carry', async () => {
    const { app, press, screen } = start();
    press('*', 'x');
    expect(screen()).toContain('Nothing would be left to answer requests');
    expect(screen()).toContain('Type 12, their number');
    app.tick(400);
    press('1', '2', 'enter');
    await settle();
    // The cursor begins on Cancel when nothing would be left.
    expect(callsOf(app, 'destroy')).toEqual([]);
  });

  test('w sets a weight and an empty one gives it back to the formula', async () => {
    const { app, dashboard, press } = start();
    const id = dashboard.view().selected?.id ?? '';
    press('w', '2', '.', '5', 'enter');
    await settle();
    expect(app.calls.at(-1)).toEqual(['setWeight', id, 2.5]);
    press('w', 'enter');
    await settle();
    expect(app.calls.at(-1)).toEqual(['setWeight', id, null]);
    press('w', 'x', 'enter');
    await settle();
    expect(callsOf(app, 'setWeight').length).toBe(2);
    press('escape');
    press('w', '5', '0', '0', 'enter');
    await settle();
    expect(app.calls.at(-1)).toEqual(['setWeight', id, 500]);
    press('>');
    await settle();
    expect(app.calls.at(-1)).toEqual(['setWeight', id, 501]);
  });

  test('> and < step a weight by one, without the rests of binary fractions', async () => {
    const { app, dashboard, press, screen } = start();
    const id = dashboard.view().selected?.id ?? '';
    press('w', '2', '.', '8', 'enter');
    await settle();
    press('<');
    await settle();
    expect(app.calls.at(-1)).toEqual(['setWeight', id, 1.8]);
    expect(screen()).toContain(`CLI gpuproxy weight ${id} 1.8 `);
    press('>');
    await settle();
    expect(app.calls.at(-1)).toEqual(['setWeight', id, 2.8]);
  });

  test('draining what is left of the rotation says that nothing takes requests then', async () => {
    const { app, press, screen } = start();
    press('d');
    await settle();
    expect(screen()).toMatch(/draining \S+: nothing new, in-flight requests finish/);
    press('*', 'd');
    await settle();
    expect(app.state.get().upstreams.filter((row) => row.eligible)).toEqual([]);
    expect(screen()).toMatch(/draining \d+ instances: nothing is left that takes requests/);
  });

  test('an undo under the message of something else names what it undoes', async () => {
    const { press, screen } = start();
    press('d');
    await settle();
    expect(screen()).toMatch(/ u undo \(\d+ s\)/);
    press('Y');
    await settle();
    expect(screen()).toMatch(/command: gpuproxy drain .* u undo drain \(\d+ s\)/);
    press('2');
    await settle();
    expect(screen()).toMatch(/equal_weighted.* u undo \(\d+ s\)/);
    press('R');
    await settle();
    expect(screen()).toMatch(/ u undo the strategy \(\d+ s\)/);
  });

  test('nothing is changed in a read-only dashboard, which says so', async () => {
    const { app, press, screen } = start({ readonly: true });
    for (const key of ['4', 'd', 'x', 'r', 'w', '>']) {
      press(key);
      expect(screen()).toContain('read-only');
    }
    await settle();
    expect(app.calls).toEqual([]);
    expect(screen()).toContain('[READ-ONLY]');
  });

  test('a key of the server that may only read makes it read-only, with the words of the server', async () => {
    const { app, press, screen } = start();
    app.fail('setStrategy', new AppError('read_only', 'this key may only read'));
    press('4');
    await settle();
    expect(screen()).toContain('[READ-ONLY]');
    press('d');
    expect(screen()).toContain('d: this key may only read');
    expect(callsOf(app, 'drain')).toEqual([]);
  });

  test('nothing is changed while the server is not reachable; what was known stays', async () => {
    const app = createFakeApp();
    const connection: ConnectionSource = {
      get: () => ({ state: 'stale', since: app.now() - 14_000, retryAt: app.now() + 4000, detail: 'ECONNREFUSED' }),
      subscribe: () => () => undefined,
      retry: () => {
        retries += 1;
      },
    };
    let retries = 0;
    const { press, screen } = start({ app, connection });
    expect(screen()).toContain('STALE 14s, retry in 4s (R now)');
    expect(screen()).toContain(app.state.get().upstreams[0]?.id);
    press('4');
    await settle();
    expect(screen()).toContain('disconnected');
    press('R');
    expect(retries).toBe(1);
    expect(app.calls).toEqual([]);
  });

  test('pasted text never acts; in a field it becomes one line', async () => {
    const { app, dashboard, press } = start();
    dashboard.paste('4\nxy\n');
    await settle();
    expect(app.calls).toEqual([]);
    press('/');
    dashboard.paste('prov:vast\nrm -rf\n');
    expect(dashboard.view().prompt?.text).toBe('prov:vast rm -rf');
  });
});

describe('a provider', () => {
  test('that fails says why in the pane at every size, in full where there is room', () => {
    const app = createFakeApp();
    const message = 'HTTP 401: the API key was refused by the marketplace, which says that it never knew it';
    app.show((snapshot) => ({
      ...snapshot,
      providers: snapshot.providers.map((provider) => ({
        ...provider,
        status: 'error' as const,
        lastError: { at: app.now(), code: 'auth', message },
      })),
    }));
    const { dashboard, screen } = start({ app });
    for (const [columns, rows] of [
      [100, 28],
      [120, 35],
      [160, 45],
    ] as const) {
      dashboard.resize(columns, rows);
      for (const name of ['vast\\.ai', 'io\\.net']) {
        expect(screen(), `${columns}x${rows}`).toMatch(new RegExp(`${name}: HTTP 401: the API key was re`));
      }
    }
    expect(screen()).toMatch(/never[\s\S]*knew[\s\S]*it/);
  });

  test('tells with i how its API does', () => {
    const { press, screen } = start();
    press('P', 'i');
    expect(screen()).toContain('PROVIDER vast.ai');
    expect(screen()).toMatch(/API +OK +answers in 182ms/);
    expect(screen()).toMatch(/rentable +42 instances/);
    press('escape');
    expect(screen()).not.toContain('PROVIDER vast.ai');
  });
});

describe('destroying', () => {
  test('says how much of prepaid time is lost', () => {
    const { app, dashboard, press, screen } = start();
    const prepaid = app.state.get().upstreams.find((row) => row.expiresAt !== null);
    app.show((now) => ({
      ...now,
      upstreams: now.upstreams.map((row) =>
        row.id === prepaid?.id ? { ...row, usdPerHour: 2, expiresAt: app.now() + 5_400_000 } : row,
      ),
    }));
    dashboard.update({ selectedId: prepaid?.id ?? null });
    press('x');
    expect(screen()).toContain('$3.00 of prepaid time is not used and stays booked');
    app.tick(400);
    press('escape');
    dashboard.update({ selectedId: app.state.get().upstreams.find((row) => row.expiresAt === null)?.id ?? null });
    press('x');
    expect(screen()).not.toContain('prepaid time');
  });
});

describe('reserving', () => {
  test('shows the price, asks for the number, takes the quote again and rents once', async () => {
    const { app, press, screen } = start();
    press('r', '4');
    await vi.waitFor(() => expect(screen()).toContain('4 of 4 GPUs'));
    expect(screen()).toMatch(/\$\d+\.\d\d\/h, about \$\d+\.\d\d a day/);
    expect(screen()).toContain('CLI gpuproxy reserve 4 --yes');
    press('enter');
    expect(screen()).toContain('Type 4 and enter to spend');
    app.tick(400);
    press('enter');
    expect(screen()).toContain('type 4 to confirm');
    press('4', 'enter');
    await settle();
    expect(callsOf(app, 'reserve').length).toBe(1);
    const lastPlan = app.calls.findLastIndex(([name]) => name === 'plan');
    expect(lastPlan).toBe(app.calls.findIndex(([name]) => name === 'reserve') - 1);
    expect(screen()).toContain('Reserved 4 GPUs (requested: 4)');
    expect(screen()).toContain('0 of 4 in rotation');
  });

  test('a plan for other wishes is never confirmed', async () => {
    const { app, press, screen } = start();
    press('r');
    await vi.waitFor(() => expect(screen()).toContain('1 of 1 GPU:'));
    press('8', 'enter');
    // Enter waits for the price of what was typed, and leads to the question, not to the purchase.
    expect(screen()).toContain('asking the providers, then on');
    await vi.waitFor(() => expect(screen()).toContain('Reserve 8 GPUs'));
    expect(callsOf(app, 'reserve')).toEqual([]);
  });

  test('a partial one names the price of what is missing, and n leads to that question', async () => {
    const fake = createFakeApp();
    const app: FakeApp = {
      ...fake,
      reserve: async (request, options) => ({
        ...(await fake.reserve({ ...request, count: 1 }, options)),
        requested: request.count,
        errors: ['2 offers are gone'],
      }),
    };
    const { press, screen } = start({ app });
    press('r', '3');
    await vi.waitFor(() => expect(screen()).toContain('3 of 3 GPUs'));
    press('enter');
    fake.tick(400);
    press('3', 'enter');
    await vi.waitFor(() => expect(screen()).toMatch(/k keep 1 +n next best: 2 more at \$[\d.]+\/h +x release all/));
    expect(callsOf(app, 'reserve').length).toBe(1);
    fake.tick(400);
    press('n');
    expect(screen()).toContain('Reserve 2 GPUs');
    expect(callsOf(app, 'reserve').length).toBe(1);
  });

  test('a price that rose stops it and shows both prices', async () => {
    const { app, press, screen } = start();
    const plan = app.plan.bind(app);
    let factor = 1;
    app.plan = async (request) => {
      const answer = await plan(request);
      return { ...answer, usdPerHour: answer.usdPerHour * factor };
    };
    press('r', '2');
    await vi.waitFor(() => expect(screen()).toContain('2 of 2 GPUs'));
    press('enter');
    app.tick(400);
    factor = 1.2;
    press('2', 'enter');
    await settle();
    expect(screen()).toContain('The price rose from');
    expect(callsOf(app, 'reserve')).toEqual([]);
  });

  test('a lost answer is asked for again with the same key, an answered refusal with a new one', async () => {
    const { app, press, screen } = start();
    const confirm = async () => {
      await vi.waitFor(() => expect(screen()).toContain('1 of 1 GPU:'));
      press('enter');
      app.tick(400);
      press('1', 'enter');
      await settle();
    };
    press('r');
    app.fail('reserve', new AppError('disconnected', 'connection reset'));
    await confirm();
    app.fail('reserve', new AppError('budget_exceeded', 'MAX_USD_PER_HOUR'));
    await confirm();
    await confirm();
    const keys = callsOf(app, 'reserve').map(([, , key]) => key);
    expect(keys.length).toBe(3);
    expect(keys[1]).toBe(keys[0]);
    expect(keys[2]).not.toBe(keys[1]);
  });

  test('bad input names the field, what came and what is accepted', async () => {
    const { press, screen } = start();
    press('r', '1', '7');
    expect(screen()).toContain('count: got "17", accepts a whole number from 1 to 16');
  });
});

describe('time', () => {
  test('stands still while frozen, and can be walked back', () => {
    const { app, dashboard, press, screen } = start();
    for (let i = 0; i < 20; i += 1) {
      app.tick(1000);
      press('T');
    }
    press('p');
    const frozen = screen();
    expect(frozen).toMatch(/PAUSED at \d\d:\d\d:\d\d/);
    app.tick(5000);
    dashboard.changed();
    expect(screen()).toBe(frozen);
    const at = dashboard.view().snapshot.at;
    press('left', 'left', 'left');
    expect(dashboard.view().snapshot.at).toBeLessThan(at);
    press('right', 'right', 'right');
    expect(dashboard.view().snapshot.at).toBe(at);
    press('p');
    expect(dashboard.view().snapshot.at).toBe(app.now());
  });
});

test('a refusal is gone with what it is of, not only when its time has run out', () => {
  const { press, screen } = start();
  press('p', 'd');
  expect(screen()).toContain('d: the picture is frozen: p continues');
  press('j');
  expect(screen()).toContain('d: the picture is frozen: p continues');
  press('p');
  expect(screen()).not.toContain('the picture is frozen');

  let connection: Connection = { state: 'stale', since: 0, retryAt: null, detail: 'ECONNREFUSED' };
  const lost = start({ connection: { get: () => connection, subscribe: () => () => undefined } });
  lost.press('r');
  expect(lost.screen()).toContain('r: disconnected: nothing can be changed until the server answers again');
  connection = { ...connection, state: 'live', detail: null };
  lost.dashboard.changed();
  expect(lost.screen()).not.toContain('disconnected');
});

describe('the registry of commands', () => {
  test('no key means two things in one pane', () => {
    for (const pane of paneIds) {
      for (const scope of [pane, 'list', 'global'] as const) {
        const keys = commands.filter((command) => command.scope === scope).flatMap((command) => command.keys);
        expect(new Set(keys).size, `${pane} ${scope}: ${keys.join(' ')}`).toBe(keys.length);
      }
    }
  });

  test('every command can be found by its id, has a title, and does not throw in any pane', async () => {
    expect(new Set(commands.map((command) => command.id)).size).toBe(commands.length);
    for (const pane of paneIds) {
      const { dashboard } = start({ columns: 80, rows: 24 });
      for (const command of commands) {
        // What has no key is run by the palette, which goes to the pane first.
        if (command.keys.length === 0 && pane !== 'instances') continue;
        for (const overlay of dashboard.overlays) dashboard.close(overlay);
        dashboard.press(['escape']);
        dashboard.update({ focus: pane });
        expect(command.title.length).toBeGreaterThan(3);
        dashboard.run(command);
        dashboard.changed();
        command.cli?.(dashboard);
      }
      await settle();
    }
  });

  test('a pane has its own meaning of a key before that of everywhere', () => {
    expect(commandForKey('enter', 'instances')?.id).toBe('details');
    expect(commandForKey('enter', 'strategy')?.id).toBe('apply-strategy');
    expect(commandForKey('enter', 'providers')?.id).toBe('offers');
    expect(commandForKey('x', 'reservations')?.id).toBe('release');
    expect(commandForKey('q', 'events')?.id).toBe('quit');
  });

  test('the palette finds a command by some of its letters and runs it', async () => {
    const { app, press, screen } = start();
    press(':', ...'swleastresp'.split(''));
    expect(screen()).toContain('CLI gpuproxy lb-strategy least_response_time');
    press('enter');
    await settle();
    expect(app.state.get().strategy.name).toBe('least_response_time');
  });

  test('who types the whole name of a command gets that one, of the dashboard or of the command line, or none', () => {
    for (const command of commands) {
      expect(commandsFor(command.id, commands)[0]?.id).toBe(command.id);
      expect(commandsFor(command.title, commands)[0]?.title).toBe(command.title);
    }
    for (const { name } of cliCommands) {
      const [first] = commandsFor(name, commands);
      const known = `${first?.id} ${first?.title} ${first?.also ?? ''}`.toLowerCase().split(/[^a-z]+/);
      if (first !== undefined) for (const word of name.split('-')) expect(known, name).toContain(word);
    }
    for (const [typed, id] of [
      ['list', 'offers'],
      ['fleet', 'pane-instances'],
      ['lb-strategy', 'pane-strategy'],
      ['reserv', 'reserve'],
      ['dest', 'destroy'],
      ['round_robin', 'strategy-round_robin'],
    ] as const) {
      expect(commandsFor(typed, commands)[0]?.id, typed).toBe(id);
    }
    for (const typed of ['xyz', 'cost', 'iss', '?']) expect(commandsFor(typed, commands), typed).toEqual([]);
  });

  test('help lists every command and can be searched', () => {
    const { press, screen } = start({ columns: 100, rows: 30 });
    press('?');
    const below =
      screen()
        .split('\n')
        .find((line) => line.includes('Next pane')) ?? '';
    press('pagedown');
    expect(screen()).not.toContain(below);
    press('pageup');
    expect(screen()).toContain(below);
    press('/', ...'destroy'.split(''));
    expect(screen()).toContain('Destroy (asks first)');
    expect(screen()).not.toContain('Freeze the picture');
  });
});

describe('quitting', () => {
  test('leaves no timer behind, also with a page open', () => {
    vi.useFakeTimers();
    try {
      const { dashboard, press } = start();
      press('enter');
      press('r');
      dashboard.dispose();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test('while real GPUs are being rented asks once more; on a simulated fleet it does not', () => {
    for (const simulated of [false, true]) {
      let quits = 0;
      const app = createFakeApp();
      app.show((snapshot) => ({
        ...snapshot,
        mode: { ...snapshot.mode, simulated },
        reservations: snapshot.reservations.map((item) => ({ ...item, state: 'renting' as const })),
      }));
      const { dashboard, press, screen } = start({ app, onQuit: () => (quits += 1) });
      press('q');
      expect(quits).toBe(simulated ? 1 : 0);
      if (simulated) continue;
      expect(screen()).toContain('goes on being paid: q again to quit');
      // After three seconds one q is no longer enough, so it is not promised either.
      app.tick(3000);
      dashboard.changed();
      expect(screen()).not.toContain('q again');
      press('q');
      expect(quits).toBe(0);
      press('q');
      expect(quits).toBe(1);
    }
  });

  test('is asked for by q and by Ctrl-C, and closes a dialog first', () => {
    let quits = 0;
    const { dashboard, press } = start({ onQuit: () => (quits += 1) });
    press('?', 'q');
    expect(quits).toBe(0);
    expect(dashboard.overlays).toEqual([]);
    press('q');
    press('ctrl-c');
    expect(quits).toBe(2);
  });
});

test('a message runs out and an undo counts down while the picture is frozen', async () => {
  const { app, dashboard, press, screen } = start();
  press('d');
  await settle();
  press('p');
  expect(screen()).toContain('u undo (10 s)');
  app.tick(4000);
  await vi.waitFor(() => expect(screen()).toContain('u undo (6 s)'), { timeout: 5000 });
  app.tick(7000);
  await vi.waitFor(() => expect(screen()).not.toContain('undo ('), { timeout: 5000 });
  expect(dashboard.view().pausedAt).not.toBeNull();
});

test('preferences are kept, and what cannot be understood falls back', () => {
  let kept: unknown = { theme: 'no such theme', refreshMs: 1000, sort: { column: 'active', reverse: true } };
  const preferences = { read: () => kept, write: (value: unknown) => (kept = value) };
  const { dashboard, press } = start({ preferences });
  expect(dashboard.ui.theme).toBe('terminal');
  expect(dashboard.ui.refreshMs).toBe(1000);
  expect(dashboard.ui.sort).toEqual({ column: 'active', reverse: true });
  press('t');
  expect(kept).toMatchObject({ theme: 'dark', refreshMs: 1000 });
});

test('the detail page shows the three states with their reasons, latency, requests, decisions and logs', async () => {
  const { app, dashboard, press, screen } = start();
  const down = app.state.get().upstreams.find((row) => row.state === 'DOWN');
  dashboard.update({ selectedId: down?.id ?? null });
  press('enter');
  await settle();
  expect(screen()).toMatch(/provider says running/);
  expect(screen()).toMatch(/operator says ready/);
  expect(screen()).toMatch(/traffic says ejected +connect ECONNREFUSED; 3 in a row/);
  expect(screen()).toContain('NOT eligible');
  expect(screen()).toContain('TIME TO FIRST BYTE');
  press('tab');
  expect(screen()).toContain('POST /v1/chat/completions');
  press('tab');
  expect(screen()).toMatch(/excluded: at its ceiling/);
  press('tab');
  await settle();
  expect(screen()).toContain('Uvicorn running');
  press('escape');
  expect(dashboard.overlays).toEqual([]);
});

test('logs show their newest lines and follow them, until one scrolls up', async () => {
  const app = createFakeApp();
  let count = 100;
  app.logs = async () => Array.from({ length: count }, (_, index) => `line ${index + 1} of the log`);
  const { press, screen } = start({ app, columns: 80, rows: 24 });
  press('l');
  await settle();
  expect(screen()).toContain('line 100 of the log');
  expect(screen()).not.toContain('line 1 of the log');
  count = 120;
  await vi.waitFor(() => expect(screen()).toContain('line 120 of the log'), { timeout: 8000 });
  press('pageup', 'k');
  expect(screen()).not.toContain('line 120 of the log');
  const kept = screen().match(/line \d+ of the log/)?.[0] ?? '';
  count = 140;
  await new Promise((done) => setTimeout(done, 2200));
  expect(screen()).toContain(kept);
  press('g');
  expect(screen()).toContain('line 1 of the log');
  press('G');
  await vi.waitFor(() => expect(screen()).toContain('line 140 of the log'), { timeout: 8000 });
}, 30_000);

test('offers can be browsed, filtered and rented with a confirmation', async () => {
  const { app, press, screen } = start();
  press('P', 'enter');
  await settle();
  expect(screen()).toMatch(/\d+ of 20 offers, vast\.ai/);
  press('/', ...'h100'.split(''), 'enter');
  expect(screen()).toMatch(/4 of 20 offers/);
  press('enter');
  expect(screen()).toContain('Rent H100 SXM');
  app.tick(400);
  press('enter');
  await settle();
  expect(callsOf(app, 'rentOffer')).toEqual([]);
  press('enter');
  app.tick(400);
  press('up', 'enter');
  await settle();
  expect(callsOf(app, 'rentOffer').length).toBe(1);
  // y says yes to the question, whatever is under the cursor.
  press('enter', 'y');
  expect(callsOf(app, 'rentOffer').length).toBe(1);
  app.tick(400);
  press('y');
  await settle();
  expect(callsOf(app, 'rentOffer').length).toBe(2);
});

test('a minute after a previewed switch an event compares what was predicted with what came', async () => {
  const app = createFakeApp();
  const predict = () => ({ p95Ms: 198, shares: new Map<string, number>() });
  const { press, screen } = start({ app, predict });
  press('s', 'down', 'down', 'down');
  await vi.waitFor(() => expect(screen()).toContain('PREVIEW'));
  press('enter');
  await settle();
  expect(app.state.get().strategy.name).toBe('least_connections');
  app.tick(59_000);
  await new Promise((done) => setTimeout(done, 1100));
  expect(screen()).not.toContain('was predicted');
  app.tick(2000);
  await vi.waitFor(() => expect(screen()).toMatch(/least_connections: p95 198ms was predicted, [\d.]+m?s came/), {
    timeout: 5000,
  });
});

test('what failed stays to be read among the events, after its message is gone', async () => {
  const { app, press, screen } = start();
  app.fail('drain', new AppError('conflict', 'it is being destroyed'));
  press('d');
  await settle();
  app.tick(2000);
  press('j', 'j');
  expect(screen()).toMatch(/ERROR dashboard +drain: it is being destroyed/);
});

test('the loss of the server and its return are events, the second with the time between', async () => {
  const app = createFakeApp();
  let connection: Connection = { state: 'live', since: app.now(), retryAt: null, detail: null };
  let tell = () => {};
  const source: ConnectionSource = {
    get: () => connection,
    subscribe: (listener) => {
      tell = listener;
      return () => undefined;
    },
  };
  const { dashboard, screen } = start({ app, connection: source });
  connection = { state: 'stale', since: app.now(), retryAt: app.now() + 500, detail: 'ECONNREFUSED' };
  tell();
  tell();
  dashboard.changed();
  expect(screen()).toMatch(/WARN +connection +the server is lost \(ECONNREFUSED\); what is shown is old/);
  expect(screen()).toMatch(/Disconnected \(ECONNREFUSED\): what is shown is of \d\d:\d\d:\d\d/);
  app.tick(14_000);
  connection = { state: 'live', since: app.now(), retryAt: null, detail: null };
  tell();
  dashboard.changed();
  expect(screen()).toMatch(/OK +connection +the server is back after 14s/);
  expect(screen().match(/the server is lost/g)).toHaveLength(1);
});

test('filters that were used come back with up, also in the next session', () => {
  let kept: unknown = {};
  const preferences = { read: () => kept, write: (value: unknown) => (kept = value) };
  const first = start({ preferences });
  first.press('/', ...'prov:vast'.split(''), 'enter', 'escape');
  first.press('/', ...'state:ok'.split(''), 'enter', 'escape');
  expect(kept).toMatchObject({ filters: ['state:ok', 'prov:vast'] });
  const { dashboard, press, screen } = start({ preferences });
  press('/');
  expect(screen()).toContain('up earlier');
  press('up');
  expect(dashboard.ui.filter).toBe('state:ok');
  press('up', 'up');
  expect(dashboard.view().prompt?.text).toBe('prov:vast');
  press('down', 'down');
  expect(dashboard.view().prompt?.text).toBe('');
  press('escape');
  expect(dashboard.ui.filter).toBe('');
});

test('Y copies the command line of what was just done, else of what is shown', async () => {
  const copied: string[] = [];
  const { app, dashboard, press } = start({ copy: (text) => copied.push(text) > 0 });
  const id = dashboard.view().selected?.id ?? '';
  press('Y', 'P', 'Y', 's', 'down', 'Y', 'V', 'Y', 'E', 'Y', 'i', 'd');
  await settle();
  press('Y');
  expect(copied).toEqual([
    `gpuproxy fleet ${id}`,
    'gpuproxy list',
    'gpuproxy lb-strategy equal_weighted',
    'gpuproxy reservations',
    'gpuproxy events',
    `gpuproxy drain ${id}`,
  ]);
  press(':', ...'weighted round'.split(''), 'ctrl-y');
  expect(copied.at(-1)).toBe('gpuproxy lb-strategy weighted_round_robin');
  expect(callsOf(app, 'setStrategy')).toEqual([]);
});

test('the palette sorts, chooses a theme and finds an instance by a part of its id', () => {
  const { app, dashboard, press, screen } = start();
  press(':', ...'sort by p95'.split(''), 'enter');
  expect(dashboard.ui.sort).toEqual({ column: 'p95', reverse: false });
  press(':', ...'theme light'.split(''), 'enter');
  expect(dashboard.ui.theme).toBe('light');
  const id = app.state.get().upstreams[7]?.id ?? '';
  press(':', ...id.slice(-5).split(''));
  expect(screen()).toContain(`Details of ${id}`);
  press('enter');
  expect(screen()).toContain(`INSTANCES > ${id}`);
  expect(dashboard.ui.selectedId).toBe(id);
});

test('the footer names only what works here and now', () => {
  const { screen, dashboard } = start({ app: createFakeApp({ instances: 0 }) });
  const footer = () => screen().split('\n').at(-1) ?? '';
  expect(footer()).toContain('r reserve');
  for (const words of ['details', 'drain', 'destroy', 'mark']) expect(footer()).not.toContain(words);
  dashboard.update({ focus: 'reservations' });
  dashboard.changed();
  expect(footer()).not.toContain('release');
  const reader = start({ readonly: true });
  reader.press('enter');
  expect(reader.screen().split('\n').at(-1)).not.toMatch(/drain|destroy|weight/);
});

test('every pane that has the focus is on the screen, at every size', async () => {
  const { app, dashboard, press, screen } = start();
  for (const [columns, rows] of [
    [60, 15],
    [80, 24],
    [100, 28],
    [120, 35],
    [139, 60],
    [140, 36],
    [200, 60],
  ] as const) {
    dashboard.resize(columns, rows);
    press('escape', 'escape');
    for (const [key, shown] of [
      ['i', /INSTANCE +PROVIDER/],
      ['P', /AVAIL +\$\/H/],
      ['s', /weighted_round_robin/],
      ['V', /▸ r-0192/],
      ['E', /▸?\d\d:\d\d:\d\d WARN/],
    ] as const) {
      press(key);
      expect(screen(), `${columns}x${rows} ${key}`).toMatch(shown);
    }
  }
  dashboard.resize(120, 35);
  press('i');
  expect(screen()).toContain('V reserved 2 │ 70 available ──');
  press('V');
  expect(screen()).toContain('P providers 70');
  press('i');
  dashboard.resize(100, 30);
  expect(screen()).toContain('V reserved 2 │ 70 available ──');
  app.show((snapshot) => ({
    ...snapshot,
    providers: snapshot.providers.map((provider) => ({ ...provider, available: 12_345, more: true })),
  }));
  await vi.waitFor(() => expect(screen()).toMatch(/V reserved 2 ─+│/), { timeout: 5000 });
});

test('each strategy has its use case beside it, the one under the cursor in full', () => {
  const { dashboard, press, screen } = start();
  for (const words of [
    /round_robin +equal distribution /,
    /equal_weighted +fair over time /,
    /heterogeneous GPUs /,
    /real-time workloads/,
    /latency-sensitive /,
  ]) {
    expect(screen()).toMatch(words);
  }
  press('s', 'down');
  // Wrapped, not cut.
  expect(screen()).toMatch(/fewest total, ever: long-running workloads, +\n.*fair over time /);
  dashboard.resize(80, 24);
  for (const words of [
    'equal distribution, testing',
    'long-running workloads, fair over time',
    'heterogeneous GPUs, performance vs cost',
    'real-time workloads, variable duration',
    'latency-sensitive apps, inference',
  ]) {
    expect(screen()).toContain(words);
  }
});

test('a preview is seen, with what it is worth, at every size that shows the pane', async () => {
  for (const [columns, rows] of [
    [60, 15],
    [80, 24],
    [100, 28],
    [120, 35],
    [140, 36],
    [160, 45],
  ] as const) {
    for (const glyphs of ['unicode', 'ascii'] as const) {
      const app = createFakeApp();
      app.show((snapshot) => ({ ...snapshot, strategy: { ...snapshot.strategy, since: snapshot.startedAt } }));
      const { press, screen } = start({
        app,
        columns,
        rows,
        glyphs,
        predict: (_name, _requests, snapshot) => ({
          p95Ms: 198,
          shares: new Map(snapshot.upstreams.map((row) => [row.id, 1 / snapshot.upstreams.length])),
        }),
      });
      press('s', 'j', 'j', 'j');
      await settle();
      expect(screen(), `${columns}x${rows} ${glyphs}`).toMatch(/p95 .*(→|->) ?198ms/);
      expect(screen(), `${columns}x${rows} ${glyphs}`).toMatch(/hot.*(→|->) ?8\.3%/);
      expect(screen(), `${columns}x${rows} ${glyphs}`).toMatch(/model.* err(or)? \d+%/);
    }
  }
});

test('a dialog shows its choices and what must be typed at every size', () => {
  for (const [columns, rows] of [
    [160, 45],
    [80, 24],
    [60, 15],
    [52, 12],
    [40, 10],
  ] as const) {
    const { app, press, screen } = start({ columns, rows });
    press('x');
    expect(screen(), `${columns}x${rows}`).toContain('Drain first, then destroy');
    expect(screen(), `${columns}x${rows}`).toContain('Cancel');
    expect(screen(), `${columns}x${rows}`).toMatch(/Type the last 4/);
    app.tick(400);
    press('a', 'b', 'c');
    expect(screen(), `${columns}x${rows}`).toContain('[ abc_ ]');
    press('escape', '*', 'x');
    expect(screen(), `${columns}x${rows}`).toMatch(/Type 12/);
  }
});

test('a dialog shows the command line of the choice under the cursor', () => {
  const { app, dashboard, press, screen } = start();
  const id = dashboard.view().selected?.id ?? '';
  press('x');
  expect(screen()).toContain(`CLI gpuproxy destroy ${id} `);
  app.tick(400);
  press('down');
  expect(screen()).toContain(`CLI gpuproxy destroy ${id} --now`);
  press('down');
  expect(screen()).toContain(`CLI gpuproxy drain ${id}`);
  press('down');
  expect(screen()).not.toContain('CLI');
  press('escape', 'V', 'x');
  expect(screen()).toContain('CLI gpuproxy reservations release r-0192');
});

test('every theme gives every style its own look, and bad never looks like good', () => {
  for (const theme of Object.values(themes)) {
    const { sgr } = theme;
    expect(sgr.bad, theme.name).not.toBe(sgr.good);
    expect(sgr.bad, theme.name).not.toBe(sgr.warn);
    expect(sgr.selected, theme.name).not.toBe('');
    // In mono weight and underline speak alone.
    const colours = Object.values(sgr).filter((code) => /(^|;)(3[0-7]|9[0-7]|38|48)(;|$)/.test(code));
    if (theme.name === 'mono') expect(colours).toEqual([]);
    else expect(colours.length).toBeGreaterThan(5);
  }
  // Blue and orange, which those who cannot tell red from green can.
  expect(themes.colorblind.sgr.good).toContain('38;5;75');
  expect(themes.colorblind.sgr.bad).toContain('38;5;208');
});

test('a message that is too long leaves the way back to be read', async () => {
  const { press, screen } = start({ columns: 60, rows: 15 });
  press('4');
  await settle();
  expect(screen()).toMatch(/OK strategy is now .*~ {2}u undo \(10 s\)/);
});
