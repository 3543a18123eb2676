import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline/promises';
import { type OfferFilter, type StrategyName, strategyNames } from '../core/domain.ts';
import { keptRequests } from '../core/report.ts';
import { counted } from '../core/words.ts';
import {
  type App,
  AppError,
  type FleetEvent,
  type ReserveRequest,
  type Snapshot,
  type UpstreamView,
} from '../fleet/app.ts';
import { gpuLabel, stateRank } from './columns.ts';
import { maxWeight } from './commands.ts';
import { type ConnectionSource, reasonOf } from './dashboard.ts';
import { parseFilter } from './filter.ts';
import { age, amount, clockTime, milliseconds, money, percent, plainText, rate } from './format.ts';
import { eventWords } from './panes/events.ts';
import { type Predict, predictByReplay, previewOf } from './preview.ts';
import { acceptedRise } from './rentals.ts';
import { strategyNotes } from './strategy-notes.ts';

export type ScreenReaderOptions = Readonly<{
  app: App;
  stdin: NodeJS.ReadableStream;
  stdout: NodeJS.WritableStream;
  readonly?: boolean;
  /** Which server or recording this is; empty when it is the one in this process. */
  label?: string;
  connection?: ConnectionSource | undefined;
  predict?: Predict | undefined;
  /** True when this process also carries traffic: it is not suspended by a key. */
  carriesTraffic?: boolean;
  signal?: AbortSignal;
  /** Saves the data of the moment; resolves with the path. */
  save?: ((name: string, content: string) => Promise<string>) | undefined;
  now?: (() => number) | undefined;
  /** Time between announcements. */
  everyMs?: number;
}>;

/** One typed command. What it resolves with is said. */
type Spoken = Readonly<{
  word: string;
  /** What may or must follow the word. */
  usage: string;
  what: string;
  /** Refused when read-only. */
  changes?: boolean;
  run(words: readonly string[]): Promise<readonly string[]> | readonly string[];
}>;

/** A question that the next line answers; anything but one of the answers cancels. */
type Question = Readonly<{ answers: ReadonlyMap<string, () => Promise<string>> }>;

/** Longer than on the screen: what was done must first be heard. */
const undoMs = 60_000;

const time = (value: number | null): string => (value === null ? 'not known yet' : milliseconds(value));

/** The fleet as sentences in reading order, what is worst first. */
export function statusSentences(snapshot: Snapshot): string[] {
  const { traffic, cost } = snapshot;
  const up = snapshot.upstreams.filter((row) => row.eligible).length;
  return [
    ...(snapshot.mode.banner === null ? [] : [`${snapshot.mode.banner}.`]),
    `Strategy ${snapshot.strategy.name}. ${up} of ${counted(snapshot.upstreams.length, 'instance')} ${up === 1 ? 'takes' : 'take'} requests.`,
    `${rate(traffic.rps)} requests per second, ${traffic.inFlight} in flight, ${traffic.queued} waiting, errors ${percent(traffic.errorRate)}.`,
    traffic.p50Ms === null
      ? 'Time to first byte: no answers yet.'
      : `Time to first byte: median ${time(traffic.p50Ms)}, 95 percent under ${time(traffic.p95Ms)}.`,
    `Costs ${money(cost.usdPerHour)} per hour, ${amount(cost.spentTodayUsd)} today${cost.maxUsdPerHour === null ? '' : `, limit ${money(cost.maxUsdPerHour)} per hour`}.`,
  ];
}

export function instanceSentence(row: UpstreamView): string {
  const parts = [
    `${row.id}, ${row.state}`,
    row.reason,
    `${row.provider}, ${gpuLabel(row)}, ${row.active} active, ${row.total} in total, average ${time(row.avgMs)}`,
    `weight ${row.weight.toFixed(2)}, ${money(row.usdPerHour)} per hour, share ${percent(row.share)}`,
  ];
  return plainText(`${parts.filter((part) => part !== '').join('; ')}.`);
}

function eventSentence(event: FleetEvent): string {
  const { about, message } = eventWords(event);
  return plainText(`${clockTime(event.at)} ${event.level} ${about}: ${message}`);
}

/**
 * The dashboard as text for people who listen: no screen drawing, changes announced as they happen, at most every five
 * seconds and never into a line that is being typed, every action by a typed command. Resolves with the exit code.
 */
