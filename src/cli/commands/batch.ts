import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { type BatchPlan, planBatch } from '../batch-plan.ts';
import { withConnection, withExamples } from '../command.ts';
import { confirmation, settle } from '../confirm.ts';
import { CliError, exitCodes, usageError } from '../exit.ts';
import {
  type ConfigOptions,
  configBody,
  costText,
  type FilterOptions,
  filtersBody,
  nothingToRent,
  offerColumns,
  wholeFrom,
  withFilters,
  withInstanceConfig,
} from '../offer-options.ts';
import { counted } from '../output.ts';
import { callPaid } from '../paid-call.ts';
import { checkPlan, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession, type Session } from '../session.ts';

type BatchOptions = FilterOptions &
  ConfigOptions &
  Readonly<{ vastai: number; ionet: number; yes?: boolean; idempotencyKey?: string }> &
  PlanOptions;

export function build(command: Command): void {
  command
    .optionsGroup('How many:')
    .option('--vastai <n>', 'instances on vast.ai, 0 to 8', wholeFrom('--vastai', 0, 8), 0)
    .option('--ionet <n>', 'instances on io.net, 0 to 8', wholeFrom('--ionet', 0, 8), 0);
  withFilters(command, { provider: false });
  withInstanceConfig(command);
  command
    .optionsGroup('Options:')
    .option('-y, --yes', 'rent without asking')
    .option('--idempotency-key <text>', 'a repeat with the same key rents nothing new (default: a random one)');
  withPlan(command);
  withConnection(command);
  withExamples(command, [
    ['gpuproxy batch --vastai 4 --ionet 2', 'four instances on vast.ai and two on io.net'],
    ['gpuproxy batch --vastai 8 --min-vram 24 --dry-run', 'what it would cost'],
  ]);
  command.action(async (options: BatchOptions) => {
    if (options.vastai + options.ionet === 0) {
      throw usageError('nothing to rent: --vastai and --ionet are both 0', { hint: 'gpuproxy batch --vastai 2' });
    }
    const session = openSession(command);
    const filters = filtersBody(options);
    const need = confirmation(session, {
      confirmed: options.yes === true || options.plan !== undefined,
      unasked: true,
    });
    const body = { vastai_count: options.vastai, ionet_count: options.ionet, filters, config: configBody(options) };
    if (options.dryRun === true || options.plan !== undefined || need !== 'none') {
      const plan = await planBatch(session, filters, options, { 'vast.ai': options.vastai, 'io.net': options.ionet });
      const price = `about ${costText(plan.price_per_hour, plan.prepaid_usd)}`;
      const planned = planOf(
        session,
        [{ method: 'POST', path: '/gpu/instances/batch', body }],
        plan.instances.map((offer) => [offer.provider, offer.id, offer.price_per_hour]),
      );
      if (options.dryRun === true) {
        showPlan(session, planned, plan, planText(session, plan, price));
        if (plan.count === 0) process.exitCode = exitCodes.nothing;
        return;
      }
      checkPlan(planned, options.plan);
      if (plan.count === 0) throw nothingToRent([]);
      if (need !== 'none') {
        await settle(need, {
          question: `Rent ${counted(plan.count, 'instance')} for ${price}?`,
          undone: `nothing was rented (it would cost ${price})`,
          would: `spend ${price}`,
        });
      }
    }
    const answer = await callPaid(session, '/gpu/instances/batch', body, options.idempotencyKey ?? randomUUID());
    const {
      vastai_instances: vast,
      ionet_instances: ionet,
      total_created: total,
      errors,
      reservation_id: id,
    } = await session.read('batch', answer);
    if (session.json) session.printBody(answer);
    else if (session.quiet) session.print([...vast, ...ionet].map((contract) => `${contract}\n`).join(''));
    else {
      const lines = [
        ...vast.map((contract) => ['vast.ai', contract] as const),
        ...ionet.map((contract) => ['io.net ', contract] as const),
      ];
      session.print(
        session.plain
          ? lines.map(([provider, contract]) => session.line(provider.trim(), contract)).join('')
          : `Created ${counted(lines.length, 'instance')} (requested: ${options.vastai + options.ionet})\n` +
              lines.map(([provider, contract]) => `  ${provider}  ${contract}\n`).join(''),
      );
    }
    for (const line of errors) session.note(`warning: ${line}`);
    if (total === 0)
      throw new CliError(exitCodes.nothing, 'nothing_available', 'nothing was rented', {
        hint: 'look at "gpuproxy list"',
      });
    if (total < options.vastai + options.ionet) process.exitCode = exitCodes.partly;
    if (id) session.note(`Reservation ${id}. Give it back: gpuproxy reservations release ${id}`);
  });
}

function planText(session: Session, plan: BatchPlan, price: string): string {
  if (session.quiet) return plan.instances.map((offer) => `${offer.id}\n`).join('');
  if (session.plain) return session.table(offerColumns, plan.instances);
  return `Would rent ${counted(plan.count, 'instance')} (requested: ${plan.requested}) for ${price}\n`;
}
