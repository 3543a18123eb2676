import type { Command } from 'commander';
import { watchSeconds, withConnection, withExamples, withWatch } from '../command.ts';
import { type Fields, fieldsOf, listOf, numberOf, textOf } from '../fields.ts';
import { type Column, outputWidth, tableLines, usd } from '../output.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

const columns: readonly Column<Fields>[] = [
  { title: 'INSTANCE', width: 11, value: (row) => textOf(row.instance_id), cut: true },
  { title: 'PROVIDER', width: 8, value: (row) => textOf(row.provider) },
  { title: 'PER HOUR', value: (row) => usd(numberOf(row.usd_per_hour)) },
  { title: 'SPENT', value: (row) => usd(numberOf(row.spent_usd)) },
];

export function build(command: Command): void {
  withWatch(command);
  withConnection(command);
  withExamples(command, [['gpuproxy cost', 'per hour, today, and in total']]);
  command.action(async (options: { watch?: number }) => {
    const session = openSession(command);
    await show(session, watchSeconds(options.watch), async () => {
      const { body } = await session.call('GET', '/cost');
      const cost = fieldsOf(body);
      const limit = numberOf(cost.max_usd_per_hour);
      const head =
        `Per hour:    ${usd(numberOf(cost.usd_per_hour))}${limit === null ? '' : ` of at most ${usd(limit)}`}\n` +
        `Spent today: ${usd(numberOf(cost.spent_today_usd))}\n` +
        `Spent:       ${usd(numberOf(cost.spent_usd))}\n`;
      const rows = listOf(cost.instances);
      return {
        json: body,
        text: rows.length === 0 ? head : `${head}\n${tableLines(columns, rows, outputWidth()).join('\n')}\n`,
      };
    });
  });
}