export async function runScreenReader(options: ScreenReaderOptions): Promise<number> {
  const { app, stdin, stdout } = options;
  const now = options.now ?? Date.now;
  const say = (...lines: readonly string[]) => void stdout.write(lines.map((line) => `${line}\n`).join(''));
  const lines = createInterface({
    input: stdin,
    output: stdout,
    prompt: '',
    terminal: (stdin as NodeJS.ReadStream).isTTY === true,
    completer: (typed: string): [string[], string] => [completions(typed), typed.split(' ').at(-1) ?? ''],
  });
  let exitCode = 0;
  const end = (code: number) => () => {
    exitCode = code;
    lines.close();
  };
  const signals = [
    ['SIGTERM', end(143)],
    ['SIGHUP', end(129)],
    ['SIGINT', end(130)],
  ] as const;
  for (const [signal, listener] of signals) process.on(signal, listener);
  const stop = end(0);
  options.signal?.addEventListener('abort', stop, { once: true });
  if (options.signal?.aborted) stop();
  // As in the drawn dashboard Ctrl-C first takes back what is open, then leaves.
  lines.on('SIGINT', () => {
    if (question === null && lines.line === '') lines.close();
    else {
      question = null;
      lines.write(null, { ctrl: true, name: 'e' });
      lines.write(null, { ctrl: true, name: 'u' });
      say('Cancelled. Ctrl-C again leaves.');
    }
  });
  if (options.carriesTraffic) {
    lines.on('SIGTSTP', () => say('Not suspended: that would stop the traffic through this process.'));
  }

  let waiting: string[] = [];
  const unsubscribe = app.events.subscribe((event) => waiting.push(eventSentence(event)));
  let connectionState = options.connection?.get().state;
  const disconnect = options.connection?.subscribe(() => {
    const { state, detail } = options.connection?.get() ?? { state: 'live', detail: null };
    if (state === connectionState) return;
    connectionState = state;
    waiting.push(
      state === 'stale'
        ? plainText(`Connection lost: ${detail ?? 'no answer'}. What is told is old; refresh tries again now.`)
        : 'Connected again.',
    );
  });
  const timer = setInterval(() => {
    if (waiting.length === 0 || lines.line !== '') return;
    const told = waiting.length > 5 ? [`${waiting.length} changes, the newest five:`, ...waiting.slice(-5)] : waiting;
    waiting = [];
    say(...told);
  }, options.everyMs ?? 5000);

  let question: Question | null = null;
  let undoable: Readonly<{ until: number; run: () => Promise<string> }> | null = null;
  const undoBy = (run: () => Promise<string>) => {
    undoable = { until: now() + undoMs, run };
  };

  const find = (word: string | undefined): UpstreamView => {
    const rows = app.state.get().upstreams;
    const found = rows.filter((row) => row.id === word);
    const near = found.length > 0 ? found : rows.filter((row) => word !== undefined && row.id.includes(word));
    const [row] = near;
    if (row === undefined || near.length > 1) {
      throw new Error(
        near.length > 1 ? `${near.length} instances match ${word}` : `no instance ${word ?? 'was named'}`,
      );
    }
    return row;
  };
  const strategyOf = (word: string | undefined): StrategyName => {
    const name = strategyNames.find((each, index) => each === word || String(index + 1) === word);
    if (name === undefined) throw new Error(`no strategy ${word ?? ''}; there are ${strategyNames.join(', ')}`);
    return name;
  };
  const bySeverity = (rows: readonly UpstreamView[]) => {
    const rank = (row: UpstreamView) => stateRank(row.state);
    return [...rows].sort((a, b) => rank(a) - rank(b) || a.id.localeCompare(b.id));
  };

  const spoken: readonly Spoken[] = [
    {
      word: 'status',
      usage: '',
      what: 'the fleet in five sentences; an empty line does the same',
      run: () => statusSentences(app.state.get()),
    },
    {
      word: 'instances',
      usage: '[FILTER]',
      what: 'one line an instance, the worst first; the filter is that of the dashboard',
      run: (words) => {
        const filter = parseFilter(words.join(' '));
        if (filter.error !== null) throw new Error(filter.error);
        const rows = bySeverity(app.state.get().upstreams.filter((row) => filter.matches(row)));
        return rows.length === 0
          ? [words.length === 0 ? 'No instances.' : 'No instance matches.']
          : rows.map(instanceSentence);
      },
    },
    {
      word: 'instance',
      usage: 'ID',
      what: 'everything about one; part of the id is enough',
      run: async ([word]) => {
        const row = find(word);
        const slowest = await app.requests({ instance: row.id, slowest: true, limit: 3 });
        return [
          instanceSentence(row),
          `The provider says ${row.lifecycle.phase}, the operator ${row.admin.mode}, traffic ${row.health.state}. It ${row.eligible ? 'takes' : 'takes no'} requests.`,
          plainText(`Address ${row.origin ?? 'none yet'}, models ${row.models?.join(' ') ?? 'any'}.`),
          `Time to first byte: median ${time(row.p50Ms)}, 95 percent under ${time(row.p95Ms)}, 99 percent under ${time(row.p99Ms)}; errors ${percent(row.errorRate)}.`,
          `Spent ${amount(row.spentUsd)}${row.startedAt === null ? '' : `, up ${age(now() - row.startedAt)}`}${row.expiresAt === null ? '' : `, ${age(row.expiresAt - now())} left`}.`,
          ...slowest.map((request) =>
            plainText(
              `Slow: ${clockTime(request.at)} ${request.method} ${request.path}, ${request.status}, ${time(request.totalMs)}, ${request.cause.replaceAll('_', ' ')}.`,
            ),
          ),
        ];
      },
    },
    {
      word: 'logs',
      usage: 'ID',
      what: 'the last 20 lines of its log',
      run: async ([word]) => {
        const log = await app.logs(find(word).id, { tail: 20 });
        return log.length === 0 ? ['No log lines.'] : log.map(plainText);
      },
    },
    {
      word: 'providers',
      usage: '',
      what: 'what the marketplaces have and how their APIs do',
      run: () => {
        const { providers } = app.state.get();
        return providers.length === 0
          ? ['No provider is configured.']
          : providers.map((provider) =>
              plainText(
                `${provider.name}: ${provider.status}, ${provider.available}${provider.more ? ' or more' : ''} available${provider.minUsdPerHour === null ? '' : ` from ${money(provider.minUsdPerHour)} per hour`}${provider.creditUsd === null ? '' : `, credit ${amount(provider.creditUsd)}`}${provider.lastError === null || provider.status === 'ok' ? '' : `; ${provider.lastError.message}`}.`,
              ),
            );
      },
    },
    {
      word: 'offers',
      usage: '[gpu=NAME max=USD provider=NAME vram=GB location=PLACE each=N]',
      what: 'the ten cheapest that can be rented now',
      run: async (words) => {
        const { offers, errors } = await app.offers(wishes(words));
        return [
          `${counted(offers.length, 'offer')}${offers.length > 10 ? ', the ten cheapest' : ''}.`,
          ...[...offers]
            .sort((a, b) => a.usdPerHour - b.usdPerHour)
            .slice(0, 10)
            .map((offer) =>
              plainText(
                `${offer.provider} ${offer.id}: ${gpuLabel(offer)}, ${offer.vramGb} GB, ${money(offer.usdPerHour)} per hour, ${offer.location ?? 'no location'}.`,
              ),
            ),
          ...errors.map((error) => plainText(`${error.provider}: ${error.message}.`)),
        ];
      },
    },
    {
      word: 'events',
      usage: '',
      what: 'the last ten',
      run: () => {
        const told = app.events.recent().slice(-10).map(eventSentence);
        return told.length === 0 ? ['Nothing has happened yet.'] : told;
      },
    },
    {
      word: 'reservations',
      usage: '',
      what: 'what was asked for and how far it is',
      run: () => {
        const { reservations } = app.state.get();
        return reservations.length === 0
          ? ['No reservations.']
          : reservations.map(
              (item) =>
                `${item.id}: ${item.state}, ${counted(item.requested, 'GPU')} asked for, ${money(item.usdPerHour)} per hour, instances ${item.instances.join(' ') || 'none'}.`,
            );
      },
    },
    {
      word: 'strategy',
      usage: '[NAME or NUMBER]',
      what: 'the strategies, or switch to one',
      run: async ([word]) => {
        const { strategy } = app.state.get();
        if (word === undefined) {
          return strategyNames.map(
            (name, index) =>
              `${index + 1} ${name}${name === strategy.name ? ', active' : ''}: ${strategyNotes[name].rule}; for ${strategyNotes[name].uses[0]}.`,
          );
        }
        mayChange();
        const name = strategyOf(word);
        if (name === strategy.name) return [`Strategy is already ${name}.`];
        const { previous } = await app.setStrategy(name, 'tui');
        undoBy(async () => `Strategy is ${(await app.setStrategy(previous, 'tui')).strategy} again.`);
        return [`Strategy is now ${name}, was ${previous}. Undo takes it back within a minute.`];
      },
    },
    {
      word: 'preview',
      usage: 'NAME or NUMBER',
      what: 'what a model says the last minute would have been under another strategy',
      run: async ([word]) => {
        const name = strategyOf(word);
        const kept = await app.requests({ limit: keptRequests });
        const found = await previewOf(name, kept, app.state.get(), now(), options.predict ?? predictByReplay);
        if (found.why !== null) return [`No preview: ${found.why}.`];
        const hottest = Math.max(0, ...(found.shares?.values() ?? []));
        return [
          `Model of ${counted(found.requests, 'request')} under ${name}: 95 percent of whole answers under ${time(found.predictedP95Ms)}, now ${time(found.nowP95Ms)}.`,
          `Greatest share ${percent(hottest)}. Error of the model ${found.modelError === null ? 'not known' : percent(found.modelError)}.`,
        ];
      },
    },
    {
      word: 'drain',
      usage: 'ID',
      what: 'no new requests for it; what is in flight finishes',
      changes: true,
      run: async ([word]) => {
        const { id } = find(word);
        const row = await app.drain(id);
        undoBy(async () => instanceSentence(await app.resume(id)));
        return [instanceSentence(row)];
      },
    },
    {
      word: 'resume',
      usage: 'ID',
      what: 'back into rotation',
      changes: true,
      run: async ([word]) => {
        const { id } = find(word);
        const row = await app.resume(id);
        undoBy(async () => instanceSentence(await app.drain(id)));
        return [instanceSentence(row)];
      },
    },
    {
      word: 'weight',
      usage: 'ID NUMBER or ID auto',
      what: 'sets its weight, or gives it back to the formula',
      changes: true,
      run: async ([word, number]) => {
        const before = find(word);
        const value = number === 'auto' ? null : numberIn('weight', number, 0, maxWeight);
        const row = await app.setWeight(before.id, value);
        const old = before.weightSource === 'operator' ? before.weight : null;
        undoBy(async () => instanceSentence(await app.setWeight(before.id, old)));
        return [`${row.id} weighs ${row.weight.toFixed(2)}.`];
      },
    },
    {
      word: 'undo',
      usage: '',
      what: 'takes the last switch, drain, resume or weight back, within a minute',
      changes: true,
      run: async () => {
        const last = undoable;
        undoable = null;
        if (last === null || now() > last.until) return ['Nothing to undo.'];
        return [await last.run()];
      },
    },
    {
      word: 'extend',
      usage: 'ID HOURS',
      what: 'buys more prepaid hours',
      changes: true,
      run: ([word, number]) => {
        const row = find(word);
        if (row.expiresAt === null) throw new Error(`${row.id} has no prepaid time`);
        const hours = numberIn('hours', number, 1, 720, true);
        return ask([`${hours} more hours for ${row.id} cost ${money(row.usdPerHour * hours)}, paid at once.`], {
          [String(hours)]: [
            'pay it',
            async () => {
              await app.extend(row.id, hours);
              return `${row.id} is paid for ${hours} more hours.`;
            },
          ],
        });
      },
    },
    {
      word: 'destroy',
      usage: 'ID',
      what: 'gives an instance back; asks first',
      changes: true,
      run: ([word]) => {
        const row = find(word);
        const last = row.id.slice(-4);
        const destroy = (immediately: boolean) => async () => {
          if (row.provider !== 'static')
            return `${row.id}: ${(await app.destroy(row.id, { now: immediately })).status}.`;
          await app.removeUpstream(row.id, { now: immediately });
          return `${row.id}: removed.`;
        };
        return ask(
          [
            `Destroying ${row.id} cannot be undone: ${counted(row.active, 'request')} in flight, stops ${money(row.usdPerHour)} per hour.`,
          ],
          {
            [`1 ${last}`]: ['drain first, then destroy', destroy(false)],
            [`2 ${last}`]: [`destroy now and fail ${counted(row.active, 'request')}`, destroy(true)],
          },
        );
      },
    },
    {
      word: 'reserve',
      usage: 'NUMBER [gpu=NAME max=USD provider=NAME vram=GB location=PLACE each=N]',
      what: 'rents GPUs; says the price and asks first',
      changes: true,
      run: async ([word, ...rest]) => {
        const count = numberIn('number of GPUs', word, 1, 16, true);
        const request: ReserveRequest = { count, filter: wishes(rest), config: {} };
        const plan = await app.plan(request);
        if (plan.count === 0) return [plainText(`No offers match. ${plan.errors.join('; ')}`.trim())];
        const idempotencyKey = randomUUID();
        return ask(
          [
            `${plan.count} of ${counted(plan.requested, 'GPU')} for ${money(plan.usdPerHour)} per hour, about ${money(plan.usdPerHour * 24)} a day${plan.prepaidUsd > 0 ? `; ${money(plan.prepaidUsd)} are paid at once` : ''}.`,
          ],
          {
            [String(plan.count)]: [
              'rent them',
              async () => {
                const fresh = await app.plan(request);
                const maxTotalUsdPerHour = plan.usdPerHour * acceptedRise;
                if (fresh.usdPerHour > maxTotalUsdPerHour)
                  return `The price rose to ${money(fresh.usdPerHour)} per hour: nothing was rented.`;
                const result = await app.reserve({ ...request, maxTotalUsdPerHour }, { idempotencyKey, by: 'tui' });
                return `Reserved ${result.count} of ${counted(result.requested, 'GPU')}.`;
              },
            ],
          },
        );
      },
    },
    {
      word: 'release',
      usage: 'RESERVATION',
      what: 'gives all instances of a reservation back; asks first',
      changes: true,
      run: ([word]) => {
        const near = app.state.get().reservations.filter((item) => word !== undefined && item.id.includes(word));
        const [item] = near;
        if (item === undefined || near.length > 1) {
          throw new Error(
            near.length > 1 ? `${near.length} reservations match` : `no reservation ${word ?? 'was named'}`,
          );
        }
        const size = String(item.instances.length);
        const release = (immediately: boolean) => async () => {
          const { released, failed } = await app.releaseReservation(item.id, { now: immediately });
          const later = failed.length === 0 ? '' : ` ${failed.join(' ')} could not be destroyed yet; tried again.`;
          return `${counted(released.length, 'instance')} released.${later}`;
        };
        return ask(
          [
            `Releasing ${item.id} destroys its ${counted(item.instances.length, 'instance')}, stops ${money(item.usdPerHour)} per hour.`,
          ],
          {
            [`1 ${size}`]: ['drain first, then destroy', release(false)],
            [`2 ${size}`]: ['destroy now', release(true)],
          },
        );
      },
    },
    {
      word: 'refresh',
      usage: '',
      what: 'asks the providers again; connects again when the server is lost',
      run: async () => {
        if (options.connection?.get().state === 'stale' && options.connection.retry !== undefined) {
          options.connection.retry();
          return ['Connecting again.'];
        }
        await app.refresh();
        return ['The providers were asked again.'];
      },
    },
    {
      word: 'save',
      usage: '',
      what: 'keeps the data of this moment as JSON',
      run: async () => {
        if (options.save === undefined) throw new Error('nowhere to write to');
        const stamp = new Date(now()).toISOString().replaceAll(':', '-').slice(0, 19);
        const json = JSON.stringify(app.state.get(), null, 2);
        return [`Saved ${await options.save(`gpuproxy-${stamp}.json`, `${json}\n`)}.`];
      },
    },
    {
      word: 'help',
      usage: '',
      what: 'every command',
      run: () => [
        'Commands, each may begin with a colon:',
        ...spoken.map(({ word, usage, what }) => `${usage === '' ? word : `${word} ${usage}`}: ${what}.`),
      ],
    },
    {
      word: 'quit',
      usage: '',
      what: 'leaves',
      run: () => {
        lines.close();
        return ['Bye.'];
      },
    },
  ];
  const aliases: Readonly<Record<string, string>> = { '': 'status', '?': 'help', q: 'quit' };

  function mayChange(): void {
    if (options.readonly) throw new Error('this dashboard is read-only');
  }

  /** Says what will happen and which line does it. */
  function ask(
    about: readonly string[],
    choices: Readonly<Record<string, readonly [what: string, run: () => Promise<string>]>>,
  ): readonly string[] {
    question = { answers: new Map(Object.entries(choices).map(([typed, [, run]]) => [typed, run])) };
    const ways = Object.entries(choices).map(([typed, [what]]) => `Type ${typed} to ${what}.`);
    return [...about, ...ways, 'Anything else cancels.'];
  }

  function completions(typed: string): string[] {
    const [first = '', ...rest] = typed.replace(/^:/, '').split(' ');
    if (rest.length === 0) return spoken.map(({ word }) => word).filter((word) => word.startsWith(first));
    const { upstreams, reservations } = app.state.get();
    const all =
      first === 'strategy' || first === 'preview'
        ? strategyNames
        : first === 'release'
          ? reservations.map((item) => item.id)
          : upstreams.map((row) => row.id);
    return all.filter((word) => word.startsWith(rest.at(-1) ?? ''));
  }

  const answer = async (line: string): Promise<readonly string[]> => {
    const [first = '', ...words] = line.trim().replace(/^:/, '').trim().split(/\s+/);
    if (question !== null) {
      const asked = question;
      question = null;
      const run = asked.answers.get(line.trim().replace(/\s+/g, ' '));
      if (run === undefined) return ['Not confirmed, nothing was done.'];
      try {
        return [await run()];
      } catch (error) {
        // Whether it was done is not known: the same line asks with the same key, so that nothing is paid for twice.
        const unknown = error instanceof AppError && ['disconnected', 'provider_timeout'].includes(error.code);
        if (!unknown) throw error;
        question = asked;
        return [`No answer: ${plainText(reasonOf(error))}. Type the same again to ask again; anything else cancels.`];
      }
    }
    const command = spoken.find(({ word }) => word === (aliases[first] ?? first));
    if (command === undefined) return [`No command ${plainText(first)}. Type help for the commands.`];
    if (command.changes) mayChange();
    return command.run(words);
  };

  say(
    ...(options.label ? [`gpuproxy at ${options.label}.`] : []),
    ...statusSentences(app.state.get()),
    'Type help for the commands, quit to leave.',
  );
  try {
    for await (const line of lines) {
      try {
        say(...(await answer(line)));
      } catch (error) {
        say(`Not done: ${plainText(reasonOf(error))}.`);
      }
    }
    return exitCode;
  } finally {
    clearInterval(timer);
    unsubscribe();
    disconnect?.();
    for (const [signal, listener] of signals) process.off(signal, listener);
    options.signal?.removeEventListener('abort', stop);
  }
}

