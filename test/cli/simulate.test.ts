import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { strategyNames } from '../../src/core/domain.ts';
import { createProgram, type Program } from './program.ts';

let program: Program;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gpuproxy-simulate-'));
  program = await createProgram();
});
afterAll(() => {
  program.remove();
  rmSync(folder, { recursive: true, force: true });
});

const simulate = (...args: string[]) => program.run(['simulate', ...args]);
const fleetFile = (name: string, content: unknown) => {
  const file = join(folder, name);
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
};
const small = [
  { id: 'big', slots: 12, speed: 2.4, vram_gb: 79.6, usd_per_hour: 2.1 },
  { id: 'card', count: 2, slots: 4, speed: 1.2, weight: 1.5 },
];

describe('simulate', () => {
  it('compares all strategies on the demo fleet, in units that a person reads, and says who is overloaded', async () => {
    const { code, stdout } = await simulate('--strategy', 'all', '--fleet', 'demo', '--load', '0.8');
    expect(code).toBe(0);
    const [head = '', ...lines] = stdout.split('\n');
    expect(head.split(/ +/)).toEqual(['STRATEGY', 'MEAN', 'P50', 'P95', 'P99', 'LOST', 'HOTTEST', 'BUSIEST']);
    expect(lines.slice(0, 5).map((line) => line.split(' ')[0])).toEqual([...strategyNames]);
    const row = /^\w+ +(?:(?:\d+ms|\d+\.\d+s|\d+m\d\ds) +){4}\d+ +\d+ % \S+ +\d+ % \S+$/;
    for (const line of lines.slice(0, 5)) expect(line).toMatch(row);
    expect(stdout).toContain('20,000 requests at 80 % of what demo (8 instances) can do, seed 1.');
    expect(stdout).toContain('Over 100 % an instance gets more than it can do');
    expect(stdout).toContain('Lowest mean and p99: least_response_time.');
    // Defaults are what was asked for above.
    expect((await simulate()).stdout).toBe(stdout);
  });

  it('prints the same as one JSON document, with the settings that it ran with', async () => {
    const { code, stdout } = await simulate('--load', '50%', '--requests', '2000', '--seed', '7', '--json');
    expect(code).toBe(0);
    const body = JSON.parse(stdout) as { results: Record<string, unknown>[] };
    expect(body).toMatchObject({ live: false, fleet: 'demo', load: 0.5, requests: 2000, seed: 7 });
    expect(body.results.map((result) => result.strategy)).toEqual([...strategyNames]);
    for (const result of body.results) {
      expect(Object.keys(result)).toEqual(
        'strategy requests lost mean_ms p50_ms p95_ms p99_ms hottest_share shares loads'.split(' '),
      );
      const { p50_ms, p95_ms, p99_ms } = result as Record<string, number>;
      expect(p50_ms).toBeLessThanOrEqual(p95_ms as number);
      expect(p95_ms).toBeLessThanOrEqual(p99_ms as number);
      const shares = Object.values(result.shares as Record<string, number>);
      expect(shares.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
      expect(Math.max(...shares)).toBe(result.hottest_share);
    }
  });

  it('takes a fleet from a file: counts, weights by VRAM and price, one that joins and one that fails', async () => {
    const fails = { from_s: 0, to_s: 600, after_ms: 50 };
    const file = fleetFile('fleet.json', [
      ...small,
      { id: 'late', slots: 4, speed: 1, joins_at_s: 20 },
      { id: 'broken', slots: 4, speed: 1, weight: 1, fails },
    ]);
    const { code, stdout } = await simulate('--fleet', file, '--strategy', 'weighted_round_robin', '--json');
    expect(code).toBe(0);
    const [result] = (JSON.parse(stdout) as { results: { lost: number; shares: Record<string, number> }[] }).results;
    const shares = result?.shares ?? {};
    expect(Object.keys(shares)).toEqual(['big', 'card-1', 'card-2', 'late', 'broken']);
    // 79.6 GB is an 80 GB card: twice the weight of those of 1.5.
    expect((shares.big ?? 0) / (shares['card-1'] ?? 1)).toBeCloseTo(2, 1);
    expect(shares.late).toBeGreaterThan(0.05);
    expect(result?.lost).toBeGreaterThan(0);
    expect(result?.lost).toBeLessThan(200);
  });

  it.each([
    ['an unknown field', [{ ...small[1], slot: 4 }], '[0]: Unrecognized key: "slot"'],
    ['a wrong value', [small[0], { ...small[1], speed: 'fast' }], '[1].speed: '],
    ['a weight that is said twice', [{ ...small[1], vram_gb: 24 }], '[0].weight: give either weight, or vram_gb'],
    ['one name for two', [small[0], { ...small[0], slots: 1 }], 'two instances are called big'],
    ['nobody who is there and works', [{ ...small[1], joins_at_s: 5 }], 'at least one instance must be there'],
    ['no list', {}, 'the file: '],
    ['no JSON', 'id: h100', 'is not valid JSON'],
  ])('refuses a fleet file with %s, and says where', async (_, content, why) => {
    const { code, stdout, stderr } = await simulate('--fleet', fleetFile('wrong.json', content));
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain('wrong.json is no fleet file\n');
    expect(stderr).toContain(why);
    expect(stderr).toContain('hint: the format: gpuproxy simulate --help');
  });

  it.each([
    [['--load', '80'], '--load: got "80", accepts a part of what the fleet can do from 0.01 to 2, or 1% to 200%'],
    [['--load', '0'], '--load: got "0"'],
    [['--strategy', 'least_conections'], 'did you mean least_connections?'],
    [['--fleet', 'nowhere.json'], '--fleet: cannot read nowhere.json'],
    [['--live', '--seed', '3'], "'--live' cannot be used with option '--seed <n>'"],
  ])('refuses %j', async (args, says) => {
    const { code, stdout, stderr } = await simulate(...args);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain(says);
  });
});
