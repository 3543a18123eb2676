import { counted } from '../../core/words.ts';
import type { UpstreamView } from '../../fleet/app.ts';
import { gpuLabel, stateStyle } from '../columns.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { each } from '../each.ts';
import { fitId, fitText, money, percent } from '../format.ts';
import { type Line, outside, span } from '../line.ts';
import type { View } from '../view.ts';
import { type Choice, createConfirmation } from './confirmation.ts';

/** What the rest of the fleet would carry without some instances: in-flight per GPU now and after, and what is lost. */
export function loadWithout(
  rows: readonly UpstreamView[],
  gone: ReadonlySet<string>,
): Readonly<{ before: number | null; after: number | null; left: number; lostModels: readonly string[] }> {
  const carrying = rows.filter((row) => row.eligible);
  const staying = carrying.filter((row) => !gone.has(row.id));
  const gpus = (list: readonly UpstreamView[]) => list.reduce((sum, row) => sum + Math.max(1, row.gpuCount), 0);
  const active = rows.reduce((sum, row) => sum + row.active, 0);
  const models = (list: readonly UpstreamView[]) => new Set(list.flatMap((row) => row.models ?? []));
  const kept = models(staying);
  return {
    before: carrying.length === 0 ? null : active / gpus(carrying),
    after: staying.length === 0 ? null : active / gpus(staying),
    left: staying.length,
    lostModels: [...models(carrying)].filter((model) => !kept.has(model)),
  };
}

/** Destroying cannot be undone: says what is lost, what the rest would carry, and asks for a typed word. */
export function createDestroyDialog(dashboard: Dashboard, ids: readonly string[]): Overlay {
  const gone = new Set(ids);
  const start = dashboard.view().snapshot.upstreams.filter((row) => gone.has(row.id));
  const owned = new Set(start.filter((row) => row.provider === 'static').map((row) => row.id));
  // A server that one already had is not rented: it only leaves the fleet, and can be added again.
  const removes = owned.size === ids.length;
  const [word, words, title] = removes ? ['remove', 'removed', 'REMOVE'] : ['destroy', 'destroyed', 'DESTROY'];
  const single = start.length === 1 ? start[0] : undefined;
  const after = loadWithout(dashboard.view().snapshot.upstreams, gone);
  const risky =
    start.some((row) => row.eligible) &&
    (after.left === 0 || after.lostModels.length > 0 || doubles(after.before, after.after));

  const commandLine = (now: boolean): string =>
    ids
      .map((id) => `gpuproxy ${owned.has(id) ? 'upstream remove' : 'destroy'} ${id}${now ? ' --now' : ''}`)
      .join(' && ');
  const drainLine = ids.map((id) => `gpuproxy drain ${id}`).join(' && ');
  const end = (now: boolean) => () => {
    void dashboard.act(
      word,
      async () => {
        const pending = await each(ids, async (id) => {
          if (!owned.has(id)) return (await dashboard.app.destroy(id, { now })).status === 'destroying';
          await dashboard.app.removeUpstream(id, { now });
          return dashboard.app.state.get().upstreams.some((row) => row.id === id);
        });
        dashboard.update({ marks: new Set() });
        const state = pending.includes(true) ? (now ? `being ${words}` : `draining, then ${words}`) : words;
        return `${ids.length === 1 ? ids[0] : counted(ids.length, removes ? 'server' : 'instance')} ${state}`;
      },
      commandLine(now),
    );
  };
  const drainOnly = () => {
    void dashboard.act(
      'drain',
      async () => {
        await each(ids, (id) => dashboard.app.drain(id));
        return removes ? 'draining' : 'draining; still paid for';
      },
      drainLine,
    );
  };

  const choices = (view: View): readonly Choice[] => {
    const inFlight = view.snapshot.upstreams.reduce((sum, row) => sum + (gone.has(row.id) ? row.active : 0), 0);
    const failing = inFlight > 0 ? ` and fail ${counted(inFlight, 'request')} in flight` : '';
    return [
      {
        label: `Drain first, then ${word}`,
        ...(risky ? {} : { note: 'recommended' }),
        cli: commandLine(false),
        run: end(false),
      },
      { label: `${removes ? 'Remove' : 'Destroy'} now${failing}`, cli: commandLine(true), run: end(true) },
      { label: removes ? 'Drain only' : 'Drain only, keep paying', cli: drainLine, run: drainOnly },
      { label: 'Cancel', run: null },
    ];
  };
  return createConfirmation(dashboard, {
    title,
    body: (view) => bodyLines(view, gone, risky, removes),
    choices,
    first: risky ? 3 : 0,
    typed: removes
      ? null
      : single !== undefined
        ? { word: single.id.slice(-4), prompt: 'Type the last 4 characters of the id and enter:' }
        : { word: String(ids.length), prompt: `Type ${ids.length}, their number, and enter:` },
  });
}

const doubles = (before: number | null, after: number | null): boolean =>
  before !== null && after !== null && before >= 1 && after > before * 1.8;

function bodyLines(view: View, gone: ReadonlySet<string>, risky: boolean, removes: boolean): Line[] {
  const rows = view.snapshot.upstreams.filter((row) => gone.has(row.id));
  const after = loadWithout(view.snapshot.upstreams, gone);
  const lines: Line[] = [];
  if (risky) {
    lines.push([
      span(
        after.left === 0
          ? 'Nothing would be left to answer requests.'
          : after.lostModels.length > 0
            ? `No other instance serves ${after.lostModels.join(', ')}.`
            : 'The rest would carry much more than now.',
        'bad',
      ),
    ]);
  }
  lines.push(
    [
      span(
        removes
          ? `Remove ${rows.length === 1 ? 'this server' : `${rows.length} servers`} from the fleet? It goes on running.`
          : `Destroy ${counted(rows.length, 'instance')}? This cannot be undone.`,
        'strong',
      ),
    ],
    [],
  );
  for (const row of rows.slice(0, 8)) {
    lines.push([
      span('  '),
      outside(fitId(row.id, 16), 'strong'),
      outside(` ${fitText(row.provider, 7)} ${fitText(gpuLabel(row), 12)} `),
      span(fitText(row.state, 10), stateStyle(row.state)),
      span(`${row.active} in flight, ${percent(row.share)} share`, 'dim'),
    ]);
  }
  if (rows.length > 8) lines.push([span(`  and ${rows.length - 8} more`, 'dim')]);
  const saved = rows.reduce((sum, row) => sum + row.usdPerHour, 0);
  const carried =
    after.after === null || after.before === null
      ? ''
      : `in flight per GPU ${after.before.toFixed(1)} now, ${after.after.toFixed(1)} after`;
  lines.push(
    [],
    removes
      ? [span(carried === '' ? '' : `  ${carried}`, 'dim')]
      : [
          span('  stops '),
          span(`${money(saved)}/h`, 'good'),
          span(` of ${money(view.snapshot.cost.usdPerHour)}/h`, 'dim'),
          span(carried === '' ? '' : `; ${carried}`, 'dim'),
        ],
    ...prepaidLines(rows, view.clock),
  );
  return lines;
}

/** What is lost of time that is paid already. */
export function prepaidLines(rows: readonly UpstreamView[], now: number): Line[] {
  const usd = rows.reduce(
    (sum, row) => sum + (Math.max(0, (row.expiresAt ?? now) - now) / 3_600_000) * row.usdPerHour,
    0,
  );
  return usd < 0.005 ? [] : [[span(`  ${money(usd)} of prepaid time is not used and stays booked`, 'warn')]];
}
