import type { StrategyName } from '../core/domain.ts';
import { leastReplayed, type ModelResult, type Replay, replay } from '../core/fleet-model.ts';
import type { FinishedRequest } from '../core/report.ts';
import { counted } from '../core/words.ts';
import type { Answers } from './answers.ts';
import { CliError, exitCodes } from './exit.ts';
import type { Column } from './output.ts';
import type { Session } from './session.ts';

/** What a strategy did: whole response times, waiting included, of the requests that were answered. */
export type Result = Readonly<{
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

/** The same of several strategies, as the options of the command want it. */
export function showResults(
  session: Session,
  results: readonly Result[],
  about: object,
  lines: readonly string[],
): void {
  if (session.json) session.printJson({ ...about, results });
  else session.print(resultsText(session, results, lines));
}

/** What each strategy would have made of the latest requests of the server, on its own fleet. */
export async function showReplay(session: Session, strategies: readonly StrategyName[]): Promise<void> {
  showResults(session, await replayed(session, strategies), { live: true }, []);
}

const columns: readonly Column<Result>[] = [
  { title: 'STRATEGY', value: (row) => row.strategy },
  { title: 'MEAN', width: 6, value: (row) => timeText(row.mean_ms) },
  { title: 'P50', width: 6, value: (row) => timeText(row.p50_ms), drop: 1 },
  { title: 'P95', width: 6, value: (row) => timeText(row.p95_ms) },
  { title: 'P99', width: 6, value: (row) => timeText(row.p99_ms) },
  { title: 'LOST', value: (row) => String(row.lost) },
  { title: 'HOTTEST', value: (row) => greatestText(row.shares) },
  { title: 'BUSIEST', value: (row) => greatestText(row.loads), drop: 2 },
];

/** The same in figures: times in ms, shares and loads as parts of 1. */
const plainColumns: readonly Column<Result>[] = [
  { title: 'STRATEGY', value: (row) => row.strategy },
  ...(['mean_ms', 'p50_ms', 'p95_ms', 'p99_ms', 'lost'] as const).map((name) => ({
    title: name,
    value: (row: Result) => String(row[name] ?? ''),
  })),
  ...(['shares', 'loads'] as const).flatMap((name) => [
    { title: name, value: (row: Result) => String(greatest(row[name])?.[1] ?? '') },
    { title: 'instance', value: (row: Result) => greatest(row[name])?.[0] ?? '' },
  ]),
];

function resultsText(session: Session, results: readonly Result[], about: readonly string[]): string {
  if (session.quiet) return results.map((row) => `${row.strategy}\n`).join('');
  if (session.plain) return session.table(plainColumns, results);
  return `${session.table(columns, results)}\n${[...about, ...summary(results)].map((line) => session.prose(line)).join('')}`;
}

/** What the columns mean, and what to make of them. */
function summary(results: readonly Result[]): string[] {
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
  return lines;
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

export function percent(part: number): string {
  return `${Math.round(part * 100)} %`;
}

function greatestText(parts: Readonly<Record<string, number>>): string {
  const found = greatest(parts);
  return found === undefined ? '-' : `${percent(found[1])} ${found[0]}`;
}

function greatest(parts: Readonly<Record<string, number>>): readonly [id: string, part: number] | undefined {
  const [first, ...rest] = Object.entries(parts);
  return first && rest.reduce((a, b) => (b[1] > a[1] ? b : a), first);
}

export function resultOf(strategy: StrategyName, result: ModelResult | Replay): Result {
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
        why: `${requests.length} are kept, ${counted(upstreams.length, 'instance takes', 'instances take')} requests; ${leastReplayed} complete ones are needed`,
        hint: 'send traffic first; "gpuproxy simulate" compares the strategies on a model fleet',
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
