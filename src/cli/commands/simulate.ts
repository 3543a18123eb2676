import type { Command } from 'commander';
import { type StrategyName, strategyNames } from '../../core/domain.ts';
import {
  balancerPolicy,
  createRandom,
  demoModelFleet,
  leastReplayed,
  modelTraffic,
  replay,
  runModel,
} from '../../core/fleet-model.ts';
import type { FinishedRequest } from '../../core/report.ts';
import { suggest, withConnection, withExamples } from '../command.ts';
import { CliError, exitCodes, usageError } from '../exit.ts';
import { type Fields, fieldsOf, listOf, numberOf, textOf } from '../fields.ts';
import { nearest } from '../nearest.ts';
import { positive, wholeFrom } from '../offer-options.ts';
import { type Column, table } from '../output.ts';
import { openSession, type Session } from '../session.ts';

/** What a strategy did in the model. Milliseconds; null when nothing was answered. */
type Result = Readonly<{
  strategy: StrategyName;
  requests: number;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  /** Greatest part of the requests that one instance got. */
  hottest_share: number;
  shares: Readonly<Record<string, number>>;
}>;

export function build(command: Command): void {
  command
    .argument('[strategy...]', `of ${strategyNames.join(', ')}; all when left out`)
    .option('--live', 'replay the latest requests of the server on its own fleet')
    .option('--load <part>', 'of what the model fleet can do, 0.8 is 80 %', positive('--load'), 0.8)
    .option('--requests <n>', 'in the model', wholeFrom('--requests', 100, 1_000_000), 20_000)
    .option('--seed <n>', 'the same seed gives the same requests', wholeFrom('--seed', 0, 2 ** 31), 1);
  suggest(command, 'strategy', strategyNames);
  withConnection(command);
  withExamples(command, [
    ['gpuproxy simulate', 'all strategies on a model of eight instances of four kinds'],
    ['gpuproxy simulate --load 0.95', 'nearly full'],
    ['gpuproxy simulate --live', 'what each would have made of the latest requests of the server'],
  ]);
  command.action(
    async (
      words: readonly string[],
      options: Readonly<{ live?: boolean; load: number; requests: number; seed: number }>,
    ) => {
      const strategies = words.length === 0 ? strategyNames : words.map(strategyNamed);
      if (options.load > 10) throw usageError(`--load: got "${options.load}", accepts a number above 0, at most 10`);
      const session = openSession(command);
      const results = options.live === true ? await replayed(session, strategies) : modelled(strategies, options);
      if (session.json) session.printJson({ live: options.live === true, results });
      else session.print(table(columns, results));
    },
  );
}

const columns: readonly Column<Result>[] = [
  { title: 'STRATEGY', value: (row) => row.strategy },
  { title: 'REQUESTS', value: (row) => String(row.requests) },
  { title: 'P50', width: 7, value: (row) => msText(row.p50_ms) },
  { title: 'P95', width: 7, value: (row) => msText(row.p95_ms) },
  { title: 'P99', width: 7, value: (row) => msText(row.p99_ms) },
  { title: 'HOTTEST', value: (row) => hottestText(row) },
];

function msText(ms: number | null): string {
  return ms === null ? '-' : `${Math.round(ms)}ms`;
}

function hottestText({ shares, hottest_share }: Result): string {
  const [id = '-'] = Object.entries(shares).find(([, share]) => share === hottest_share) ?? [];
  return `${Math.round(hottest_share * 100)} % on ${id}`;
}

function strategyNamed(word: string): StrategyName {
  const name = strategyNames.find((each) => each === word);
  if (name !== undefined) return name;
  const near = nearest(word, strategyNames);
  throw usageError(`unknown strategy "${word}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
    hint: `one of ${strategyNames.join(', ')}`,
  });
}

function modelled(
  strategies: readonly StrategyName[],
  { load, requests: count, seed }: Readonly<{ load: number; requests: number; seed: number }>,
): Result[] {
  const upstreams = demoModelFleet;
  const requests = modelTraffic({ upstreams, load, count, random: createRandom(seed) });
  return strategies.map((strategy) => {
    const result = runModel({ upstreams, requests, policy: balancerPolicy(strategy, upstreams) });
    return {
      strategy,
      requests: result.requests,
      p50_ms: result.p50Ms,
      p95_ms: result.p95Ms,
      p99_ms: result.p99Ms,
      hottest_share: result.hottestShare,
      shares: result.shares,
    };
  });
}

async function replayed(session: Session, strategies: readonly StrategyName[]): Promise<Result[]> {
  const [fleet, recent] = await Promise.all([
    session.call('GET', '/fleet'),
    session.call('GET', '/requests', { query: { limit: 1000 } }),
  ]);
  const upstreams = listOf(fieldsOf(fleet.body).upstreams)
    .filter((row) => row.eligible === true)
    .map((row) => ({ id: textOf(row.instance_id), weight: numberOf(row.weight) ?? 1 }));
  const requests = listOf(fieldsOf(recent.body).requests).map(finishedRequest);
  return strategies.map((strategy) => {
    const result = replay(requests, upstreams, strategy);
    if (result === null) {
      throw new CliError(exitCodes.nothing, 'too_few_requests', 'too few requests to replay', {
        why: `${requests.length} are kept, ${upstreams.length} instances take requests; ${leastReplayed} complete ones are needed`,
        hint: 'send traffic first, or leave out --live for the model fleet',
      });
    }
    return {
      strategy,
      requests: result.requests,
      p50_ms: null,
      p95_ms: result.p95Ms,
      p99_ms: null,
      hottest_share: result.hottestShare,
      shares: result.shares,
    };
  });
}

function finishedRequest(row: Fields): FinishedRequest {
  return {
    at: Date.parse(textOf(row.at)),
    id: textOf(row.id),
    method: textOf(row.method),
    path: textOf(row.path),
    status: numberOf(row.status) ?? 0,
    cause: textOf(row.cause),
    instance: typeof row.instance_id === 'string' ? row.instance_id : null,
    attempts: numberOf(row.attempts) ?? 1,
    queueMs: numberOf(row.queue_ms) ?? 0,
    ttfbMs: numberOf(row.ttfb_ms),
    totalMs: numberOf(row.total_ms) ?? 0,
    bytesOut: numberOf(row.bytes_out) ?? 0,
    model: null,
  };
}
