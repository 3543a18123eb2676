import type { Command } from 'commander';
import type { Answers } from '../answers.ts';
import { repeatOf, withConnection, withExamples, withWatch } from '../command.ts';
import { type Column, duration, usd } from '../output.ts';
import { openSession, type Session } from '../session.ts';
import { show } from '../watch.ts';

type Provider = Answers['providers']['providers'][number];

const columns: readonly Column<Provider>[] = [
  { title: 'PROVIDER', width: 8, value: (row) => row.provider },
  { title: 'STATE', value: (row) => row.status },
  {
    title: 'AVAILABLE',
    value: (row) => `${row.available}${row.more ? '+' : ''}`,
    plain: (row) => row.available,
  },
  {
    title: 'PRICE',
    value: (row) => (row.min_price === null ? '-' : `${usd(row.min_price)} to ${usd(row.max_price)}`),
    plain: (row) => row.min_price,
  },
  { title: 'RENTED', value: (row) => String(row.rented) },
  { title: 'PER HOUR', usd: (row) => row.price_per_hour },
  { title: 'CREDIT', usd: (row) => row.credit_usd },
  {
    title: 'LATENCY',
    value: (row) => (row.latency_ms === null ? '-' : `${Math.round(row.latency_ms)}ms`),
    plain: (row) => row.latency_ms,
    drop: 2,
  },
  {
    title: 'ASKED',
    value: (row) => (row.refreshed_at === null ? '-' : `${duration(Date.now() - Date.parse(row.refreshed_at))} ago`),
    plain: (row) => row.refreshed_at,
    drop: 1,
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
    const session = openSession(command, { rows: 'providers' });
    await show(session, repeatOf(options), async () => {
      const answer =
        options.refresh === true
          ? await session.call('POST', '/providers/refresh', { timeoutMs: 60_000 })
          : await session.call('GET', '/providers');
      return {
        json: answer.body,
        text: async () => providersText(session, (await session.read('providers', answer)).providers),
      };
    });
  });
}

function providersText(session: Session, providers: readonly Provider[]): string {
  if (session.quiet) return providers.map((row) => `${row.provider}\n`).join('');
  if (session.plain) return session.table(columns, providers);
  if (providers.length === 0) {
    return 'No provider is configured. Set VASTAI_API_KEY or IONET_API_KEY for the server.\n';
  }
  const errors = providers
    .filter((row) => row.status === 'error')
    .map((row) => `${row.provider}: ${row.last_error?.message ?? 'no answer'}\n`);
  return `${session.table(columns, providers)}${errors.length === 0 ? '' : `\n${errors.join('')}`}`;
}
