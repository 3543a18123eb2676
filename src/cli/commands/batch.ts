import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { planBatch } from '../batch-plan.ts';
import { withConnection, withExamples } from '../command.ts';
import { CliError, exitCodes, usageError } from '../exit.ts';
import { fieldsOf, linesOf, numberOf, textOf } from '../fields.ts';
import {
  type ConfigOptions,
  configBody,
  costText,
  type FilterOptions,
  filtersBody,
  nothingToRent,
  wholeFrom,
  withFilters,
  withInstanceConfig,
} from '../offer-options.ts';
import { counted } from '../output.ts';
import { callPaid } from '../paid-call.ts';
import { confirm, notConfirmed, openSession } from '../session.ts';

type BatchOptions = FilterOptions &
  ConfigOptions &
  Readonly<{ vastai: number; ionet: number; yes?: boolean; dryRun?: boolean; idempotencyKey?: string }>;

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
    .option('-n, --dry-run', 'show what would be rented, and rent nothing')
    .option('--idempotency-key <text>', 'a repeat with the same key rents nothing new (default: a random one)');
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
    if (options.dryRun === true || (session.interactive && options.yes !== true)) {
      const plan = await planBatch(session, filters, options, { 'vast.ai': options.vastai, 'io.net': options.ionet });
      const price = `about ${costText(plan.price_per_hour, plan.prepaid_usd)}`;
      if (options.dryRun === true) {
        if (session.json) session.printJson(plan);
        else
          session.print(`Would rent ${counted(plan.count, 'instance')} (requested: ${plan.requested}) for ${price}\n`);
        if (plan.count === 0) process.exitCode = exitCodes.nothing;
        return;
      }
      if (plan.count === 0) throw nothingToRent([]);
      if (!(await confirm(`Rent ${counted(plan.count, 'instance')} for ${price}?`))) {
        throw notConfirmed(`nothing was rented (it would cost ${price})`);
      }
    }
    const answer = await callPaid(
      session,
      '/gpu/instances/batch',
      { vastai_count: options.vastai, ionet_count: options.ionet, filters, config: configBody(options) },
      options.idempotencyKey ?? randomUUID(),
    );
    const body = fieldsOf(answer.body);
    const created = [...linesOf(body.vastai_instances), ...linesOf(body.ionet_instances)];
    if (session.json) session.printBody(answer);
    else if (session.quiet) session.print(created.map((id) => `${id}\n`).join(''));
    else {
      session.print(
        `Created ${counted(created.length, 'instance')} (requested: ${options.vastai + options.ionet})\n` +
          linesOf(body.vastai_instances)
            .map((id) => `  vast.ai  ${id}\n`)
            .join('') +
          linesOf(body.ionet_instances)
            .map((id) => `  io.net   ${id}\n`)
            .join(''),
      );
    }
    for (const line of linesOf(body.errors)) session.note(`warning: ${line}`);
    const total = numberOf(body.total_created) ?? created.length;
    if (total === 0)
      throw new CliError(exitCodes.nothing, 'nothing_available', 'nothing was rented', {
        hint: 'look at "gpuproxy list"',
      });
    if (total < options.vastai + options.ionet) process.exitCode = exitCodes.partly;
    const id = textOf(body.reservation_id, '');
    if (id !== '') session.note(`Reservation ${id}. Give it back: gpuproxy reservations release ${id}`);
  });
}
