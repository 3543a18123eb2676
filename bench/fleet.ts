/**
 * The strategies against balancers as published, on a model of a fleet:
 * `npm run bench:fleet [-- --seeds 3 --count 20000]`.
 *
 * The rivals' rules run inside the same balancer as the strategies: the same requests, ejection, probation and slow
 * start, so that what differs is the choice. Rules that know weights are given the weights that the server would give,
 * times ten, as their configurations take whole numbers; of those that pick by open requests there is also one without.
 */
import { parseArgs } from 'node:util';
import { strategyNames } from '../src/core/domain.ts';
import {
  balancerPolicy,
  demoModelFleet,
  type ModelPolicy,
  type ModelUpstream,
  modelTraffic,
  runModel,
} from '../src/core/fleet-model.ts';
import { createRandom } from '../src/core/random.ts';
import type { Strategy } from '../src/core/strategies/index.ts';

type Create = Strategy['create'];
/** A rule as published, and what it wants to be told besides what the load table says. */
type Rule = Readonly<{
  create: Create;
  firstByte?(row: number, ms: number, now: number): void;
  ended?(row: number): void;
}>;

const baselines: Readonly<Record<string, (random: () => number) => Rule>> = {
  random: (random) => ({ create: () => (rows, count) => rows[Math.floor(random() * count)] as number }),

  'counter % n': () => ({
    create: () => {
      let counter = 0;
      return (rows, count) => rows[counter++ % count] as number;
    },
  }),

  'nginx smooth wrr': () => ({ create: smoothWeighted(true) }),
  'nginx least_conn': () => ({ create: nginxLeastConn(true) }),
  'nginx least_conn, no weights': () => ({ create: nginxLeastConn(false) }),
  'haproxy leastconn': () => haproxyLeastConn(true),
  'haproxy leastconn, no weights': () => haproxyLeastConn(false),

  'average-only least time': () => {
    const average: number[] = [];
    return {
      create: () => (rows, count) => firstLeast(rows, count, (row) => average[row] ?? 0),
      firstByte(row, ms) {
        const known = average[row];
        average[row] = known === undefined ? ms : known * 0.9 + ms * 0.1;
      },
    };
  },

  // Finagle's p2cPeakEwma: two at random, the lower of a cost that rises to each peak at once and decays over 10 s,
  // times (pending + 1). Reading the cost observes a zero, as there.
  'p2c peak-ewma': (random) => {
    const cost: number[] = [];
    const stamp: number[] = [];
    const observe = (row: number, ms: number, now: number) => {
      const known = cost[row] ?? 0;
      const w = Math.exp(-Math.max(0, now - (stamp[row] ?? now)) / 10_000);
      cost[row] = ms > known ? ms : known * w + ms * (1 - w);
      stamp[row] = now;
    };
    return {
      create: ({ table }) => {
        const { active } = table.columns;
        const load = (row: number, now: number) => {
          observe(row, 0, now);
          const pending = active[row] as number;
          return cost[row] === 0 && pending !== 0 ? 1e12 + pending : (cost[row] as number) * (pending + 1);
        };
        return (rows, count, now) => {
          const a = Math.floor(random() * count);
          let b = count > 1 ? Math.floor(random() * (count - 1)) : a;
          if (count > 1 && b >= a) b++;
          const [first, second] = [rows[a] as number, rows[b] as number];
          return load(first, now) < load(second, now) ? first : second;
        };
      },
      firstByte: observe,
    };
  },
};

/** The first in the list that has the least of `key`. */
function firstLeast(rows: Int32Array, count: number, key: (row: number) => number): number {
  let best = rows[0] as number;
  let least = key(best);
  for (let i = 1; i < count; i++) {
    const row = rows[i] as number;
    const value = key(row);
    if (value < least) {
      best = row;
      least = value;
    }
  }
  return best;
}

const weightIn = (weight: Float64Array, row: number, weighted: boolean) =>
  weighted ? Math.max(1, Math.round((weight[row] as number) * 10)) : 1;

