import type { Command } from 'commander';
import { watchSeconds, withConnection, withExamples, withWatch } from '../command.ts';
import { type Fields, fieldsOf, listOf, numberOf, textOf } from '../fields.ts';
import { type Column, duration, outputWidth, tableLines, usd } from '../output.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

const columns: readonly Column<Fields>[] = [
  { title: 'PROVIDER', width: 8, value: (row) => textOf(row.provider) },
  { title: 'STATE', value: (row) => textOf(row.status) },
  { title: 'AVAILABLE', value: (row) => textOf(row.available) },
  {
    title: 'PRICE',
    value: (row) =>
      numberOf(row.min_price) === null ? '-' : `${usd(numberOf(row.min_price))} to ${usd(numberOf(row.max_price))}`,
  },
  { title: 'RENTED', value: (row) => textOf(row.rented) },
  { title: 'PER HOUR', value: (row) => usd(numberOf(row.price_per_hour)) },
  { title: 'CREDIT', value: (row) => usd(numberOf(row.credit_usd)) },
  {
    title: 'LATENCY',
    value: (row) => (numberOf(row.latency_ms) === null ? '-' : `${Math.round(numberOf(row.latency_ms)!)}ms`),
  },
  {
    title: 'ASKED',
    value: (row) =>
      typeof row.refreshed_at === 'string' ? `${duration(Date.now() - Date.parse(row.refreshed_at))} ago` : '-',
  },
];

export function build(command: Command): void {
  command.option('--refresh', 'ask the providers again now');
  withWatch(command);
  withConnection(command);
  withExamples(command, [
    ['gpuproxy providers', 'state, stock, prices and credit'],
    ['gpuproxy providers --refresh', 'not from the last round, but asked now'],
  ]);
  command.action(async (options: { watch?: number; refresh?: boolean }) => {
    const session = openSession(command);
    await show(session, watchSeconds(options.watch), async () => {
      const { body } =
        options.refresh === true
          ? await session.call('POST', '/providers/refresh', { timeoutMs: 60_000 })
          : await session.call('GET', '/providers');
      const providers = listOf(fieldsOf(body).providers);
      const errors = providers
        .filter((row) => row.status === 'error')
        .map((row) => `${textOf(row.provider)}: ${textOf(fieldsOf(row.last_error).message)}\n`);
      const text =
        providers.length === 0
          ? 'No provider is configured. Set VASTAI_API_KEY or IONET_API_KEY for the server.\n'
          : `${tableLines(columns, providers, outputWidth()).join('\n')}\n${errors.length === 0 ? '' : `\n${errors.join('')}`}`;
      return { json: body, text };
    });
  });
}
