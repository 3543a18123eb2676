import type { Command } from 'commander';
import { defaultSubcommand, suggest, watchSeconds, withConnection, withExamples, withWatch } from '../command.ts';
import { CliError, exitCodes } from '../exit.ts';
import { type Fields, fieldsOf, linesOf, listOf, numberOf, textOf } from '../fields.ts';
import { nearest } from '../nearest.ts';
import { type Column, counted, outputWidth, tableLines, usd } from '../output.ts';
import { confirm, notConfirmed, openSession, type Session } from '../session.ts';
import { show } from '../watch.ts';

const columns: readonly Column<Fields>[] = [
  { title: 'RESERVATION', width: 11, value: (row) => textOf(row.reservation_id), cut: true },
  { title: 'STATE', width: 7, value: (row) => textOf(row.state) },
  { title: 'GPUS', value: (row) => textOf(row.requested) },
  { title: 'INSTANCES', value: (row) => String(linesOf(row.instances).length) },
  { title: 'PER HOUR', value: (row) => usd(numberOf(row.price_per_hour)) },
  { title: 'CREATED', value: (row) => textOf(row.created_at).replace(/\.\d+Z$/, 'Z') },
  { title: 'BY', value: (row) => textOf(row.by), cut: true },
];

export function build(command: Command): void {
  withWatch(command);
  suggest(command, 'id', 'reservations');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy reservations', 'all of them'],
    ['gpuproxy reservations show <id>', 'one with its instances and errors'],
    ['gpuproxy reservations release <id>', 'destroy all that it rented'],
  ]);
  defaultSubcommand(command, 'list')
    .description('All reservations.')
    .action(async (_options: unknown, self: Command) => {
      const session = openSession(self);
      await show(session, watchSeconds(self.optsWithGlobals<{ watch?: number }>().watch), async () => {
        const { body } = await session.call('GET', '/reservations');
        const rows = listOf(fieldsOf(body).reservations);
        if (session.quiet) return { json: body, text: rows.map((row) => `${textOf(row.reservation_id)}\n`).join('') };
        const text =
          rows.length === 0 ? 'Nothing is reserved.\n' : `${tableLines(columns, rows, outputWidth()).join('\n')}\n`;
        return { json: body, text };
      });
    });
  command
    .command('show')
    .description('One reservation.')
    .argument('<id>', 'reservation')
    .action(async (id: string, _options: unknown, self: Command) => {
      const session = openSession(self);
      await show(session, watchSeconds(self.optsWithGlobals<{ watch?: number }>().watch), async () => {
        const { body } = await callReservation(session, 'GET', id);
        return { json: body, text: oneText(fieldsOf(body)) };
      });
    });
  command
    .command('release')
    .description('Destroy all instances of a reservation.')
    .argument('<id>', 'reservation')
    .option('--now', 'do not drain first: open requests are cut')
    .option('-y, --yes', 'destroy without asking')
    .option('-n, --dry-run', 'show what would be destroyed, and destroy nothing')
    .action(async (id: string, options: { now?: boolean; yes?: boolean; dryRun?: boolean }, self: Command) => {
      const session = openSession(self);
      if (options.dryRun === true || (session.interactive && options.yes !== true)) {
        const answer = await callReservation(session, 'GET', id);
        const instances = linesOf(fieldsOf(answer.body).instances);
        if (options.dryRun === true) {
          if (session.json) session.printBody(answer);
          else session.print(instances.map((instance) => `${instance}\n`).join(''));
          return;
        }
        if (!(await confirm(`Destroy ${counted(instances.length, 'instance')} (${instances.join(', ')})?`))) {
          throw notConfirmed('nothing was destroyed');
        }
      }
      const answer = await callReservation(session, 'DELETE', id, { now: options.now });
      const released = linesOf(fieldsOf(answer.body).released);
      const failed = linesOf(fieldsOf(answer.body).failed);
      if (session.json) session.printBody(answer);
      else if (session.quiet) session.print(released.map((instance) => `${instance}\n`).join(''));
      else
        session.print(
          `Released ${counted(released.length, 'instance')} of ${id}\n${released.map((instance) => `  ${instance}\n`).join('')}`,
        );
      if (failed.length > 0) {
        throw new CliError(
          released.length > 0 ? exitCodes.partly : exitCodes.failed,
          'partly_done',
          `not yet destroyed: ${failed.join(', ')}`,
          { why: 'the provider did not confirm it', hint: 'the server repeats it; look with "gpuproxy fleet"' },
        );
      }
    });
}

async function callReservation(
  session: Session,
  method: 'GET' | 'DELETE',
  id: string,
  query = {},
): ReturnType<Session['call']> {
  try {
    return await session.call(method, `/reservations/${encodeURIComponent(id)}`, {
      query,
      ...(method === 'DELETE' ? { timeoutMs: 120_000 } : {}),
    });
  } catch (error) {
    if (!(error instanceof CliError) || error.status !== 404) throw error;
    const known = await session.client
      .call('GET', '/reservations')
      .then(({ body }) => listOf(fieldsOf(body).reservations).map((row) => textOf(row.reservation_id)))
      .catch(() => []);
    const near = nearest(id, known);
    throw new CliError(
      exitCodes.failed,
      error.code,
      `unknown reservation "${id}"${near === undefined ? '' : `; did you mean ${near}?`}`,
      { status: 404, requestId: error.requestId, hint: '"gpuproxy reservations" lists them' },
    );
  }
}

function oneText(row: Fields): string {
  const errors = linesOf(row.errors).map((line) => `warning: ${line}\n`);
  return `${tableLines(columns, [row], outputWidth()).join('\n')}\n${linesOf(row.instances)
    .map((instance) => `  ${instance}\n`)
    .join('')}${errors.join('')}`;
}
