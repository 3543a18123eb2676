import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { withConnection, withExamples } from '../command.ts';
import { CliError, exitCodes } from '../exit.ts';
import { type Fields, fieldsOf, linesOf, listOf, numberOf, textOf } from '../fields.ts';
import {
  type ConfigOptions,
  configBody,
  costText,
  type FilterOptions,
  filtersBody,
  gpuText,
  nothingToRent,
  offerColumns,
  vramText,
  wholeFrom,
  withFilters,
  withInstanceConfig,
} from '../offer-options.ts';
import { type Column, counted, table, usd } from '../output.ts';
import { callPaid } from '../paid-call.ts';
import { confirm, notConfirmed, openSession, type Session } from '../session.ts';

type ReserveOptions = FilterOptions &
  ConfigOptions &
  Readonly<{ yes?: boolean; dryRun?: boolean; allOrNothing?: boolean; idempotencyKey?: string }>;

export function build(command: Command): void {
  command.argument('<count>', 'GPUs, 1 to 16', wholeFrom('count', 1, 16));
  withFilters(command, { provider: true });
  withInstanceConfig(command);
  command
    .optionsGroup('Options:')
    .option('-y, --yes', 'rent without asking')
    .option('-n, --dry-run', 'show what would be rented, and rent nothing')
    .option('--all-or-nothing', 'keep nothing unless all can be had')
    .option('--idempotency-key <text>', 'a repeat with the same key rents nothing new (default: a random one)');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy reserve 4', 'rent 4 GPUs, chosen by the strategy'],
    ['gpuproxy reserve 8 --min-vram 24 --max-price 2.0', 'with filters'],
    ['gpuproxy reserve 8 --gpu-count 4 --all-or-nothing', 'two instances of 4 GPUs, or none'],
    ['gpuproxy reserve 2 --dry-run', 'what would be rented, and its price'],
    ['gpuproxy reserve 1 --yes --json', 'for programs'],
  ]);
  command.action(async (count: number, options: ReserveOptions) => {
    const session = openSession(command);
    const body = {
      count,
      filters: filtersBody(options),
      config: configBody(options),
      ...(options.allOrNothing === true ? { all_or_nothing: true } : {}),
    };
    if (options.dryRun === true || (session.interactive && options.yes !== true)) {
      const plan = await session.call('POST', '/gpu/instances/plan', { body });
      const offers = listOf(fieldsOf(plan.body).instances);
      if (options.dryRun === true) {
        if (session.json) session.printBody(plan);
        else session.print(planText(fieldsOf(plan.body), session.quiet));
        if (offers.length === 0) process.exitCode = exitCodes.nothing;
        return;
      }
      if (offers.length === 0) throw nothingToRent(linesOf(fieldsOf(plan.body).errors));
      session.note(planText(fieldsOf(plan.body), false).trimEnd());
      if (!(await confirm(`Rent ${counted(offers.length, 'instance')} for ${priceText(fieldsOf(plan.body))}?`))) {
        throw notConfirmed(`nothing was rented (it would cost ${priceText(fieldsOf(plan.body))})`);
      }
    }
    const answer = await callPaid(session, '/gpu/instances/reserve', body, options.idempotencyKey ?? randomUUID());
    if (session.json) session.printBody(answer);
    else session.print(reservedText(fieldsOf(answer.body), session.quiet));
    outcome(session, fieldsOf(answer.body));
  });
}

export const reservedColumns: readonly Column<Fields>[] = [
  { title: 'INSTANCE', width: 11, value: (item) => textOf(item.instance_id), cut: true },
  { title: 'CONTRACT', width: 8, value: (item) => textOf(item.contract_id), cut: true },
  { title: 'PROVIDER', width: 8, value: (item) => textOf(item.provider) },
  { title: 'GPU', width: 10, value: (item) => gpuText(item.gpu_model, item.gpu_count), cut: true },
  { title: 'VRAM', width: 4, value: (item) => vramText(item.vram) },
  { title: 'PRICE', value: (item) => usd(numberOf(item.price)) },
];

function reservedText(answer: Fields, quiet: boolean): string {
  const items = listOf(answer.reserved);
  if (quiet) return items.map((item) => `${textOf(item.instance_id)}\n`).join('');
  const head = `Reserved ${textOf(answer.count)} GPUs (requested: ${textOf(answer.requested)})\n`;
  return items.length === 0 ? head : head + table(reservedColumns, items);
}

function outcome(session: Session, answer: Fields): void {
  const count = numberOf(answer.count) ?? 0;
  const requested = numberOf(answer.requested) ?? count;
  for (const line of linesOf(answer.errors)) session.note(`warning: ${line}`);
  if (count === 0)
    throw new CliError(exitCodes.nothing, 'nothing_available', 'nothing was reserved', {
      hint: 'look at "gpuproxy list"',
    });
  if (count < requested) process.exitCode = exitCodes.partly;
  const id = textOf(answer.reservation_id, '');
  if (id !== '') session.note(`Reservation ${id}. Give it back: gpuproxy reservations release ${id}`);
}

function planText(plan: Fields, quiet: boolean): string {
  const offers = listOf(plan.instances);
  if (quiet) return offers.map((offer) => `${textOf(offer.id)}\n`).join('');
  const head = `Would reserve ${textOf(plan.count)} GPUs (requested: ${textOf(plan.requested)}) for ${priceText(plan)}\n`;
  const errors = linesOf(plan.errors).map((line) => `warning: ${line}\n`);
  return head + (offers.length === 0 ? '' : table(offerColumns, offers)) + errors.join('');
}

function priceText(plan: Fields): string {
  return costText(numberOf(plan.price_per_hour), numberOf(plan.prepaid_usd));
}
