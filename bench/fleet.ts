/**
 * The strategies against balancers as published, on a model of a fleet: `npm run bench:fleet [-- --seed 1 --count 40000]`.
 * Baselines see the same requests and stand behind the same three-failure ejection, so that what differs is the choice.
 */
import { parseArgs } from 'node:util';
import { strategyNames } from '../src/core/domain.ts';
import {
  balancerPolicy,
  createRandom,
  demoModelFleet,
  type ModelPolicy,
  type ModelResult,
  type ModelUpstream,
  modelTraffic,
  runModel,
} from '../src/core/fleet-model.ts';

/** What a baseline may look at: indexes of upstreams in service, and open requests by index. */
type View = Readonly<{ eligible: readonly number[]; open: readonly number[]; upstreams: readonly ModelUpstream[] }>;
type Baseline = Readonly<{
  pick(view: View, now: number): number;
  sampled?(upstream: number, ms: number, now: number): void;
}>;

const weightOf = (view: View, i: number) => Math.round((view.upstreams[i]?.weight ?? 1) * 10);

const baselines: Readonly<Record<string, (random: () => number) => Baseline>> = {
  random: (random) => ({ pick: ({ eligible }) => eligible[Math.floor(random() * eligible.length)] as number }),

  'counter % n': () => {
    let counter = 0;
    return { pick: ({ eligible }) => eligible[counter++ % eligible.length] as number };
  },

  // ngx_http_upstream_get_peer: current_weight += weight, the largest wins and pays the total.
  'nginx smooth wrr': () => smoothWeighted(),

  // ngx_http_upstream_get_least_conn_peer: least conns/weight; ties by smooth weighted round robin among them.
  'nginx least_conn': () => {
    const tieBreak = smoothWeighted();
    return {
      pick(view, now) {
        const key = (i: number) => (view.open[i] as number) / weightOf(view, i);
        const least = Math.min(...view.eligible.map(key));
        return tieBreak.pick({ ...view, eligible: view.eligible.filter((i) => key(i) === least) }, now);
      },
    };
  },

  // fwlc_queue_srv: key = served × SRV_EWGHT_MAX / weight; equal keys in the order in which they were queued.
  'haproxy leastconn': () => {
    const queued = new Map<number, number>();
    let turn = 0;
    return {
      pick(view) {
        const key = (i: number) => Math.floor(((view.open[i] as number) * 4096) / weightOf(view, i));
        const best = view.eligible.reduce((a, b) =>
          key(b) < key(a) || (key(b) === key(a) && (queued.get(b) ?? 0) < (queued.get(a) ?? 0)) ? b : a,
        );
        queued.set(best, ++turn);
        return best;
      },
    };
  },

  'average-only least time': () => {
    const average = new Map<number, number>();
    return {
      pick: ({ eligible }) => eligible.reduce((a, b) => ((average.get(b) ?? 0) < (average.get(a) ?? 0) ? b : a)),
      sampled(i, ms) {
        const known = average.get(i);
        average.set(i, known === undefined ? ms : known * 0.9 + ms * 0.1);
      },
    };
  },

  // Finagle's p2cPeakEwma: two at random, the lower of peak-sensitive EWMA × (open + 1); decay time 10 s.
  'p2c peak-ewma': (random) => {
    const cost = new Map<number, number>();
    const stamp = new Map<number, number>();
    return {
      pick({ eligible, open }, now) {
        const load = (i: number) => {
          const decayed = (cost.get(i) ?? 0) * Math.exp(-(now - (stamp.get(i) ?? now)) / 10_000);
          return decayed === 0 && (open[i] as number) > 0
            ? 1e9 + (open[i] as number)
            : decayed * ((open[i] as number) + 1);
        };
        const a = Math.floor(random() * eligible.length);
        let b = eligible.length > 1 ? Math.floor(random() * (eligible.length - 1)) : a;
        if (eligible.length > 1 && b >= a) b++;
        const [first, second] = [eligible[a] as number, eligible[b] as number];
        return load(first) < load(second) ? first : second;
      },
      sampled(i, ms, now) {
        const known = cost.get(i) ?? 0;
        const w = Math.exp(-(now - (stamp.get(i) ?? now)) / 10_000);
        cost.set(i, ms > known ? ms : known * w + ms * (1 - w));
        stamp.set(i, now);
      },
    };
  },
};