/** ngx_http_upstream_get_peer: current_weight += weight, the largest wins and pays the total. */
function smoothWeighted(weighted: boolean): Create {
  return ({ table }) => {
    const current = new Float64Array(table.capacity);
    const { weight } = table.columns;
    return (rows, count) => {
      let total = 0;
      for (let i = 0; i < count; i++) {
        const row = rows[i] as number;
        const own = weightIn(weight, row, weighted);
        total += own;
        current[row] = (current[row] as number) + own;
      }
      const best = firstLeast(rows, count, (row) => -(current[row] as number));
      current[best] = (current[best] as number) - total;
      return best;
    };
  };
}

/** ngx_http_upstream_get_least_conn_peer: least conns / weight; of those that tie the smooth weighted round robin. */
function nginxLeastConn(weighted: boolean): Create {
  return (context) => {
    const { active, weight } = context.table.columns;
    const tieBreak = smoothWeighted(weighted)(context);
    const tied = new Int32Array(context.table.capacity);
    return (rows, count, now) => {
      const key = (row: number) => (active[row] as number) / weightIn(weight, row, weighted);
      const least = key(firstLeast(rows, count, key));
      let n = 0;
      for (let i = 0; i < count; i++) if (key(rows[i] as number) === least) tied[n++] = rows[i] as number;
      return n === 1 ? (tied[0] as number) : tieBreak(tied, n, now);
    };
  };
}

/**
 * fwlc_queue_srv: key = inflight ? (inflight + 1) × SRV_EWGHT_MAX / eweight : 0, in whole numbers (eweight is weight × 16,
 * SRV_EWGHT_MAX 4096). A server moves behind those of the same key whenever it gets or ends a request.
 */
function haproxyLeastConn(weighted: boolean): Rule {
  const queued: number[] = [];
  let turn = 0;
  return {
    create({ table }) {
      const { active, weight } = table.columns;
      const key = (row: number) => {
        const inflight = active[row] as number;
        return inflight === 0 ? 0 : Math.floor(((inflight + 1) * 4096) / (weightIn(weight, row, weighted) * 16));
      };
      return (rows, count) => {
        const least = key(firstLeast(rows, count, key));
        const best = firstLeast(rows, count, (row) =>
          key(row) === least ? (queued[row] ?? 0) : Number.POSITIVE_INFINITY,
        );
        queued[best] = ++turn;
        return best;
      };
    },
    ended(row) {
      queued[row] = ++turn;
    },
  };
}

/** The rule in place of a strategy. Rows are given out in the order of joining. */
function published(name: string, rule: Rule, upstreams: readonly ModelUpstream[]): ModelPolicy {
  const policy = balancerPolicy('round_robin', upstreams, {}, rule.create);
  const rowOf: number[] = [];
  const startedAt = new Map<number, number>();
  let joined = 0;
  return {
    name,
    joined(upstream, now) {
      rowOf[upstream] = joined++;
      policy.joined(upstream, now);
    },
    pick(request, now) {
      startedAt.set(request, now);
      return policy.pick(request, now);
    },
    firstByte(request, upstream, now) {
      rule.firstByte?.(rowOf[upstream] as number, now - (startedAt.get(request) ?? now), now);
      policy.firstByte(request, upstream, now);
    },
    ended(request, upstream, now, ok) {
      startedAt.delete(request);
      policy.ended(request, upstream, now, ok);
      rule.ended?.(rowOf[upstream] as number);
    },
  };
}

const { values } = parseArgs({
  options: { seeds: { type: 'string', default: '3' }, count: { type: 'string', default: '20000' } },
});
const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1);
const count = Number(values.count);

const troubled: readonly ModelUpstream[] = [
  ...demoModelFleet,
  { id: 'broken', weight: 1.8, slots: 4, speed: 1, fails: { fromMs: 0, toMs: 1e12, afterMs: 50 } },
  { id: 'joiner', weight: 3, slots: 12, speed: 2.4, joinsAtMs: 60_000 },
];
const alike: readonly ModelUpstream[] = Array.from({ length: 8 }, (_, i) => ({
  id: `4090-${i + 1}`,
  weight: 1.8,
  slots: 4,
  speed: 1,
}));
const fleets = [
  ['eight equal instances', alike],
  ['eight instances of four kinds', demoModelFleet],
  ['the same, one that fails every request in 50 ms, and an H100 that joins after a minute', troubled],
] as const;

