import { expect, test } from 'vitest';
import { startSimulator } from '../../src/sim/simulator.ts';

test('the same seed gives the same offers, another seed gives others', async () => {
  const fleet = async (seed: number) => {
    await using sim = await startSimulator({ seed });
    const answer = await fetch(`${sim.vastUrl}/api/v0/bundles/`, { method: 'POST', body: '{}' });
    const hardware = await fetch(`${sim.ionetUrl}/v1/io-cloud/caas/hardware`);
    return `${await answer.text()}${await hardware.text()}`;
  };
  const [first, again, other] = await Promise.all([fleet(7), fleet(7), fleet(8)]);
  expect(first).toBe(again);
  expect(first).not.toBe(other);
});
