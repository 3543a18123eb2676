import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Config, loadConfig, type VariableName } from '../../src/config.ts';
import type { LocalApp } from '../../src/fleet/app.ts';
import { type CreateAppOptions, createApp } from '../../src/fleet/create-app.ts';
import type { Timing } from '../../src/fleet/timing.ts';
import { createIonet } from '../../src/providers/ionet.ts';
import type { Provider } from '../../src/providers/provider.ts';
import { createVast } from '../../src/providers/vast.ts';
import { type Simulator, type SimulatorOptions, startSimulator } from '../../src/sim/simulator.ts';

/** Intervals at which a test sees in a second what takes minutes outside. */
export const quickTiming: Partial<Timing> = {
  snapshotMs: 50,
  reconcileMs: 250,
  reconcileBusyMs: 80,
  refreshMs: 2000,
  offersFreshMs: 200,
  callTimeoutMs: 3000,
  rentTimeoutMs: 1500,
  destroyTimeoutMs: 1500,
  lookForLabelMs: [30, 80, 150],
  unknownGraceMs: 600,
  absentGraceMs: 150,
  lingerGraceMs: 300,
  failedGraceMs: 200,
  destroyRetryMs: 50,
  destroyRetryMaxMs: 200,
  destroyWaitMs: 3000,
  probeIntervalMs: 200,
  probeTimeoutMs: 1000,
  probeFirstMs: 50,
};

export function testConfig(flags: Partial<Record<VariableName, unknown>> = {}): Config {
  return loadConfig({ flags: { SLOW_START_SECONDS: 0, DRAIN_SECONDS: 2, ...flags } });
}

export type Stage = AsyncDisposable & {
  readonly simulator: Simulator;
  readonly providers: readonly Provider[];
  readonly dataDir: string;
  /** A new app on the same ledger and marketplaces, after the last one was disposed. */
  start(options?: Partial<CreateAppOptions> & { flags?: Partial<Record<VariableName, unknown>> }): Promise<LocalApp>;
};

/** A simulator, both providers and an empty data directory. */
export async function createStage(options: SimulatorOptions = {}): Promise<Stage> {
  const simulator = await startSimulator({ bootMs: { min: 50, max: 150 }, speed: 50, ...options });
  const common = { instancePort: 8000, pace: 0, patience: 0.1 };
  const providers = [
    createVast({ ...common, apiKey: simulator.vastKey, baseUrl: simulator.vastUrl }),
    createIonet({ ...common, apiKey: simulator.ionetKey, baseUrl: simulator.ionetUrl }),
  ];
  const dataDir = await mkdtemp(join(tmpdir(), 'gpuproxy-fleet-'));
  const apps: LocalApp[] = [];
  return {
    simulator,
    providers,
    dataDir,
    async start({ flags, ...rest } = {}) {
      const app = await createApp({
        config: testConfig(flags),
        providers,
        dataDir,
        simulated: true,
        ...rest,
        timing: { ...quickTiming, ...rest.timing },
      });
      apps.push(app);
      return app;
    },
    async [Symbol.asyncDispose]() {
      for (const app of apps) await app[Symbol.asyncDispose]();
      await Promise.all(providers.map((provider) => provider.close?.()));
      await simulator.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Polls until `check` gives something other than false, null or undefined; fails with `what` after `ms`. */
export async function until<T>(
  what: string,
  check: () => T | Promise<T>,
  ms = 15_000,
): Promise<Exclude<T, false | null | undefined>> {
  const deadline = performance.now() + ms;
  for (;;) {
    const value = await check();
    if (value !== false && value !== null && value !== undefined) return value as Exclude<T, false | null | undefined>;
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(20);
  }
}

export const aliveContracts = (simulator: Simulator): string[] =>
  simulator
    .instances()
    .map((instance) => String(instance.contract))
    .sort();
