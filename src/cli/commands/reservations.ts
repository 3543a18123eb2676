import type { Command } from 'commander';
import { counted, nearest } from '../../core/words.ts';
import type { Answers } from '../answers.ts';
import type { Answer } from '../client.ts';
import {
  defaultSubcommand,
  type RepeatOptions,
  repeatOf,
  suggest,
  withConnection,
  withExamples,
  withUntil,
  withWatch,
} from '../command.ts';
import { confirmation, confirmedAs, settle } from '../confirm.ts';
import { CliError, exitCodes } from '../exit.ts';
import { forSuggestion } from '../fleet-call.ts';
import { type Column, duration } from '../output.ts';
import { checkPlan, looksFirst, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { readiness } from '../readiness.ts';
import { openSession, type Session } from '../session.ts';
import { show } from '../watch.ts';

type Reservation = Answers['reservation'];

const columns: readonly Column<Reservation>[] = [
  { title: 'RESERVATION', width: 11, value: (row) => row.reservation_id },
  { title: 'STATE', width: 7, value: (row) => row.state },
  { title: 'GPUS', value: (row) => String(row.requested) },
  { title: 'INSTANCES', value: (row) => String(row.instances.length) },
  { title: 'PER HOUR', usd: (row) => row.price_per_hour },
  { title: 'AGE', value: (row) => duration(Date.now() - Date.parse(row.created_at)), plain: (row) => row.created_at },
  { title: 'BY', value: (row) => row.by, cut: 6, drop: 1 },
];

export function build(command: Command): void {
  withWatch(command);
  suggest(command, 'id', 'reservations');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy reservations', 'all of them'],
    ['gpuproxy reservations show <id>', 'one with its instances and errors'],
    ['gpuproxy reservations show <id> --until ready --timeout 10m', 'wait until all of it takes requests'],
    ['gpuproxy reservations release <id>', 'destroy all that it rented'],
  ]);
  const list = defaultSubcommand(command, 'list').description('All reservations.');
  withExamples(list, [
    ['gpuproxy reservations list', 'all of them'],
    ['gpuproxy reservations list --watch 5', 'again every 5 seconds'],
  ]).action(async (_options: unknown, self: Command) => {
    const session = openSession(self, { rows: 'reservations' });
    await show(session, repeatOf(self.optsWithGlobals<RepeatOptions>()), async () => {
      const answer = await session.call('GET', '/reservations');
      return {
        json: answer.body,
        async text() {
          const { reservations: rows } = await session.read('reservations', answer);
          if (session.quiet) return rows.map((row) => `${row.reservation_id}\n`).join('');
          return rows.length === 0 && !session.plain ? 'Nothing is reserved.\n' : session.table(columns, rows);
        },
      };
    });
  });
  const one = command.command('show').description('One reservation.').argument('<id>', 'reservation');
  withUntil(one);
  withExamples(one, [
    ['gpuproxy reservations show res-4ea8bcbc2f', 'its instances and errors'],
    ['gpuproxy reservations show res-4ea8bcbc2f --until ready', 'once all of it takes requests'],
  ]).action(async (id: string, _options: unknown, self: Command) => {
    const session = openSession(self);
    await show(session, repeatOf(self.optsWithGlobals<RepeatOptions>()), async () => {
      const answer = await callReservation(session, 'GET', id);
      return {
        json: answer.body,
        text: async () => oneText(session, await session.read('reservation', answer)),
        async progress() {
          const reservation = await session.read('reservation', answer);
          const { upstreams } = await session.read('fleet', await session.call('GET', '/fleet'));
          const far = readiness(reservation.instances, upstreams);
          if (reservation.state === 'renting') return { ...far, reached: false, hopeless: null };
          return ['failed', 'ended', 'releasing'].includes(reservation.state)
            ? { ...far, reached: false, hopeless: `the reservation is ${reservation.state}` }
            : far;
        },
      };
    });
  });
  const release = command
    .command('release')
    .description('Destroy all instances of a reservation.')
    .argument('<id>', 'reservation')
    .option('--now', 'do not drain first: open requests are cut')
    .option('-y, --yes', 'destroy without asking')
    .option('--confirm <id>', 'the same if it is this reservation');
  withPlan(release);
  withExamples(release, [
    ['gpuproxy reservations release res-4ea8bcbc2f', 'drain its instances, then give them back'],
    ['gpuproxy reservations release res-4ea8bcbc2f --dry-run', 'which those are'],
    ['gpuproxy reservations release res-4ea8bcbc2f --confirm res-4ea8bcbc2f', 'in a script'],
  ]).action(async (id: string, options: ReleaseOptions, self: Command) => {
    const session = openSession(self);
    const confirmed =
      options.yes === true ||
      options.plan !== undefined ||
      confirmedAs(options.confirm, id, `the reservation is ${id}`);
    const need = confirmation(session, { confirmed });
    if (looksFirst(session, options) || need !== 'none') {
      const answer = await callReservation(session, 'GET', id);
      const { instances } = await session.read('reservation', answer);
      const query = options.now === true ? { now: true } : {};
      const plan = planOf(session, [{ method: 'DELETE', path: `/reservations/${id}`, query }], instances);
      if (options.dryRun === true) {
        const document = { reservation_id: id, instances };
        showPlan(session, plan, document, instances.map((instance) => `${instance}\n`).join(''));
        return;
      }
      checkPlan(plan, options.plan);
      if (need !== 'none') {
        const what = `${counted(instances.length, 'instance')} (${instances.join(', ')})`;
        await settle(need, {
          question: `Destroy ${what}?`,
          undone: 'nothing was destroyed',
          would: `destroy ${what}`,
        });
      }
    }
    const answer = await callReservation(session, 'DELETE', id, { now: options.now });
    const { released, failed } = await session.read('released', answer);
    if (session.json) session.printBody(answer);
    else if (session.quiet || session.plain) session.print(released.map((instance) => `${instance}\n`).join(''));
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

type ReleaseOptions = PlanOptions & Readonly<{ now?: boolean; yes?: boolean; confirm?: string }>;

async function callReservation(session: Session, method: 'GET' | 'DELETE', id: string, query = {}): Promise<Answer> {
  try {
    return await session.call(method, `/reservations/${encodeURIComponent(id)}`, {
      query,
      ...(method === 'DELETE' ? { timeoutMs: 120_000 } : {}),
    });
  } catch (error) {
    if (!(error instanceof CliError) || error.status !== 404) throw error;
    const known = await forSuggestion(async () => {
      const { reservations } = await session.read('reservations', await session.client.call('GET', '/reservations'));
      return reservations.map((row) => row.reservation_id);
    });
    const near = nearest(id, known);
    throw new CliError(
      exitCodes.failed,
      error.code,
      `unknown reservation "${id}"${near === undefined ? '' : `; did you mean ${near}?`}`,
      { status: 404, requestId: error.requestId, hint: '"gpuproxy reservations" lists them' },
    );
  }
}

function oneText(session: Session, row: Reservation): string {
  if (session.quiet) return row.instances.map((instance) => `${instance}\n`).join('');
  if (session.plain) return session.table(columns, [row]);
  const errors = row.errors.map((line) => `warning: ${line}\n`);
  const instances = [
    ...row.instances.map((instance) => `  ${instance}\n`),
    ...row.ended.map((instance) => `  ${instance}  ended\n`),
  ];
  return `${session.table(columns, [row])}${instances.join('')}${errors.join('')}`;
}
