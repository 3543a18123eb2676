import type { Command } from 'commander';
import { suggest, watchSeconds, withConnection, withExamples, withWatch } from '../command.ts';
import { type Fields, fieldsOf, listOf, numberOf, textOf } from '../fields.ts';
import { callInstance } from '../fleet-call.ts';
import { gpuText, vramText } from '../offer-options.ts';
import { type Column, counted, outputWidth, tableLines, usd } from '../output.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

export function build(command: Command): void {
  command.argument('[id]', 'one instance in full; all when left out');
  withWatch(command);
  suggest(command, 'id', 'instances');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy fleet', 'every server with its state'],
    ['gpuproxy fleet vast-12345', 'all that is known about one'],
    ['gpuproxy fleet -q', 'ids only'],
    ['gpuproxy fleet --json | jq ".upstreams[] | select(.eligible)"', 'for programs'],
  ]);
  command.action(async (id: string | undefined, options: { watch?: number }) => {
    const session = openSession(command);
    await show(session, watchSeconds(options.watch), async () => {
      if (id !== undefined) {
        const { body } = await callInstance(session, 'GET', id, '');
        return { json: body, text: oneText(fieldsOf(body)) };
      }
      const { body } = await session.call('GET', '/fleet');
      const upstreams = listOf(fieldsOf(body).upstreams);
      if (session.quiet) return { json: body, text: upstreams.map((each) => `${textOf(each.instance_id)}\n`).join('') };
      return { json: body, text: fleetText(upstreams, listOf(fieldsOf(body).foreign)) };
    });
  });
}

const columns: readonly Column<Fields>[] = [
  { title: 'INSTANCE', width: 11, value: (row) => textOf(row.instance_id), cut: true },
  { title: 'PROVIDER', width: 8, value: (row) => textOf(row.provider) },
  { title: 'STATE', width: 5, value: (row) => textOf(row.state) },
  { title: 'GPU', width: 10, value: (row) => gpuText(row.gpu_model, row.gpu_count), cut: true },
  { title: 'VRAM', width: 4, value: (row) => vramText(row.vram_gb) },
  { title: 'PRICE', width: 5, value: (row) => (row.provider === 'static' ? '-' : usd(numberOf(row.price_per_hour))) },
  { title: 'ACTIVE', value: (row) => textOf(fieldsOf(row.load).active_connections) },
  { title: 'AVG RT', value: (row) => textOf(fieldsOf(row.load).avg_response_time) },
  { title: 'REASON', value: (row) => textOf(row.reason, ''), cut: true },
];

function fleetText(upstreams: readonly Fields[], foreign: readonly Fields[]): string {
  const others =
    foreign.length === 0
      ? ''
      : `\n${counted(foreign.length, 'instance')} of the account ${foreign.length === 1 ? 'was' : 'were'} not rented here and ${foreign.length === 1 ? 'is' : 'are'} left alone:\n` +
        foreign
          .map(
            (row) =>
              `  ${textOf(row.provider)}  ${textOf(row.contract_id)}  ${textOf(row.gpu_model)}  ${usd(numberOf(row.price_per_hour))}\n`,
          )
          .join('');
  if (upstreams.length === 0) return `The fleet is empty. Rent with "gpuproxy reserve 1".\n${others}`;
  return `${tableLines(columns, upstreams, outputWidth()).join('\n')}\n${others}`;
}

function oneText(row: Fields): string {
  const load = fieldsOf(row.load);
  const lifecycle = fieldsOf(row.lifecycle);
  const models = Array.isArray(row.models) ? row.models.join(', ') : '-';
  const pairs: readonly (readonly [string, string])[] = [
    ['instance', textOf(row.instance_id)],
    ['state', [textOf(row.state), textOf(row.reason, '')].filter((word) => word !== '').join(': ')],
    ['takes requests', row.eligible === true ? 'yes' : 'no'],
    ['provider', textOf(row.provider)],
    ['contract', textOf(row.contract_id)],
    ['reservation', textOf(row.reservation_id)],
    ['lifecycle', `${textOf(lifecycle.phase)} since ${textOf(lifecycle.since)}`],
    ['origin', textOf(row.origin)],
    ['gpu', `${gpuText(row.gpu_model, row.gpu_count)}, ${vramText(row.vram_gb)}`],
    ['location', textOf(row.location)],
    ['models', models],
    ['price', `${usd(numberOf(row.price_per_hour))} per hour, ${usd(numberOf(row.spent_usd))} spent`],
    ['prepaid until', textOf(row.expires_at)],
    ['weight', `${numberOf(row.weight)?.toFixed(2) ?? '-'} (${textOf(row.weight_source)})`],
    ['requests', `${textOf(load.active_connections)} active, ${textOf(load.total_connections)} in total`],
    ['response time', `${textOf(load.avg_response_time)} average, ${textOf(load.last_response_time)} last`],
  ];
  const width = Math.max(...pairs.map(([name]) => name.length)) + 2;
  return pairs
    .map(([name, value]) => `${name.padEnd(width)}${value.replace(/[\u0000-\u001f\u007f]+/g, ' ')}\n`)
    .join('');
}
