import { createHash } from 'node:crypto';
import { monotonicMs } from '../src/clock.ts';
import { createBalancer } from '../src/core/balancer.ts';
import type { DirectoryEntry } from '../src/core/directory.ts';
import { LoadTable } from '../src/core/load-table.ts';
import { startDataPlane } from '../src/proxy/data-plane.ts';
import { benchKey } from './proxy-key.ts';

/**
 * The data plane as bench/proxy.ts measures it, with everything on: keys, leases, report, access log to a file.
 * Arguments: upstreams (comma list), threads, access log. Prints its port.
 */
const [upstreams = '', threads = '1', accessLog = 'off'] = process.argv.slice(2);

const table = LoadTable.create(64);
table.strategy = 'least_connections';
const balancer = createBalancer(new LoadTable(table.buffer), { slowStartMs: 0 });
const directory: DirectoryEntry[] = upstreams.split(',').map((origin, i) => {
  const ref = table.join({ weight: 1, ceiling: 0, now: monotonicMs() });
  table.setRunning(ref, true, monotonicMs());
  balancer.probed(ref, true, monotonicMs(), '');
  return { ...ref, id: `bench-${i}`, provider: 'static', origin, models: null };
});
let reported = 0;
const plane = await startDataPlane({
  app: {
    table,
    directory: () => directory,
    onDirectory: () => () => {},
    report: (report) => void (reported += report.requests.length),
  },
  keys: { proxyHashes: () => [createHash('sha256').update(benchKey).digest('hex')], onChange: () => () => {} },
  config: {
    CONNECT_TIMEOUT_SECONDS: 5,
    FIRST_BYTE_TIMEOUT_SECONDS: 120,
    IDLE_TIMEOUT_SECONDS: 120,
    TOTAL_TIMEOUT_SECONDS: 0,
    QUEUE_LIMIT: 1024,
    QUEUE_TIMEOUT_SECONDS: 30,
    MAX_RETRIES: 2,
    RETRY_BODY_BYTES: 65_536,
    MAX_CONNECTIONS: 16_384,
    INSTANCE_HEADER: true,
    ACCESS_LOG: accessLog,
    GPUPROXY_HOST: '127.0.0.1',
    GPUPROXY_PROXY_PORT: 0,
    PROXY_AUTH: 'required',
    EJECT_AFTER_FAILURES: 3,
    EJECT_BASE_SECONDS: 5,
    EJECT_MAX_SECONDS: 300,
    MAX_EJECTED_FRACTION: 0.5,
    SLOW_START_SECONDS: 0,
  },
  tls: null,
  threads: Number(threads),
});
console.log(plane.port);
process.on('SIGTERM', () => {
  console.error(`active at the end: ${table.totals().active}, requests reported: ${reported}`);
  void plane.close().then(() => process.exit(0));
});
