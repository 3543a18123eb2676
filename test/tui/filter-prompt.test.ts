import { afterEach, describe, expect, test } from 'vitest';
import type { UpstreamView } from '../../src/fleet/app.ts';
import { createDashboard, type Dashboard } from '../../src/tui/dashboard.ts';
import { parseFilter, parseOfferFilter } from '../../src/tui/filter.ts';
import { marked, textOf } from '../../src/tui/line.ts';
import { createFakeApp, type FakeApp } from './fake-app.ts';

const open: Dashboard[] = [];
afterEach(() => {
  for (const dashboard of open.splice(0)) dashboard.dispose();
});

function start(app: FakeApp = createFakeApp(), columns = 160, rows = 45) {
  const dashboard = createDashboard({ app, columns, rows, color: 0, now: app.now });
  open.push(dashboard);
  const type = (text: string) => dashboard.press([...text].map((key) => (key === ' ' ? 'space' : key)));
  return {
    app,
    dashboard,
    type,
    press: (...keys: string[]) => dashboard.press(keys),
    screen: () => dashboard.lines().map(textOf).join('\n'),
    line: () => dashboard.lines().at(-2) ?? [],
  };
}
const settle = async () => {
  for (let i = 0; i < 5; i += 1) await new Promise((done) => setImmediate(done));
};

describe('the line of the filter', () => {
  test('says how many instances match, while one types', () => {
    const { type, press, line } = start();
    press('/');
    expect(textOf(line())).toMatch(/all 12 $/);
    type('prov:vast');
    expect(textOf(line())).toMatch(/ \/prov:vast▏ +8 of 12 $/);
  });

  test('names the field that was meant, marks the word, and keeps the text for mending', () => {
    for (const columns of [80, 120, 160]) {
      const { type, press, line, dashboard } = start(createFakeApp(), columns, 35);
      press('/');
      type('state:ok proivder:vast active>3');
      expect(textOf(line())).toContain('no field "proivder"; did you mean provider?');
      expect(
        line()
          .filter((part) => part.style === 'bad')
          .map((part) => part.text),
      ).toEqual(['proivder:vast']);
      press('enter');
      expect(dashboard.view().prompt?.text).toBe('state:ok proivder:vast active>3');
      expect(dashboard.view().filter).toBe('state:ok active>3');
    }
  });

  test('leaves the focus where it was when it is given up', () => {
    const { type, press, dashboard } = start();
    press('E', '/');
    expect(dashboard.ui.focus).toBe('instances');
    type('vast');
    press('escape');
    expect(dashboard.ui.focus).toBe('events');
    expect(dashboard.ui.filter).toBe('');
    press('/');
    type('vast');
    press('enter');
    expect(dashboard.ui.focus).toBe('instances');
  });
});

test('a field that is near to nothing is answered with some that there are', () => {
  expect(parseFilter('xyzzy:1').error).toBe('no field "xyzzy"; try prov state gpu model loc res');
  expect(parseOfferFilter('xyzzy:1').error).toBe('no field "xyzzy"; try prov gpu gpus vram loc rel');
  expect(parseFilter('active>many')).toMatchObject({ error: 'active> needs a number', wrong: 'active>many' });
});

test('only the whole word is marked', () => {
  expect(marked('a:1 aa:1 a:1x', 'aa:1').map((part) => [part.text, part.style])).toEqual([
    ['a:1 ', 'text'],
    ['aa:1', 'bad'],
    [' a:1x', 'text'],
  ]);
});

describe('the offers', () => {
  test('are filtered by fields and numbers, as instances are', async () => {
    const { app, type, press, screen } = start();
    press('P', 'enter');
    await settle();
    press('p', 'p');
    await settle();
    const { offers } = await app.offers({});
    for (const [query, check] of [
      ['prov:vast', (offer) => offer.provider === 'vast.ai'],
      ['vram>=48', (offer) => offer.vramGb >= 48],
      ['rel>98 gpu:h100', (offer) => offer.gpuModel.includes('H100')],
      ['rel>99.5', () => false],
      ['<0.3', (offer) => offer.usdPerHour < 0.3],
      ['$<0.3 !prov:io', (offer) => offer.usdPerHour < 0.3 && offer.provider !== 'io.net'],
      ['loc:texas gpus=1', (offer) => offer.location?.startsWith('Texas') === true],
    ] as const satisfies readonly (readonly [string, (offer: (typeof offers)[number]) => boolean])[]) {
      press('/', 'ctrl-u');
      type(query);
      press('enter');
      expect(screen(), query).toContain(` ${offers.filter(check).length} of 30 offers`);
    }
  });

  test('leave a word that is not understood out, and say why', async () => {
    const { type, press, screen } = start();
    press('P', 'enter');
    await settle();
    press('/');
    type('h100');
    expect(screen()).toContain('4 of 20 offers');
    type(' vrma>3');
    expect(screen()).toContain('4 of 20 offers');
    expect(screen()).toContain('no field "vrma"; did you mean vram?');
    // Enter does not close what is to be mended.
    press('enter', 'ctrl-u');
    expect(screen()).toContain('20 of 20 offers');
  });

  test('come in another order with o', async () => {
    const { press, screen } = start();
    press('P', 'enter');
    await settle();
    const first = () =>
      screen()
        .split('\n')
        .find((line) => line.startsWith('▸')) ?? '';
    expect(screen()).toContain('cheapest first');
    expect(first()).toContain('24GB');
    press('o');
    expect(screen()).toContain('most VRAM first');
    expect(first()).toContain('80GB');
    press('o', 'o');
    expect(first()).toContain('24GB');
  });
});

describe('a page', () => {
  test('of a list is as many rows as are seen', () => {
    const app = createFakeApp({ instances: 200 });
    for (const [columns, rows] of [
      [160, 45],
      [80, 24],
    ] as const) {
      const { dashboard, press, screen } = start(app, columns, rows);
      press('z');
      const ids = dashboard.view().rows.map((row: UpstreamView) => row.id);
      const seen = () => ids.filter((id) => screen().includes(`${id} `));
      const before = seen();
      press('pagedown');
      const after = seen().filter((id) => !before.includes(id));
      // Nothing is left out between the two, and nothing is seen twice.
      expect(after[0]).toBe(ids[before.length]);
      expect(after).toHaveLength(before.length);
      press('pageup');
      expect(seen()).toEqual(before);
    }
  });

  test('of offers and of logs is too', async () => {
    const app = createFakeApp();
    app.logs = async () => Array.from({ length: 300 }, (_, index) => `line ${index + 1} of the log`);
    const { press, screen } = start(app, 120, 35);
    press('l');
    await settle();
    press('g');
    const lines = () => [...screen().matchAll(/line (\d+) of/g)].map((match) => Number(match[1]));
    const last = lines().at(-1);
    press('pagedown');
    expect(lines()[0]).toBe((last ?? 0) + 1);
  });
});
