import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline/promises';
import { strategyNames } from '../core/domain.ts';
import type { App, FleetEvent, Snapshot, UpstreamView } from '../fleet/app.ts';
import { gpuLabel } from './columns.ts';
import { reasonOf } from './dashboard.ts';
import { clockTime, milliseconds, money, percent, plainText, rate } from './format.ts';
import { strategyNotes } from './strategy-notes.ts';

export type ScreenReaderOptions = Readonly<{
  app: App;
  stdin: NodeJS.ReadableStream;
  stdout: NodeJS.WritableStream;
  readonly?: boolean;
  signal?: AbortSignal;
  /** Time between announcements. */
  everyMs?: number;
}>;

const severity = ['DOWN', 'DESTROYING', 'BACKOFF', 'SLOW', 'PROBATION', 'DRAIN', 'RESERVING', 'BOOT', 'PROBE', 'OK'];

/** The fleet as sentences in reading order, what is worst first. */
export function statusSentences(snapshot: Snapshot): string[] {
  const { traffic, cost } = snapshot;
  const up = snapshot.upstreams.filter((row) => row.eligible).length;
  return [
    ...(snapshot.mode.banner === null ? [] : [`${snapshot.mode.banner}.`]),
    `Strategy ${snapshot.strategy.name}. ${up} of ${snapshot.upstreams.length} instances take requests.`,
    `${rate(traffic.rps)} requests per second, ${traffic.inFlight} in flight, ${traffic.queued} waiting, errors ${percent(traffic.errorRate)}.`,
    `Time to first byte: median ${milliseconds(traffic.p50Ms)}, 95 percent under ${milliseconds(traffic.p95Ms)}.`,
    `Costs ${money(cost.usdPerHour)} per hour, ${money(cost.spentTodayUsd)} today.`,
  ];
}

export function instanceSentence(row: UpstreamView): string {
  const parts = [
    `${row.id}, ${row.state}`,
    row.reason,
    `${row.provider}, ${gpuLabel(row)}, ${row.active} active, ${row.total} in total, average ${milliseconds(row.avgMs)}`,
    `weight ${row.weight.toFixed(2)}, ${money(row.usdPerHour)} per hour, share ${percent(row.share)}`,
  ];
  return plainText(`${parts.filter((part) => part !== '').join('; ')}.`);
}

const eventSentence = (event: FleetEvent): string =>
  plainText(`${clockTime(event.at)} ${event.level} ${event.subject ?? event.kind}: ${event.message}`);

/**
 * The dashboard as text for people who listen: no screen drawing, changes announced as they happen, at most every five
 * seconds, every action by a typed command. Resolves with the exit code.
 */