function numberIn(name: string, text: string | undefined, least: number, most: number, whole = false): number {
  const value = Number(text);
  if (text === undefined || text === '' || !(value >= least && value <= most) || (whole && !Number.isInteger(value))) {
    throw new Error(
      `${name}: got ${text === undefined ? 'nothing' : `"${text}"`}, accepts a ${whole ? 'whole ' : ''}number from ${least} to ${most}`,
    );
  }
  return value;
}

/** `gpu=rtx4090 max=0.40` as a filter of offers. */
function wishes(words: readonly string[]): OfferFilter {
  let filter: OfferFilter = {};
  for (const word of words) {
    const [, name = '', value = ''] = /^([a-z]+)=(.+)$/i.exec(word) ?? [];
    switch (name) {
      case 'gpu':
        filter = { ...filter, gpuModel: value };
        break;
      case 'max':
        filter = { ...filter, maxUsdPerHour: numberIn('max', value, 0.001, 1000) };
        break;
      case 'provider': {
        if (value !== 'vast.ai' && value !== 'io.net') {
          throw new Error(`provider: got "${value}", accepts vast.ai or io.net`);
        }
        filter = { ...filter, provider: value };
        break;
      }
      case 'vram':
        filter = { ...filter, minVramGb: numberIn('vram', value, 1, 2000) };
        break;
      case 'location':
        filter = { ...filter, location: value };
        break;
      case 'each':
        filter = { ...filter, gpuCount: numberIn('each', value, 1, 16, true) };
        break;
      default:
        throw new Error(`got "${word}", accepts gpu=, max=, provider=, vram=, location= and each=`);
    }
  }
  return filter;
}
