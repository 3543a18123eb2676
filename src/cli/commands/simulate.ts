import { type Command, Option } from 'commander';
import { type StrategyName, strategyNames } from '../../core/domain.ts';
import {
  balancerPolicy,
  demoModelFleet,
  leastReplayed,
  type ModelResult,
  type ModelUpstream,
  modelTraffic,
  type Replay,
  replay,
  runModel,
} from '../../core/fleet-model.ts';
import { createRandom } from '../../core/random.ts';
import type { FinishedRequest } from '../../core/report.ts';
import type { Answers } from '../answers.ts';
import { suggest, withConnection, withExamples } from '../command.ts';
import { CliError, exitCodes, usageError } from '../exit.ts';
import { modelFleetHelp, readModelFleet } from '../model-fleet.ts';
import { nearest } from '../nearest.ts';
import { wholeFrom } from '../offer-options.ts';
import { type Column, counted } from '../output.ts';
import { openSession, type Session } from '../session.ts';

/** What a strategy did: whole response times, waiting included, of the requests that were answered. */
type Result = Readonly<{
  strategy: StrategyName;
  requests: number;
  /** Failed, or found no instance. */
  lost: number;
  mean_ms: number | null;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  /** Greatest part of the requests that one instance got. */
  hottest_share: number;
  shares: Readonly<Record<string, number>>;
  /** Work that each instance was given by what it can do; above 1 its line grows as long as requests come. */
  loads: Readonly<Record<string, number>>;
}>;

type Options = Readonly<{
  strategy: readonly StrategyName[];
  fleet: string;
  load: number;
  requests: number;
  seed: number;
  live?: boolean;
}>;

export function build(command: Command): void {
  command
    .addOption(
      new Option('--strategy <names>', 'one, several by comma, or all')
        .argParser(strategiesNamed)
        .default(strategyNames, 'all'),
    )
    .option('--fleet <file>', 'the fleet: demo (eight instances of four kinds), or a file as below', 'demo')
    .option('--load <part>', 'of what the fleet can do: 0.8 or 80%', loadPart, 0.8)
    .option('--requests <n>', 'how many', wholeFrom('--requests', 100, 1_000_000), 20_000)
    .option('--seed <n>', 'the same seed gives the same requests', wholeFrom('--seed', 0, 2 ** 31), 1)
    .addOption(
      new Option('--live', 'replay the latest requests of the server on its own fleet').conflicts([
        'fleet',
        'load',
        'requests',
        'seed',
      ]),
    )
    .addHelpText('after', modelFleetHelp);
  suggest(command, 'strategy', ['all', ...strategyNames]);
  suggest(command, 'fleet', 'files');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy simulate', 'all strategies on the demo fleet at 80 %'],
    ['gpuproxy simulate --strategy all --fleet my-fleet.json --load 0.95', 'a fleet of your own, nearly full'],
    ['gpuproxy simulate --live', 'what each would have made of the latest requests of the server'],
  ]);
  command.action(async (options: Options) => {
    const session = openSession(command);
    if (options.live === true) {
      const results = await replayed(session, options.strategy);
      if (session.json) session.printJson({ live: true, results });
      else session.print(resultsText(session, results, []));
      return;
    }
    const upstreams = options.fleet === 'demo' ? demoModelFleet : readModelFleet(options.fleet);
    const results = modelled(upstreams, options);
    const { fleet, load, requests, seed } = options;
    if (session.json) session.printJson({ live: false, fleet, load, requests, seed, results });
    else {
      const what = `${requests.toLocaleString('en')} requests at ${percent(load)} of what ${fleet} (${counted(upstreams.length, 'instance')}) can do, seed ${seed}.`;
      session.print(resultsText(session, results, [what]));
    }
  });
}

const columns: readonly Column<Result>[] = [
  { title: 'STRATEGY', value: (row) => row.strategy },
  { title: 'MEAN', width: 6, value: (row) => timeText(row.mean_ms) },
  { title: 'P50', width: 6, value: (row) => timeText(row.p50_ms) },
  { title: 'P95', width: 6, value: (row) => timeText(row.p95_ms) },
  { title: 'P99', width: 6, value: (row) => timeText(row.p99_ms) },
  { title: 'LOST', value: (row) => String(row.lost) },
  { title: 'HOTTEST', value: (row) => greatestText(row.shares), cut: true },
  { title: 'BUSIEST', value: (row) => greatestText(row.loads), cut: true },
];

function resultsText(session: Session, results: readonly Result[], about: readonly string[]): string {
  if (session.quiet) return results.map((row) => `${row.strategy}\n`).join('');
  if (session.plain) return session.table(columns, results);
  return `${session.table(columns, results)}\n${about.map((line) => `${line}\n`).join('')}${summary(results)}`;
}