function smoothWeighted(): Baseline {
  const current = new Map<number, number>();
  return {
    pick(view) {
      let total = 0;
      for (const i of view.eligible) {
        total += weightOf(view, i);
        current.set(i, (current.get(i) ?? 0) + weightOf(view, i));
      }
      const best = view.eligible.reduce((a, b) => ((current.get(b) ?? 0) > (current.get(a) ?? 0) ? b : a));
      current.set(best, (current.get(best) ?? 0) - total);
      return best;
    },
  };
}

/** A baseline behind three-failure ejection, 5 s doubling to 300 s, at most half of the fleet. */
function baselinePolicy(name: string, baseline: Baseline, upstreams: readonly ModelUpstream[]): ModelPolicy {
  const joined: number[] = [];
  const open = upstreams.map(() => 0);
  const failures = upstreams.map(() => 0);
  const outUntil = upstreams.map(() => 0);
  const times = upstreams.map(() => 0);
  const startedAt = new Map<number, number>();
  return {
    name,
    joined: (upstream) => joined.push(upstream),
    pick(request, now) {
      const well = joined.filter((i) => now >= (outUntil[i] as number));
      const eligible = well.length * 2 >= joined.length ? well : joined;
      const picked = baseline.pick({ eligible, open, upstreams }, now);
      open[picked] = (open[picked] as number) + 1;
      startedAt.set(request, now);
      return picked;
    },
    firstByte(request, upstream, now) {
      baseline.sampled?.(upstream, now - (startedAt.get(request) ?? now), now);
    },
    ended(request, upstream, now, ok) {
      startedAt.delete(request);
      open[upstream] = (open[upstream] as number) - 1;
      if (ok) failures[upstream] = 0;
      else if (now >= (outUntil[upstream] as number)) {
        failures[upstream] = (failures[upstream] as number) + 1;
        // After the first ejection a single failure is enough: that is its probation.
        if ((failures[upstream] as number) < 3 && times[upstream] === 0) return;
        outUntil[upstream] = now + Math.min(300_000, 5000 * 2 ** (times[upstream] as number));
        times[upstream] = (times[upstream] as number) + 1;
      }
    },
  };
}

const { values } = parseArgs({
  options: { seed: { type: 'string', default: '1' }, count: { type: 'string', default: '40000' } },
});
const seed = Number(values.seed);
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

const ms = (value: number | null) => (value === null ? '-' : Math.round(value).toLocaleString('en'));
for (const [title, upstreams] of fleets) {
  for (const load of [0.5, 0.75, 0.9]) {
    const requests = modelTraffic({ upstreams, load, count, random: createRandom(seed) });
    const ours = strategyNames.map((name) =>
      runModel({ upstreams, requests, policy: balancerPolicy(name, upstreams) }),
    );
    const theirs = Object.entries(baselines).map(([name, create]) =>
      runModel({ upstreams, requests, policy: baselinePolicy(name, create(createRandom(seed + 1)), upstreams) }),
    );
    console.log(
      `\n${title}; load ${load * 100} %, ${count.toLocaleString('en')} requests, seed ${seed}; ms, whole responses`,
    );
    console.log(
      `${'policy'.padEnd(26)}${['mean', 'p50', 'p95', 'p99', 'lost', 'hottest'].map((h) => h.padStart(10)).join('')}`,
    );
    const row = (r: ModelResult) =>
      console.log(
        `${r.policy.padEnd(26)}${[r.meanMs, r.p50Ms, r.p95Ms, r.p99Ms].map((v) => ms(v).padStart(10)).join('')}${String(
          r.lost,
        ).padStart(10)}${`${(r.hottestShare * 100).toFixed(1)} %`.padStart(10)}`,
      );
    for (const result of ours) row(result);
    console.log('-- as published');
    for (const result of theirs) row(result);
    for (const result of ours) {
      if (result.policy !== 'least_response_time' && result.policy !== 'least_connections') continue;
      const better = theirs.filter(
        (r) => (r.meanMs ?? 0) < (result.meanMs ?? 0) || (r.p99Ms ?? 0) < (result.p99Ms ?? 0),
      );
      console.log(
        better.length === 0
          ? `${result.policy}: no baseline has a lower mean or p99`
          : `${result.policy}: lower mean or p99 has ${better.map((r) => r.policy).join(', ')}`,
      );
    }
  }
}
