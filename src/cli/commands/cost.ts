import type { Command } from 'commander';
import type { Answers } from '../answers.ts';
import { repeatOf, withConnection, withExamples, withWatch } from '../command.ts';
import { type Column, usd } from '../output.ts';
import { openSession, type Session } from '../session.ts';
import { show } from '../watch.ts';

const columns: readonly Column<Answers['cost']['instances'][number]>[] = [
  { title: 'INSTANCE', width: 11, value: (row) => row.instance_id },
  { title: 'PROVIDER', width: 8, value: (row) => row.provider },
  { title: 'PER HOUR', usd: (row) => row.usd_per_hour },
  { title: 'SPENT', usd: (row) => row.spent_usd },
];

export function build(command: Command): void {
  withWatch(command);
  withConnection(command);
  withExamples(command, [['gpuproxy cost', 'per hour, today, and in total']]);
  command.action(async (options: { watch?: number }) => {
    const session = openSession(command, { rows: 'instances' });
    await show(session, repeatOf(options), async () => {
      const answer = await session.call('GET', '/cost');
      return { json: answer.body, text: async () => costText(session, await session.read('cost', answer)) };
    });
  });
}

function costText(session: Session, cost: Answers['cost']): string {
  const rows = cost.instances;
  if (session.quiet) return rows.map((row) => `${row.instance_id}\n`).join('');
  if (session.plain) return session.table(columns, rows);
  const limit = cost.max_usd_per_hour;
  const head =
    `Per hour:    ${usd(cost.usd_per_hour)}${limit === null ? '' : ` of at most ${usd(limit)}`}\n` +
    `Spent today: ${usd(cost.spent_today_usd)}\n` +
    `Spent:       ${usd(cost.spent_usd)}\n`;
  return rows.length === 0 ? head : `${head}\n${session.table(columns, rows)}`;
}
