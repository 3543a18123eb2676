import { type Command, Option } from 'commander';
import { type StrategyName, strategyNames } from '../../core/domain.ts';
import { balancerPolicy, demoModelFleet, type ModelUpstream, modelTraffic, runModel } from '../../core/fleet-model.ts';
import { createRandom } from '../../core/random.ts';
import { counted, nearest } from '../../core/words.ts';
import { suggest, withConnection, withExamples } from '../command.ts';
import { usageError } from '../exit.ts';
import { modelFleetHelp, readModelFleet } from '../model-fleet.ts';
import { wholeFrom } from '../offer-options.ts';
import { openSession } from '../session.ts';
import { percent, type Result, resultOf, showReplay, showResults } from '../strategy-results.ts';

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
  withConnection(command, { curl: false });
  withExamples(command, [
    ['gpuproxy simulate', 'all strategies on the demo fleet at 80 %'],
    ['gpuproxy simulate --strategy all --fleet my-fleet.json --load 0.95', 'a fleet of your own, nearly full'],
    ['gpuproxy simulate --live', 'what each would have made of the latest requests of the server'],
  ]);
  command.action(async (options: Options) => {
    const session = openSession(command, { rows: 'results' });
    if (options.live === true) {
      await showReplay(session, options.strategy);
      return;
    }
    const upstreams = options.fleet === 'demo' ? demoModelFleet : readModelFleet(options.fleet);
    const results = modelled(upstreams, options);
    const { fleet, load, requests, seed } = options;
    const what = `${requests.toLocaleString('en')} requests at ${percent(load)} of what ${fleet} (${counted(upstreams.length, 'instance')}) can do, seed ${seed}.`;
    showResults(session, results, { live: false, fleet, load, requests, seed }, [what]);
  });
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
