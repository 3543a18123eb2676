import { Worker } from 'node:worker_threads';
import { FaultError } from './fault-error.ts';
import type { FaultInput, StandingFault } from './faults.ts';
import type { InstanceView, LedgerEntry, SimulatorOptions } from './simulator.ts';
import type { TrafficOptions, TrafficStats } from './traffic.ts';

export type SimulatorCommand =
  | { do: 'start-traffic'; options: TrafficOptions }
  | { do: 'stop-traffic' | 'traffic-stats' | 'clear-faults' | 'instances' | 'ledger' | 'close' }
  | { do: 'fault'; fault: FaultInput };

type Urls = Readonly<{ vastUrl: string; ionetUrl: string; controlUrl: string; vastKey: string; ionetKey: string }>;
export type SimulatorMessage =
  | ({ type: 'ready' } & Urls)
  | { type: 'broken'; message: string }
  | { type: 'done'; id: number; value: unknown }
  | { type: 'failed'; id: number; message: string; fault: boolean };

/** The simulator in a thread of its own, with the demo's traffic beside it. */
export interface SimulatorThread extends Urls, AsyncDisposable {
  /** Replaces traffic that runs already. */
  startTraffic(options: TrafficOptions): Promise<void>;
  stopTraffic(): Promise<void>;
  /** Null while there is no traffic. */
  trafficStats(): Promise<TrafficStats | null>;
  /** Rejects with FaultError. */
  addFault(fault: FaultInput): Promise<StandingFault>;
  clearFaults(): Promise<void>;
  instances(): Promise<readonly InstanceView[]>;
  ledger(): Promise<readonly LedgerEntry[]>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** In the bundle all files lie in one folder and this code may be in a chunk of any name. */
function workerFile(): URL {
  return import.meta.url.endsWith('.ts')
    ? new URL('./worker.ts', import.meta.url)
    : new URL('./sim-worker.js', import.meta.url);
}

export async function startSimulatorThread(options: SimulatorOptions = {}): Promise<SimulatorThread> {
  const worker = new Worker(workerFile(), { workerData: options, name: 'sim' });
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let lastId = 0;
  let over: Error | null = null;
  const urls = await new Promise<Urls>((resolve, reject) => {
    const end = (error: Error) => {
      over ??= error;
      reject(error);
      for (const { reject: rejectOne } of waiting.values()) rejectOne(error);
      waiting.clear();
    };
    worker.once('error', (error) => end(error as Error));
    worker.once('exit', () => end(new Error('the simulator has ended')));
    worker.on('message', (message: SimulatorMessage) => {
      if (message.type === 'ready') resolve(message);
      else if (message.type === 'broken') {
        end(new Error(message.message));
        void worker.terminate();
      } else {
        const one = waiting.get(message.id);
        waiting.delete(message.id);
        if (message.type === 'done') one?.resolve(message.value);
        else one?.reject(message.fault ? new FaultError(message.message) : new Error(message.message));
      }
    });
  });
  const call = <T>(command: SimulatorCommand): Promise<T> =>
    new Promise((resolve, reject) => {
      if (over) {
        reject(over);
        return;
      }
      const id = ++lastId;
      waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      worker.postMessage({ id, command });
    });
  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => {
    closing ??= call<void>({ do: 'close' })
      .catch((error: Error) => {
        if (!over) throw error;
      })
      .then(async () => {
        await worker.terminate();
      });
    return closing;
  };
  const { vastUrl, ionetUrl, controlUrl, vastKey, ionetKey } = urls;
  return {
    vastUrl,
    ionetUrl,
    controlUrl,
    vastKey,
    ionetKey,
    startTraffic: (traffic) => call({ do: 'start-traffic', options: traffic }),
    stopTraffic: () => call({ do: 'stop-traffic' }),
    trafficStats: () => call({ do: 'traffic-stats' }),
    addFault: (fault) => call({ do: 'fault', fault }),
    clearFaults: () => call({ do: 'clear-faults' }),
    instances: () => call({ do: 'instances' }),
    ledger: () => call({ do: 'ledger' }),
    close,
    [Symbol.asyncDispose]: close,
  };
}
