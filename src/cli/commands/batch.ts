import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { counted } from '../../core/words.ts';
import type { Answers } from '../answers.ts';
import { withConnection, withExamples } from '../command.ts';
import { confirmation, settle } from '../confirm.ts';
import { CliError, exitCodes, usageError } from '../exit.ts';
import {
  type ConfigOptions,
  checkTotal,
  configBody,
  costText,
  type FilterOptions,
  filtersBody,
  nothingToRent,
  offerColumns,
  positive,
  wholeFrom,
  withFilters,
  withInstanceConfig,
} from '../offer-options.ts';
import { agreed, callPaid } from '../paid-call.ts';
import { checkPlan, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession, type Session } from '../session.ts';

type BatchOptions = FilterOptions &
  ConfigOptions &
  Readonly<{ vastai: number; ionet: number; yes?: boolean; idempotencyKey?: string; maxTotal?: number }> &
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
    .option(
      '--max-total <usd>',
      'rent without asking if all of it costs at most so much per hour, else nothing',
      positive('--max-total'),
    )
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
    const session = openSession(command, { rows: options.dryRun === true ? 'instances' : null });
    const filters = filtersBody(options);
    const need = confirmation(session, {
      confirmed: options.yes === true || options.plan !== undefined || options.maxTotal !== undefined,
      unasked: true,
    });
    const body = { vastai_count: options.vastai, ionet_count: options.ionet, filters, config: configBody(options) };
    const wanted = options.vastai + options.ionet;
    let most = options.maxTotal ?? null;
    if (options.dryRun === true || options.plan !== undefined || most !== null || need !== 'none') {
      const plan = await session.read('plan', await session.call('POST', '/gpu/instances/batch/plan', { body }));
      const price = costText(plan.price_per_hour, plan.prepaid_usd);
      const limit = Math.min(agreed(plan.price_per_hour), options.maxTotal ?? Number.POSITIVE_INFINITY);
      const planned = planOf(
        session,
        [{ method: 'POST', path: '/gpu/instances/batch', body: { ...body, max_total_price: limit } }],
        plan.instances.map((offer) => [offer.provider, offer.id, offer.price_per_hour]),
      );
      if (options.dryRun === true) {
        showPlan(session, planned, { ...plan }, planText(session, plan, wanted, price));
        if (plan.instances.length === 0) process.exitCode = exitCodes.nothing;
        return;
      }
      checkPlan(planned, options.plan);
      if (plan.instances.length === 0) throw nothingToRent(plan.errors);
      if (need === 'ask') session.note(planText(session, plan, wanted, price).trimEnd());
      if (need !== 'none') {
        await settle(need, {
          question: `Rent ${counted(plan.instances.length, 'instance')} for ${price}?`,
          undone: `nothing was rented (it would cost ${price})`,
          would: `spend ${price}`,
        });
      }
      checkTotal(plan, most);
      if (most === null || options.plan !== undefined) most = limit;
    }
    const answer = await callPaid(
      session,
      'batch',
      '/gpu/instances/batch',
      most === null ? body : { ...body, max_total_price: most },
      options.idempotencyKey ?? randomUUID(),
    );
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
          : `Created ${counted(lines.length, 'instance')} (requested: ${wanted})\n` +
              lines.map(([provider, contract]) => `  ${provider}  ${contract}\n`).join(''),
      );
    }
    for (const line of errors) session.note(`warning: ${line}`);
    if (total === 0)
      throw new CliError(exitCodes.nothing, 'nothing_available', 'nothing was rented', {
        hint: 'look at "gpuproxy list"',
      });
    if (total < wanted) process.exitCode = exitCodes.partly;
    if (id) session.note(`Reservation ${id}. Give it back: gpuproxy reservations release ${id}`);
  });
}

function planText(session: Session, plan: Answers['plan'], wanted: number, price: string): string {
  if (session.quiet) return plan.instances.map((offer) => `${offer.id}\n`).join('');
  if (session.plain) return session.table(offerColumns, plan.instances);
  const head = session.prose(
    `Would rent ${counted(plan.instances.length, 'instance')} (requested: ${wanted}) for ${price}`,
  );
  const warnings = plan.errors.map((line) => session.prose(`warning: ${line}`));
  return head + (plan.instances.length === 0 ? '' : session.table(offerColumns, plan.instances)) + warnings.join('');
}