export async function runScreenReader(options: ScreenReaderOptions): Promise<number> {
  const { app, stdin, stdout } = options;
  const say = (...lines: readonly string[]) => void stdout.write(`${lines.join('\n')}\n`);
  const lines = createInterface({ input: stdin, output: stdout, terminal: false });
  const stop = () => lines.close();
  options.signal?.addEventListener('abort', stop, { once: true });
  if (options.signal?.aborted) stop();

  let waiting: FleetEvent[] = [];
  const unsubscribe = app.events.subscribe((event) => waiting.push(event));
  const timer = setInterval(() => {
    if (waiting.length === 0) return;
    const told = waiting.slice(-5).map(eventSentence);
    if (waiting.length > 5) told.unshift(`${waiting.length} events, the newest five:`);
    waiting = [];
    say(...told);
  }, options.everyMs ?? 5000);

  /** What must be typed next, for an action that costs or loses something. */
  let pending: Readonly<{ word: string; run: () => Promise<string> }> | null = null;
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
  const mayChange = () => {
    if (options.readonly) throw new Error('this dashboard is read-only');
  };

  const answer = async (line: string): Promise<readonly string[]> => {
    const [command = '', word] = line.replace(/^:/, '').trim().split(/\s+/);
    if (pending !== null) {
      const { word: expected, run } = pending;
      pending = null;
      if (line.trim() !== expected) return ['Not confirmed, nothing was done.'];
      return [await run()];
    }
    const snapshot = app.state.get();
    switch (command) {
      case '':
      case 'status':
        return statusSentences(snapshot);
      case 'instances': {
        const rank = (row: UpstreamView) => (severity.indexOf(row.state) + severity.length + 1) % (severity.length + 1);
        const rows = [...snapshot.upstreams].sort((a, b) => rank(a) - rank(b) || a.id.localeCompare(b.id));
        return rows.length === 0 ? ['No instances.'] : rows.map(instanceSentence);
      }
      case 'providers':
        return snapshot.providers.map(
          (provider) =>
            `${provider.name}: ${provider.status}, ${provider.available} available${provider.minUsdPerHour === null ? '' : ` from ${money(provider.minUsdPerHour)} per hour`}.`,
        );
      case 'events':
        return app.events.recent().slice(-10).map(eventSentence);
      case 'strategy': {
        if (word === undefined) {
          return strategyNames.map(
            (name, index) =>
              `${index + 1} ${name}${name === snapshot.strategy.name ? ', active' : ''}: ${strategyNotes[name].rule}; for ${strategyNotes[name].use}.`,
          );
        }
        mayChange();
        const name = strategyNames.find((each, index) => each === word || String(index + 1) === word);
        if (name === undefined) throw new Error(`no strategy ${word}; there are ${strategyNames.join(', ')}`);
        const { previous } = await app.setStrategy(name, 'tui');
        return [`Strategy is now ${name}, was ${previous}.`];
      }
      case 'drain':
      case 'resume':
        mayChange();
        return [instanceSentence(await app[command](find(word).id))];
      case 'destroy': {
        mayChange();
        const row = find(word);
        pending = {
          word: row.id.slice(-4),
          run: async () => `${row.id}: ${(await app.destroy(row.id)).status}.`,
        };
        return [
          `Destroying ${row.id} cannot be undone: ${row.active} requests in flight, stops ${money(row.usdPerHour)} per hour.`,
          `Type ${row.id.slice(-4)}, the last 4 characters of the id, to do it; anything else cancels.`,
        ];
      }
      case 'reserve': {
        mayChange();
        const count = Number(word);
        if (!Number.isInteger(count) || count < 1 || count > 16)
          throw new Error('reserve needs a number of GPUs from 1 to 16');
        const request = { count, filter: {}, config: {} };
        const plan = await app.plan(request);
        if (plan.count === 0) return ['No offers match.'];
        const idempotencyKey = randomUUID();
        pending = {
          word: String(plan.count),
          run: async () => {
            const fresh = await app.plan(request);
            if (fresh.usdPerHour > plan.usdPerHour * 1.02)
              return `The price rose to ${money(fresh.usdPerHour)} per hour: nothing was rented.`;
            const result = await app.reserve(request, { idempotencyKey, by: 'tui' });
            return `Reserved ${result.count} of ${result.requested} GPUs.`;
          },
        };
        return [
          `${plan.count} of ${plan.requested} GPUs for ${money(plan.usdPerHour)} per hour, about ${money(plan.usdPerHour * 24)} a day.`,
          `Type ${plan.count} to rent them; anything else cancels.`,
        ];
      }
      case 'help':
      case '?':
        return [
          'Commands: status, instances, providers, events, strategy, strategy NAME or NUMBER, drain ID, resume ID, destroy ID, reserve NUMBER, quit.',
        ];
      case 'quit':
      case 'q':
        lines.close();
        return ['Bye.'];
      default:
        return [`No command ${plainText(command)}. Type help for the commands.`];
    }
  };

  say(...statusSentences(app.state.get()), 'Type help for the commands, quit to leave.');
  try {
    for await (const line of lines) {
      try {
        say(...(await answer(line)));
      } catch (error) {
        say(`Not done: ${plainText(reasonOf(error))}.`);
      }
    }
    return 0;
  } finally {
    clearInterval(timer);
    unsubscribe();
    options.signal?.removeEventListener('abort', stop);
  }
}
