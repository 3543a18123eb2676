import type { ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createStage, type Stage } from '../fleet/fixture.ts';
import { eventually } from '../helpers/eventually.ts';
import { createProgram, type Outcome, type Program } from './program.ts';

const key = 'a-key-of-the-renting-test';
let program: Program;
let stage: Stage;
let child: ChildProcess;
let ended: Promise<Outcome>;
let log = '';

beforeAll(async () => {
  program = await createProgram();
  stage = await createStage({ seed: 13 });
  stage.simulator.faults.add({ kind: 'latency', ms: 7000, route: 'rent' });
  ended = program.run(['serve', '--port', '0', '--proxy-port', '0'], {
    env: {
      GPUPROXY_API_KEY: key,
      VASTAI_API_KEY: stage.simulator.vastKey,
      VASTAI_URL: stage.simulator.vastUrl,
      IONET_API_KEY: stage.simulator.ionetKey,
      IONET_URL: stage.simulator.ionetUrl,
    },
    onStart(started) {
      child = started;
      started.stderr?.on('data', (text: string) => {
        log += text;
      });
    },
  });
  await eventually(() => /data plane/.test(log), 'the server');
}, 60_000);
afterAll(async () => {
  child?.kill('SIGKILL');
  await ended;
  await stage?.[Symbol.asyncDispose]();
  program?.remove();
});

const url = () => /control plane (http\S+)\/api\/v1/.exec(log)?.[1] ?? '';
const renting = () => log.split(/renting 8 GPUs/).length - 1;
const reserve = (onStart?: (client: ChildProcess) => void) =>
  program.run(['reserve', '8', '--provider', 'io.net', '--gpu-count', '1', '--yes', '-u', url(), '-k', key], {
    ...(onStart ? { onStart } : {}),
  });

describe('a rental under way', () => {
  it('is stopped by Ctrl-C: nothing more is paid, what was rented is given back, and both sides say so', async () => {
    let client: ChildProcess | undefined;
    const outcome = reserve((started) => {
      client = started;
    });
    await eventually(() => renting() === 1, 'paid calls', 60_000);
    client?.kill('SIGINT');
    const { code, stdout, stderr } = await outcome;
    expect([code, stdout]).toEqual([130, '']);
    expect(stderr).toMatch(/cancelled: 4 rented instances given back/);
    await eventually(() => stage.simulator.instances().length === 0, 'nothing rented');
    expect(stage.simulator.ledger()).toHaveLength(4);
    await eventually(() => /cancelled: 4 rented instances are given back/.test(log), 'the event');
  }, 90_000);

  it('is finished as far as it goes when the server is told to end, and what goes on costing money is said', async () => {
    const outcome = reserve();
    await eventually(() => renting() === 2, 'paid calls', 60_000);
    child.kill('SIGTERM');
    expect((await ended).code).toBe(0);
    const rented = stage.simulator.instances().length;
    expect(rented).toBeGreaterThan(0);
    expect(log).toContain(`: ${rented} of 8 GPUs reserved`);
    expect(log).toMatch(new RegExp(`"${rented} rented instances keep running and cost \\$\\d+\\.\\d\\d/h`));
    // Its answer is one that came later than connections are waited for otherwise.
    const { code, stdout } = await outcome;
    expect(stdout).toContain(`Reserved ${rented} GPUs (requested: 8)`);
    expect(code).toBe(6);
  }, 90_000);
});
