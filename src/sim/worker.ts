import { parentPort, workerData } from 'node:worker_threads';
import { FaultError } from './fault-error.ts';
import { type SimulatorOptions, startSimulator } from './simulator.ts';
import type { SimulatorCommand, SimulatorMessage } from './simulator-thread.ts';
import { startTraffic, type Traffic } from './traffic.ts';

/** Entry of the thread in which the simulator and the demo's traffic run, apart from what they test. */
if (!parentPort) throw new Error('sim/worker runs as a worker thread only');
const port = parentPort;
const tell = (message: SimulatorMessage): void => port.postMessage(message);

try {
  const simulator = await startSimulator(workerData as SimulatorOptions);
  let traffic: Traffic | null = null;
  const run = async (command: SimulatorCommand): Promise<unknown> => {
    switch (command.do) {
      case 'start-traffic':
        await traffic?.stop();
        traffic = startTraffic(command.options);
        return null;
      case 'stop-traffic':
        await traffic?.stop();
        traffic = null;
        return null;
      case 'traffic-stats':
        return traffic?.stats() ?? null;
      case 'fault':
        return simulator.faults.add(command.fault);
      case 'clear-faults':
        return simulator.faults.clear();
      case 'instances':
        return simulator.instances();
      case 'ledger':
        return simulator.ledger();
      case 'close':
        await traffic?.stop();
        return simulator.close();
    }
  };
  port.on('message', ({ id, command }: { id: number; command: SimulatorCommand }) => {
    run(command)
      .then((value) => tell({ type: 'done', id, value }))
      .catch((error: Error) => tell({ type: 'failed', id, message: error.message, fault: error instanceof FaultError }))
      .finally(() => {
        if (command.do === 'close') port.close();
      });
  });
  const { vastUrl, ionetUrl, controlUrl, vastKey, ionetKey } = simulator;
  tell({ type: 'ready', vastUrl, ionetUrl, controlUrl, vastKey, ionetKey });
} catch (error) {
  tell({ type: 'broken', message: (error as Error).message });
}
