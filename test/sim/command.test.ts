import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Command } from 'commander';
import { expect, test } from 'vitest';
import { build } from '../../src/cli/commands/sim.ts';

const root = new URL('../..', import.meta.url).pathname;

test('the command starts what its flags say, until a signal', async () => {
  const flags = ['--offers', 'vast=7,ionet=5', '--vast-key', 'k1', '--boot', '10ms-20ms', '--time-scale', '60'];
  const fault = ['--fault', 'latency,ms=5,route=list', '--fault', 'rate_limit,provider=vast,times=2'];
  const child = spawn(process.execPath, ['src/main.ts', 'sim', '--json', ...flags, ...fault], { cwd: root });
  try {
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const told = JSON.parse(line.toString()) as Record<string, string>;
    expect(told).toMatchObject({ VASTAI_API_KEY: 'k1', IONET_API_KEY: 'sim-ionet-key' });
    const state = await (await fetch(`${told.control_url}/__sim`)).json();
    expect(state).toMatchObject({ vastUrl: told.VASTAI_URL, rentable: { ionet: 5 }, faults: 2 });
  } finally {
    child.kill('SIGTERM');
  }
  expect(await once(child, 'exit')).toEqual([0, null]);
});

test.each([
  [['--fault', 'nonsense'], '--fault: kind: got "nonsense", accepts one of latency'],
  [['--fault', 'latency'], '--fault: ms: '],
  [['--offers', 'vast=x'], '--offers: got "vast=x", accepts vast=N and ionet=N'],
  [['--boot', '5s-1s'], '--boot: got "5s-1s", accepts the shortest and the longest time'],
  [['--churn', '-1'], '--churn: got "-1", accepts a number from 0'],
])('%j is refused with the name of the flag', async (flags, message) => {
  const command = new Command().exitOverride();
  build(command);
  await expect(command.parseAsync(flags, { from: 'user' })).rejects.toThrow(message);
});
