import { startSimulator } from '../sim/simulator.ts';
import { exitCodes } from './exit.ts';
import type { SimOptions } from './server-options.ts';
import { nextSignal } from './signals.ts';
import { startFailure } from './start-failure.ts';

/** `gpuproxy sim`: the simulated marketplaces and GPU servers alone, until a signal. Resolves with the exit code. */
export async function run(options: SimOptions): Promise<number> {
  await using simulator = await startSimulator({
    seed: options.seed,
    host: options.host,
    ports: { vast: options.vastPort, ionet: options.ionetPort, control: options.controlPort },
    speed: options.speed,
    rateLimit: 1,
  }).catch((error: unknown) => {
    throw startFailure(error);
  });
  const environment = {
    VASTAI_URL: simulator.vastUrl,
    VASTAI_API_KEY: simulator.vastKey,
    IONET_URL: simulator.ionetUrl,
    IONET_API_KEY: simulator.ionetKey,
  };
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ ...environment, control_url: simulator.controlUrl })}\n`);
  } else {
    const lines = Object.entries(environment).map(([name, value]) => `export ${name}=${value}`);
    process.stdout.write(`${lines.join('\n')}\n`);
    process.stderr.write(`faults: POST ${simulator.controlUrl}/__sim/faults   ctrl-c ends\n`);
  }
  await nextSignal();
  return exitCodes.done;
}
