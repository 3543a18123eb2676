import { type SimulatorOptions, startSimulator } from '../sim/simulator.ts';
import { exitCodes } from './exit.ts';
import { nextSignal } from './signals.ts';
import { startFailure } from './start-failure.ts';

/** `gpuproxy sim`: the simulated marketplaces and GPU servers alone, until a signal. Resolves with the exit code. */
export async function run(options: SimulatorOptions, json: boolean): Promise<number> {
  await using simulator = await startSimulator(options).catch((error: unknown) => {
    throw startFailure(error);
  });
  const environment = {
    VASTAI_URL: simulator.vastUrl,
    VASTAI_API_KEY: simulator.vastKey,
    IONET_URL: simulator.ionetUrl,
    IONET_API_KEY: simulator.ionetKey,
  };
  if (json) {
    process.stdout.write(`${JSON.stringify({ ...environment, control_url: simulator.controlUrl })}\n`);
  } else {
    const lines = Object.entries(environment).map(([name, value]) => `export ${name}=${value}`);
    process.stdout.write(`${lines.join('\n')}\n`);
    process.stderr.write(`faults: POST ${simulator.controlUrl}/__sim/faults   ctrl-c ends\n`);
  }
  await nextSignal();
  return exitCodes.done;
}