/** Means over the seeds; lost is their sum. */
type Row = Readonly<Record<'meanMs' | 'p50Ms' | 'p95Ms' | 'p99Ms' | 'lost' | 'hottest' | 'busiest', number>>;

function row(upstreams: readonly ModelUpstream[], load: number, policyOf: (random: () => number) => ModelPolicy): Row {
  const sums = { meanMs: 0, p50Ms: 0, p95Ms: 0, p99Ms: 0, lost: 0, hottest: 0, busiest: 0 };
  for (const seed of seeds) {
    const requests = modelTraffic({ upstreams, load, count, random: createRandom(seed) });
    const result = runModel({ upstreams, requests, policy: policyOf(createRandom(seed + 1000)) });
    for (const name of ['meanMs', 'p50Ms', 'p95Ms', 'p99Ms'] as const) {
      sums[name] += (result[name] ?? Number.NaN) / seeds.length;
    }
    sums.lost += result.lost;
    sums.hottest += result.hottestShare / seeds.length;
    sums.busiest += Math.max(...Object.values(result.loads)) / seeds.length;
  }
  return sums;
}

const ms = (value: number) => Math.round(value).toLocaleString('en');
const percent = (part: number) => `${Math.round(part * 100)} %`;
const line = (name: string, r: Row) =>
  [
    name.padEnd(30),
    ...[r.meanMs, r.p50Ms, r.p95Ms, r.p99Ms].map((value) => ms(value).padStart(10)),
    String(r.lost).padStart(7),
    percent(r.hottest).padStart(9),
    percent(r.busiest).padStart(9),
  ].join('');

/** Differences up to this part count as none: as much as seeds differ. */
const noise = 0.01;
const findings: string[] = [];

console.log(
  `Whole response times in ms; means over ${seeds.length} seeds of ${count.toLocaleString('en')} requests each, lost in sum.\n` +
    'hottest: most of the requests. busiest: most work by what it can do; above 100 % the line grows as long as requests come.',
);
for (const [title, upstreams] of fleets) {
  for (const load of [0.5, 0.75, 0.9]) {
    const ours = strategyNames.map(
      (name) => [name, row(upstreams, load, () => balancerPolicy(name, upstreams))] as const,
    );
    const theirs = Object.entries(baselines).map(
      ([name, rule]) => [name, row(upstreams, load, (random) => published(name, rule(random), upstreams))] as const,
    );
    const head = ['mean', 'p50', 'p95', 'p99'].map((word) => word.padStart(10)).join('');
    console.log(`\n${title}; load ${percent(load)}`);
    console.log(`${'policy'.padEnd(30)}${head}${'lost'.padStart(7)}${'hottest'.padStart(9)}${'busiest'.padStart(9)}`);
    for (const [name, result] of ours) console.log(line(name, result));
    console.log('-- as published');
    for (const [name, result] of theirs) console.log(line(name, result));
    for (const [name, result] of ours) {
      if (name !== 'least_response_time' && name !== 'least_connections') continue;
      const better = theirs.flatMap(([rival, r]) => {
        const by = (['meanMs', 'p99Ms'] as const).flatMap((what) =>
          r[what] < result[what] * (1 - noise)
            ? [`${what === 'meanMs' ? 'mean' : 'p99'} −${percent(1 - r[what] / result[what])}`]
            : [],
        );
        return by.length > 0 ? [`${rival} (${by.join(', ')})`] : [];
      });
      findings.push(
        `${name}, ${title.split(',')[0] === 'the same' ? 'with a failing one and a joiner' : title}, ${percent(load)}: ${
          better.length === 0 ? 'as good as every rival' : `better are ${better.join('; ')}`
        }`,
      );
    }
  }
}
console.log(`\nIs it at least as good as every rival in mean and p99 (${percent(noise)} counts as equal)?`);
for (const finding of findings.sort()) console.log(`  ${finding}`);
console.log(
  '\nleast_connections goes by open requests alone, and of those that tie takes the one served longest ago. Rules that\n' +
    'divide by a weight know more about unequal GPUs, and ties by turn favour the fast ones a little. least_response_time\n' +
    'measures what weights guess; on equal GPUs its averages differ by chance alone, which costs it a little there.',
);
