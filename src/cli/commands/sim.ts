import type { Command } from 'commander';
import { FaultError } from '../../sim/fault-error.ts';
import { type Fault, faultKinds, parseFaultFlag } from '../../sim/faults.ts';
import { withExamples } from '../command.ts';
import { usageError } from '../exit.ts';
import { positive, wholeFrom } from '../offer-options.ts';
import { parseDuration } from '../session.ts';

export function build(command: Command): void {
  const port = (flag: string) => [wholeFrom(flag, 0, 65_535), 0] as const;
  command
    .option(
      '--seed <n>',
      'the same seed gives the same offers, prices and boot times',
      wholeFrom('--seed', 0, 2 ** 31),
      1,
    )
    .option('--host <address>', 'address of the listeners', '127.0.0.1')
    .option('--vast-port <n>', 'of the vast.ai API, 0 takes a free one', ...port('--vast-port'))
    .option('--ionet-port <n>', 'of the io.net API, 0 takes a free one', ...port('--ionet-port'))
    .option('--control-port <n>', 'of the fault control, 0 takes a free one', ...port('--control-port'))
    .option('--vast-key <key>', 'the key that vast.ai accepts', 'sim-vast-key')
    .option('--ionet-key <key>', 'the key that io.net accepts', 'sim-ionet-key')
    .option('--json', 'print addresses and keys as one document')
    .optionsGroup('The market:')
    .option('--offers <list>', 'rentable at the start (default: vast=42,ionet=28)', offerCounts)
    .option('--churn <n>', 'offers that change hands each minute', atLeastZero('--churn'), 0)
    .option(
      '--rate-limit <factor>',
      'on the limits of vast.ai: 0 none, 1 as documented',
      atLeastZero('--rate-limit'),
      1,
    )
    .option('--lag <time>', 'until vast.ai shows what was rented or destroyed', parseDuration, 0)
    .optionsGroup('The instances:')
    .option('--boot <min-max>', 'time from renting to running (default: 1500ms-4s)', bootTime)
    .option('--speed <factor>', 'of the GPU servers', positive('--speed'), 1)
    .option(
      '--time-scale <factor>',
      'of billing and prepaid time: 3600 makes an hour of a second',
      positive('--time-scale'),
      1,
    )
    .option('--accidents <n>', 'exits, outages and lost bids of each instance and hour', atLeastZero('--accidents'), 0)
    .optionsGroup('Faults:')
    .option('--fault <fault>', 'from the start, kind,name=value,…; repeatable', faults)
    .addHelpText('after', `\nKinds of faults:\n  ${faultKinds.join(', ').replace(/(.{1,90},) /g, '$1\n  ')}`);
  withExamples(command, [
    ['gpuproxy sim', 'both marketplaces on free ports'],
    ['gpuproxy sim --vast-port 9001 --ionet-port 9002 --seed 7', 'on fixed ports'],
    ['gpuproxy sim --offers vast=2000 --rate-limit 0 --churn 60', 'a large market that never rests'],
    ['gpuproxy sim --boot 30s-2m --time-scale 60', 'slow boots, prepaid hours of a minute'],
    ['gpuproxy sim --fault rate_limit,route=search,probability=0.3', 'every third search is refused'],
    ['gpuproxy sim --fault lose_answer,provider=vast,times=1', 'the first rental happens, its answer is lost'],
    ['curl -d \'{"kind":"outbid"}\' http://127.0.0.1:PORT/__sim/faults', 'a fault on the running simulator'],
  ]);
  command.action(async ({ json, vastPort, ionetPort, controlPort, ...values }: SimFlags) => {
    const { run } = await import('../sim.ts');
    process.exitCode = await run(
      {
        seed: values.seed,
        host: values.host,
        ports: { vast: vastPort, ionet: ionetPort, control: controlPort },
        vastKey: values.vastKey,
        ionetKey: values.ionetKey,
        ...(values.offers === undefined ? {} : { offers: values.offers }),
        churnPerMinute: values.churn,
        rateLimit: values.rateLimit,
        lagMs: values.lag,
        ...(values.boot === undefined ? {} : { bootMs: values.boot }),
        speed: values.speed,
        timeScale: values.timeScale,
        accidentsPerHour: values.accidents,
        faults: values.fault ?? [],
      },
      json === true,
    );
  });
}

type SimFlags = Readonly<{
  seed: number;
  host: string;
  vastPort: number;
  ionetPort: number;
  controlPort: number;
  vastKey: string;
  ionetKey: string;
  json?: boolean;
  offers?: OfferCounts;
  churn: number;
  rateLimit: number;
  lag: number;
  boot?: { min: number; max: number };
  speed: number;
  timeScale: number;
  accidents: number;
  fault?: Fault[];
}>;
type OfferCounts = { vast?: number; ionet?: number };

/** "vast=2000,ionet=500", either alone too. */
function offerCounts(word: string): OfferCounts {
  const counts: OfferCounts = {};
  for (const part of word.split(',')) {
    const match = /^(vast|ionet)=(\d{1,6})$/.exec(part.trim());
    const count = Number(match?.[2]);
    if (match === null || count > 100_000) {
      throw usageError(`--offers: got "${part}", accepts vast=N and ionet=N with N from 0 to 100000`);
    }
    counts[match[1] as keyof OfferCounts] = count;
  }
  return counts;
}

/** "2s-10s", or one time for both. */
function bootTime(word: string): { min: number; max: number } {
  const [shortest = '', longest = shortest, more] = word.split('-');
  const [min, max] = [parseDuration(shortest), parseDuration(longest)];
  if (more !== undefined || min > max) {
    throw usageError(`--boot: got "${word}", accepts the shortest and the longest time, like 2s-10s`);
  }
  return { min, max };
}

function faults(word: string, before: Fault[] = []): Fault[] {
  try {
    return [...before, parseFaultFlag(word)];
  } catch (error) {
    if (!(error instanceof FaultError)) throw error;
    throw usageError(`--fault: ${error.message}`);
  }
}

function atLeastZero(name: string): (word: string) => number {
  return (word) => {
    if (/^\d*\.?\d+$/.test(word)) return Number(word);
    throw usageError(`${name}: got "${word}", accepts a number from 0`);
  };
}
