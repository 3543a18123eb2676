import { parentPort, workerData } from 'node:worker_threads';
import { LoadTable } from '../core/load-table.ts';
import { createProxy, type RunningProxy } from './create-proxy.ts';
import type { FromWorker, ToWorker, WorkerStart } from './worker-messages.ts';

/** One data-plane thread: a listener and connection pools of its own, counting in the load table that all threads share. */

const port = parentPort;
if (port === null) throw new Error('proxy worker: runs as a worker thread only');
const start = workerData as WorkerStart;
const tell = (message: FromWorker) => port.postMessage(message);

let proxy: RunningProxy | null = null;
/** Messages that came while the listener was opening. */
const waiting: ToWorker[] = [];

port.on('message', (message: ToWorker) => {
  if (proxy === null) waiting.push(message);
  else obey(proxy, message);
});

try {
  const running = await createProxy({
    table: new LoadTable(start.buffer),
    directory: start.directory,
    host: start.host,
    port: start.port,
    reusePort: start.reusePort,
    thread: start.thread,
    settings: start.settings,
    balancer: start.balancer,
    auth: start.auth,
    keyLimits: start.keyLimits,
    report: (report) => tell({ type: 'report', report }),
  });
  proxy = running;
  for (const message of waiting) obey(running, message);
  tell({ type: 'listening', port: running.port });
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  tell({ type: 'failed', code: code ?? 'ERROR', message });
  port.close();
}

function obey(running: RunningProxy, message: ToWorker): void {
  switch (message.type) {
    case 'directory':
      running.setDirectory(message.entries);
      break;
    case 'auth':
      running.setAuth(message.auth);
      break;
    case 'settings':
      running.reconfigure(message.settings, message.balancer);
      break;
    case 'decisions':
      tell({ type: 'decisions', number: message.number, decisions: running.decisions() });
      break;
    case 'drain':
      void running.drain(message.deadlineMs).then(leave);
      break;
    case 'close':
      void running.close().then(leave);
      break;
  }
}

function leave(): void {
  tell({ type: 'closed' });
  // Ends this thread: a receiver of spans that never answers must not hold it.
  process.exit();
}
