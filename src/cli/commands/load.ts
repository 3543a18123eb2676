import type { Command } from 'commander';
import { nearest } from '../../core/words.ts';
import type { Answers } from '../answers.ts';
import { repeatOf, suggest, withConnection, withExamples, withWatch } from '../command.ts';
import { usageError } from '../exit.ts';
import { type Column, duration } from '../output.ts';
import { openSession, type Session } from '../session.ts';
import { show } from '../watch.ts';

const parts = ['server', 'provider'] as const;

export function build(command: Command): void {
  command.argument('[part]', `server or provider; both when left out`);
  withWatch(command);
  withConnection(command);
  suggest(command, 'part', parts);
  withExamples(command, [
    ['gpuproxy load', 'the load of every instance, and what the providers offer'],
    ['gpuproxy load server --watch 5', 'the load table, again every 5 seconds'],
    ['gpuproxy load --json | jq .loads', 'for programs'],
  ]);
  command.action(async (part: string | undefined, options: { watch?: number }) => {
    if (part !== undefined && !(parts as readonly string[]).includes(part)) {
      const near = nearest(part, parts);
      throw usageError(`unknown part "${part}"${near ? `; did you mean ${near}?` : ''}`, {
        hint: 'gpuproxy load, gpuproxy load server, or gpuproxy load provider',
      });
    }
    const session = openSession(command, { rows: part === 'provider' ? 'providers' : 'loads' });
    await show(session, repeatOf(options), async () => {
      const [loads, providers] = await Promise.all([
        part === 'provider' ? null : session.call('GET', '/loadbalancer/loads'),
        part === 'server' || (part === undefined && rowsAlone(session)) ? null : session.call('GET', '/providers'),
      ]);
      return {
        json: loads === null || providers === null ? (loads ?? providers)?.body : merged(loads.body, providers.body),
        async text() {
          const blocks = [
            loads && serverText(session, await session.read('loads', loads)),
            providers && providerText(session, await session.read('available', providers)),
          ];
          return blocks.filter((block) => typeof block === 'string').join('\n');
        },
      };
    });
  });
}

/** Rows of two kinds have no place in one list, so without a part named these are the instances. */
function rowsAlone({ plain, quiet, json }: Session): boolean {
  return (plain || quiet) && !json;
}

/** Both bodies as one document: they share no field. */
function merged(loads: unknown, providers: unknown): object {
  return Object.assign({}, loads, providers);
}

type Load = Answers['loads']['loads'][string];

const columns: readonly Column<Load>[] = [
  { title: 'INSTANCE', width: 11, value: (load) => load.instance_id },
  { title: 'PROVIDER', width: 8, value: (load) => load.provider },
  { title: 'ACTIVE', width: 6, value: (load) => String(load.active_connections) },
  { title: 'TOTAL', width: 5, value: (load) => String(load.total_connections) },
  { title: 'AVG RT', width: 7, value: (load) => load.avg_response_time, plain: averageMs },
  { title: 'WEIGHT', value: (load) => load.weight.toFixed(2), plain: (load) => load.weight },
];

/** null before the first answer. Of a server that tells people alone it is what they read. */
function averageMs({ avg_response_time_ms: ms, avg_response_time: text }: Load): number | null {
  const told = ms === undefined ? Number.parseFloat(text) : ms;
  return told === null || Number.isNaN(told) ? null : Math.round(told * 1000) / 1000;
}

function serverText(session: Session, { strategy, count, loads }: Answers['loads']): string {
  const rows = Object.values(loads);
  if (session.quiet) return rows.map((load) => `${load.instance_id}\n`).join('');
  if (session.plain) return session.table(columns, rows);
  return `Load Balancing Strategy: ${strategy}\nTracked Instances: ${count}\n\n${session.table(columns, rows)}`;
}

function providerText(session: Session, { providers, total_available: total }: Answers['available']): string {
  // Servers that one already has are not for rent.
  const rows = providers.filter(({ provider }) => provider !== 'static');
  if (session.quiet) return rows.map((row) => `${row.provider}\n`).join('');
  if (session.plain) return rows.map((row) => session.line(row.provider, String(row.available))).join('');
  for (const row of rows) {
    if (row.status !== 'error') continue;
    const age = row.refreshed_at == null ? null : duration(Date.now() - Date.parse(row.refreshed_at));
    const shown = age === null ? 'what it has is not known' : `its number is ${age} old`;
    session.note(`warning: ${row.provider}: ${row.last_error?.message ?? 'no answer'}; ${shown}`);
  }
  const width = Math.max(...['Total', ...rows.map((row) => row.provider)].map((name) => name.length)) + 2;
  const line = (name: string, count: number, more: boolean, word: string) =>
    `  ${`${name}:`.padEnd(width)}${count}${more ? '+' : ''} ${word}instance${count === 1 && !more ? '' : 's'}`;
  const lines = [
    ...rows.map((row) => line(row.provider, row.available, row.more === true, 'available ')),
    line(
      'Total',
      total,
      rows.some((row) => row.more === true),
      '',
    ),
  ];
  return `Provider Load:\n${lines.join('\n')}\n`;
}