/** What the columns mean, and what to make of them. */
function summary(results: readonly Result[]): string {
  const lines = [
    'Times: whole responses, waiting included. HOTTEST: most of the requests. BUSIEST: most work by what it can do.',
  ];
  if (results.some((row) => Object.values(row.loads).some((load) => load > 1.02))) {
    lines.push(
      'Over 100 % an instance gets more than it can do: its line, and these times, grow as long as requests come.',
    );
  }
  const best = (value: (row: Result) => number | null) => {
    const [first] = results.filter((row) => value(row) !== null).sort((a, b) => value(a)! - value(b)!);
    return first?.strategy;
  };
  const [mean, p99] = [best((row) => row.mean_ms), best((row) => row.p99_ms)];
  if (results.length > 1 && mean !== undefined && p99 !== undefined) {
    lines.push(mean === p99 ? `Lowest mean and p99: ${mean}.` : `Lowest mean: ${mean}. Lowest p99: ${p99}.`);
  }
  return `${lines.join('\n')}\n`;
}

/** "337ms", "2.98s", "46.9s", "5m32s". */
function timeText(ms: number | null): string {
  if (ms === null) return '-';
  if (ms < 999.5) return `${Math.round(ms)}ms`;
  if (ms < 9_995) return `${(ms / 1000).toFixed(2)}s`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)}s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)}m${String(seconds % 60).padStart(2, '0')}s`;
}

function percent(part: number): string {
  return `${Math.round(part * 100)} %`;
}

function greatestText(parts: Readonly<Record<string, number>>): string {
  const [first, ...rest] = Object.entries(parts);
  if (first === undefined) return '-';
  const [id, part] = rest.reduce((a, b) => (b[1] > a[1] ? b : a), first);
  return `${percent(part)} ${id}`;
}

/** A part like 0.8, or percent like 80%. Above 1 is more than the fleet can do. */
function loadPart(word: string): number {
  const [, digits, sign] = /^(\d+(?:\.\d*)?|\.\d+)(%?)$/.exec(word.trim()) ?? [];
  const part = Number(digits) / (sign === '%' ? 100 : 1);
  if (!(part >= 0.01 && part <= 2)) {
    throw usageError(`--load: got "${word}", accepts a part of what the fleet can do from 0.01 to 2, or 1% to 200%`);
  }
  return part;
}

function strategiesNamed(words: string): readonly StrategyName[] {
  return words === 'all' ? strategyNames : [...new Set(words.split(',').map((word) => strategyNamed(word.trim())))];
}

function strategyNamed(word: string): StrategyName {
  const name = strategyNames.find((each) => each === word);
  if (name !== undefined) return name;
  const near = nearest(word, strategyNames);
  throw usageError(`unknown strategy "${word}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
    hint: `all, or of ${strategyNames.join(', ')}`,
  });
}

function modelled(upstreams: readonly ModelUpstream[], { strategy, load, requests: count, seed }: Options): Result[] {
  const requests = modelTraffic({ upstreams, load, count, random: createRandom(seed) });
  return strategy.map((name) =>
    resultOf(name, runModel({ upstreams, requests, policy: balancerPolicy(name, upstreams) })),
  );
}

function resultOf(strategy: StrategyName, result: ModelResult | Replay): Result {
  return {
    strategy,
    requests: result.requests,
    lost: result.lost,
    mean_ms: rounded(result.meanMs),
    p50_ms: rounded(result.p50Ms),
    p95_ms: rounded(result.p95Ms),
    p99_ms: rounded(result.p99Ms),
    hottest_share: result.hottestShare,
    shares: result.shares,
    loads: result.loads,
  };
}

/** To a microsecond. */
function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 1000) / 1000;
}

async function replayed(session: Session, strategies: readonly StrategyName[]): Promise<Result[]> {
  const [fleet, recent] = await Promise.all([
    session.call('GET', '/fleet'),
    session.call('GET', '/requests', { query: { limit: 1000 } }),
  ]);
  const upstreams = (await session.read('fleet', fleet)).upstreams
    .filter((row) => row.eligible)
    .map((row) => ({ id: row.instance_id, weight: row.weight }));
  const requests = (await session.read('requests', recent)).requests.map(finishedRequest);
  return strategies.map((strategy) => {
    const result = replay(requests, upstreams, strategy);
    if (result === null) {
      throw new CliError(exitCodes.nothing, 'too_few_requests', 'too few requests to replay', {
        why: `${requests.length} are kept, ${upstreams.length} instances take requests; ${leastReplayed} complete ones are needed`,
        hint: 'send traffic first, or leave out --live for the model fleet',
      });
    }
    return resultOf(strategy, result);
  });
}

function finishedRequest(row: Answers['requests']['requests'][number]): FinishedRequest {
  return {
    at: Date.parse(row.at),
    id: row.id,
    method: row.method,
    path: row.path,
    status: row.status,
    cause: row.cause,
    instance: row.instance_id,
    attempts: row.attempts,
    queueMs: row.queue_ms,
    ttfbMs: row.ttfb_ms,
    totalMs: row.total_ms,
    bytesOut: row.bytes_out,
    model: row.model,
  };
}
