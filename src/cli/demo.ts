import { type SimulatorThread, startSimulatorThread } from '../sim/simulator-thread.ts';

/** The simulated marketplaces of `--demo`, on their way. */
export type Demo = Readonly<{
  seed: number;
  simulator: Promise<SimulatorThread>;
  /** Also before it has started, and more than once. */
  stop(): Promise<void>;
}>;

/** Starts at once, so that the thread loads what it needs while this one does. */
export function startDemo(seed: number): Demo {
  const simulator = startSimulatorThread({ seed, bootMs: { min: 300, max: 2500 }, churnPerMinute: 6 });
  return {
    seed,
    simulator,
    stop: () =>
      simulator.then(
        (thread) => thread.close(),
        // It has told whoever waits for it.
        () => {},
      ),
  };
}
