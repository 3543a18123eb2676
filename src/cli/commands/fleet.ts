import type { Command } from 'commander';
import { counted } from '../../core/words.ts';
import type { Answers } from '../answers.ts';
import {
  type RepeatOptions,
  repeatOf,
  suggest,
  withConnection,
  withExamples,
  withUntil,
  withWatch,
} from '../command.ts';
import { callInstance } from '../fleet-call.ts';
import { gpuColumn, gpuText, vramText } from '../offer-options.ts';
import { type Column, duration, usd } from '../output.ts';
import { readiness } from '../readiness.ts';
import { openSession, type Session } from '../session.ts';
import { show } from '../watch.ts';

type Upstream = Answers['upstream'];

export function build(command: Command): void {
  command.argument('[id]', 'one instance in full; all when left out');
  withWatch(command);
  withUntil(command);
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy fleet', 'every server with its state'],
    ['gpuproxy fleet vast-12345', 'all that is known about one'],
    ['gpuproxy fleet vast-12345 --until ready --timeout 10m', 'wait until it takes requests'],
    ['gpuproxy fleet -q', 'ids only'],
    ['gpuproxy fleet --json | jq ".upstreams[] | select(.eligible)"', 'for programs'],
  ]);
  command.action(async (id: string | undefined) => {
    const session = openSession(command, id === undefined ? { rows: 'upstreams' } : { schema: 'fleet <id>' });
    await show(session, repeatOf(command.opts<RepeatOptions>()), async () => {
      if (id !== undefined) {
        const answer = await callInstance(session, 'GET', id, '');
        return {
          json: answer.body,
          text: async () => oneText(session, await session.read('upstream', answer)),
          progress: async () => readiness([id], [await session.read('upstream', answer)]),
        };
      }
      const answer = await session.call('GET', '/fleet');
      return {
        json: answer.body,
        text: async () => fleetText(session, await session.read('fleet', answer)),
        async progress() {
          const { upstreams } = await session.read('fleet', answer);
          // What is on its way out is not waited for.
          const wanted = upstreams.filter(({ lifecycle }) => !['destroying', 'ended'].includes(lifecycle.phase));
          return readiness(
            wanted.map((upstream) => upstream.instance_id),
            wanted,
          );
        },
      };
    });
  });
}

const columns: readonly Column<Upstream>[] = [
  { title: 'INSTANCE', width: 11, value: (row) => row.instance_id },
  { title: 'PROVIDER', width: 8, value: (row) => row.provider, drop: 2 },
  { title: 'STATE', width: 5, value: (row) => row.state },
  gpuColumn((row) => [row.gpu_model, row.gpu_count]),
  { title: 'VRAM', width: 4, value: (row) => vramText(row.vram_gb), plain: (row) => row.vram_gb, drop: 1 },
  {
    title: 'PRICE',
    width: 5,
    usd: (row) => (row.provider === 'static' ? null : row.price_per_hour),
    plain: (row) => row.price_per_hour,
  },
  { title: 'LEFT', value: (row) => timeLeft(row) ?? '-', plain: (row) => row.expires_at, drop: 3 },
  { title: 'ACTIVE', value: (row) => String(row.load.active_connections) },
  { title: 'AVG RT', value: (row) => row.load.avg_response_time, plain: (row) => row.load.avg_response_time_ms },
  { title: 'REASON', value: (row) => row.reason, cut: 12 },
];

/** Of prepaid time; null where billing is by use, or nothing is left that could run out. */
function timeLeft({ expires_at: end, lifecycle }: Upstream): string | null {
  return end === null || lifecycle.phase === 'ended' ? null : duration(Date.parse(end) - Date.now());
}

function fleetText(session: Session, { upstreams, foreign }: Answers['fleet']): string {
  if (session.quiet) return upstreams.map((each) => `${each.instance_id}\n`).join('');
  if (session.plain) return session.table(columns, upstreams);
  const others =
    foreign.length === 0
      ? ''
      : `\n${counted(foreign.length, 'instance')} of the account ${foreign.length === 1 ? 'was' : 'were'} not rented here and ${foreign.length === 1 ? 'is' : 'are'} left alone:\n` +
        foreign
          .map((row) => `  ${row.provider}  ${row.contract_id}  ${row.gpu_model}  ${usd(row.price_per_hour)}\n`)
          .join('');
  if (upstreams.length === 0) return `The fleet is empty. Rent with "gpuproxy reserve 1".\n${others}`;
  return `${session.table(columns, upstreams)}${others}`;
}

function oneText(session: Session, row: Upstream): string {
  if (session.quiet) return `${row.instance_id}\n`;
  if (session.plain) return session.table(columns, [row]);
  const { load, lifecycle } = row;
  const pairs: readonly (readonly [string, string])[] = [
    ['instance', row.instance_id],
    ['state', [row.state, row.reason].filter((word) => word !== '').join(': ')],
    ['takes requests', row.eligible ? 'yes' : 'no'],
    ['provider', row.provider],
    ['contract', row.contract_id ?? '-'],
    ['reservation', row.reservation_id ?? '-'],
    ['lifecycle', `${lifecycle.phase} since ${lifecycle.since}`],
    ['origin', row.origin ?? '-'],
    ['gpu', `${gpuText(row.gpu_model, row.gpu_count)}, ${vramText(row.vram_gb)}`],
    ['location', row.location ?? '-'],
    ['models', row.models?.join(', ') ?? '-'],
    ['price', `${usd(row.price_per_hour)} per hour, ${usd(row.spent_usd)} spent`],
    ['prepaid until', row.expires_at === null ? '-' : `${row.expires_at} (${timeLeft(row) ?? '0 s'} left)`],
    ['interruptible', row.interruptible ? 'yes, as long as its bid wins' : 'no'],
    ['weight', `${row.weight.toFixed(2)} (${row.weight_source})`],
    ['requests', `${load.active_connections} active, ${load.total_connections} in total`],
    ['response time', `${load.avg_response_time} average, ${load.last_response_time} last`],
  ];
  const width = Math.max(...pairs.map(([name]) => name.length)) + 2;
  return pairs
    .map(([name, value]) => `${name.padEnd(width)}${value.replace(/[\u0000-\u001f\u007f]+/g, ' ')}\n`)
    .join('');
}
