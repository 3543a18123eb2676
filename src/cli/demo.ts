import { type SimulatorThread, startSimulatorThread } from '../sim/simulator-thread.ts';

/** The simulated marketplaces of `--demo`, on their way. */
export type Demo = Readonly<{ seed: number; simulator: Promise<SimulatorThread> }>;

/** Starts at once, so that the thread loads what it needs while this one does. */
export function startDemo(seed: number): Demo {
  const simulator = startSimulatorThread({ seed, bootMs: { min: 300, max: 2500 }, churnPerMinute: 6 });
  // Whoever waits for it is told.
  simulator.catch(() => {});
  return { seed, simulator };
}
