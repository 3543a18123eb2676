import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { counted } from '../../core/words.ts';
import type { Answers } from '../answers.ts';
import { withConnection, withExamples } from '../command.ts';
import { confirmation, settle } from '../confirm.ts';
import { CliError, exitCodes } from '../exit.ts';
import {
  type ConfigOptions,
  checkTotal,
  configBody,
  costText,
  type FilterOptions,
  filtersBody,
  gpuColumn,
  nothingToRent,
  offerColumns,
  positive,
  vramText,
  wholeFrom,
  withFilters,
  withInstanceConfig,
} from '../offer-options.ts';
import type { Column } from '../output.ts';
import { agreed, callPaid } from '../paid-call.ts';
import { checkPlan, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession, type Session } from '../session.ts';

type ReserveOptions = FilterOptions &
  ConfigOptions &
  PlanOptions &
  Readonly<{ yes?: boolean; allOrNothing?: boolean; idempotencyKey?: string; maxTotal?: number }>;

export function build(command: Command): void {
  command.argument('<count>', 'GPUs, 1 to 16', wholeFrom('count', 1, 16));
  withFilters(command, { provider: true });
  withInstanceConfig(command);
  command
    .optionsGroup('Options:')
    .option('-y, --yes', 'rent without asking')
    .option(
      '--max-total <usd>',
      'rent without asking if all of it costs at most so much per hour, else nothing',
      positive('--max-total'),
    )
    .option('--all-or-nothing', 'keep nothing unless all can be had')
    .option('--idempotency-key <text>', 'a repeat with the same key rents nothing new (default: a random one)');
  withPlan(command);
  withConnection(command);
  withExamples(command, [
    ['gpuproxy reserve 4', 'rent 4 GPUs, chosen by the strategy'],
    ['gpuproxy reserve 8 --min-vram 24 --max-price 2.0', 'with filters'],
    ['gpuproxy reserve 8 --gpu-count 4 --all-or-nothing', 'two instances of 4 GPUs, or none'],
    ['gpuproxy reserve 2 --dry-run', 'what would be rented, its price, and the id of that plan'],
    ['gpuproxy reserve 2 --max-total 1.50 --json', 'for programs: two for at most $1.50 per hour together'],
  ]);
  command.action(async (count: number, options: ReserveOptions) => {
    const session = openSession(command, { rows: options.dryRun === true ? 'instances' : 'reserved' });
    const body = {
      count,
      filters: filtersBody(options),
      config: configBody(options),
      ...(options.allOrNothing === true ? { all_or_nothing: true } : {}),
    };
    const need = confirmation(session, {
      confirmed: options.yes === true || options.plan !== undefined || options.maxTotal !== undefined,
      unasked: true,
    });
    let most = options.maxTotal ?? null;
    if (options.dryRun === true || options.plan !== undefined || most !== null || need !== 'none') {
      const answer = await session.call('POST', '/gpu/instances/plan', { body });
      const plan = await session.read('plan', answer);
      const limit = Math.min(agreed(plan.price_per_hour), options.maxTotal ?? Number.POSITIVE_INFINITY);
      const planned = planOf(
        session,
        [{ method: 'POST', path: '/gpu/instances/reserve', body: { ...body, max_total_price: limit } }],
        plan.instances.map((offer) => [offer.provider, offer.id, offer.price_per_hour]),
      );
      if (options.dryRun === true) {
        showPlan(session, planned, { ...plan }, planText(session, plan));
        if (plan.instances.length === 0) process.exitCode = exitCodes.nothing;
        return;
      }
      checkPlan(planned, options.plan);
      if (plan.instances.length === 0) throw nothingToRent(plan.errors);
      if (need === 'ask') session.note(planText(session, plan).trimEnd());
      if (need !== 'none') {
        await settle(need, {
          question: `Rent ${counted(plan.instances.length, 'instance')} for ${priceText(plan)}?`,
          undone: `nothing was rented (it would cost ${priceText(plan)})`,
          would: `spend ${priceText(plan)}`,
        });
      }
      checkTotal(plan, most);
      if (most === null || options.plan !== undefined) most = limit;
    }
    const answer = await callPaid(
      session,
      'reserve',
      '/gpu/instances/reserve',
      most === null ? body : { ...body, max_total_price: most },
      options.idempotencyKey ?? randomUUID(),
    );
    const reserved = await session.read('reserved', answer);
    if (session.json) session.printBody(answer);
    else session.print(reservedText(session, reserved));
    outcome(session, reserved);
  });
}

const reservedColumns: readonly Column<Answers['reserved']['reserved'][number]>[] = [
  { title: 'INSTANCE', width: 11, value: (item) => item.instance_id },
  { title: 'CONTRACT', width: 8, value: (item) => item.contract_id },
  { title: 'PROVIDER', width: 8, value: (item) => item.provider },
  gpuColumn((item) => [item.gpu_model, item.gpu_count]),
  { title: 'VRAM', width: 4, value: (item) => vramText(item.vram), plain: (item) => item.vram },
  { title: 'PRICE', usd: (item) => item.price },
];

function reservedText(session: Session, { reserved, count, requested }: Answers['reserved']): string {
  if (session.quiet) return reserved.map((item) => `${item.instance_id}\n`).join('');
  if (session.plain) return session.table(reservedColumns, reserved);
  const head = `Reserved ${counted(count, 'GPU')} (requested: ${requested})\n`;
  return reserved.length === 0 ? head : head + session.table(reservedColumns, reserved);
}

function outcome(session: Session, { count, requested, errors, reservation_id: id }: Answers['reserved']): void {
  for (const line of errors) session.note(`warning: ${line}`);
  if (count === 0) {
    throw new CliError(exitCodes.nothing, 'nothing_available', 'nothing was reserved', {
      hint: 'look at "gpuproxy list"',
    });
  }
  if (count < requested) process.exitCode = exitCodes.partly;
  if (id !== undefined) session.note(`Reservation ${id}. Give it back: gpuproxy reservations release ${id}`);
}

function planText(session: Session, plan: Answers['plan']): string {
  const { instances, count, requested, errors } = plan;
  if (session.quiet) return instances.map((offer) => `${offer.id}\n`).join('');
  if (session.plain) return session.table(offerColumns, instances);
  const head = session.prose(`Would reserve ${counted(count, 'GPU')} (requested: ${requested}) for ${priceText(plan)}`);
  const warnings = errors.map((line) => session.prose(`warning: ${line}`));
  return head + (instances.length === 0 ? '' : session.table(offerColumns, instances)) + warnings.join('');
}

function priceText(plan: Answers['plan']): string {
  return costText(plan.price_per_hour, plan.prepaid_usd);
}
