import { randomUUID } from 'node:crypto';
import type { Command } from 'commander';
import { nearest } from '../../core/words.ts';
import { suggest, withConnection, withExamples } from '../command.ts';
import { confirmation, settle } from '../confirm.ts';
import { CliError, exitCodes, withWayOut } from '../exit.ts';
import {
  type ConfigOptions,
  configBody,
  costOf,
  costText,
  gpuText,
  offerColumns,
  providerWord,
  withInstanceConfig,
} from '../offer-options.ts';
import { usd } from '../output.ts';
import { agreed, callPaid } from '../paid-call.ts';
import { checkPlan, type PlanOptions, planOf, showPlan, withPlan } from '../plan.ts';
import { openSession, type Session } from '../session.ts';

type RentOptions = ConfigOptions & PlanOptions & Readonly<{ yes?: boolean; idempotencyKey?: string }>;

export function build(command: Command): void {
  command.argument('<provider>', 'vast.ai or io.net', providerWord).argument('<offer>', 'id of the offer, from "list"');
  withInstanceConfig(command);
  command
    .optionsGroup('Options:')
    .option('-y, --yes', 'rent without asking')
    .option('--idempotency-key <text>', 'a repeat with the same key rents nothing new (default: a random one)');
  withPlan(command);
  suggest(command, 'provider', ['vast.ai', 'io.net']);
  withConnection(command);
  withExamples(command, [
    ['gpuproxy rent vast.ai 21000472', 'this very offer'],
    ['gpuproxy rent vast.ai 21000472 --image vllm/vllm-openai:latest --yes', 'with an image, without asking'],
  ]);
  command.action(async (provider: string, offer: string, options: RentOptions) => {
    const session = openSession(command);
    const need = confirmation(session, {
      confirmed: options.yes === true || options.plan !== undefined,
      unasked: true,
    });
    const path = `/gpu/instances/${encodeURIComponent(provider)}/${encodeURIComponent(offer)}`;
    const body = configBody(options);
    let most: number | null = null;
    if (options.dryRun === true || options.plan !== undefined || need !== 'none') {
      const found = await findOffer(session, provider, offer);
      // What a greater disk adds, the server works out.
      if (options.diskGb === undefined && options.maxBid === undefined) most = agreed(found.price_per_hour);
      const sent = most === null ? body : { ...body, max_price: most };
      const plan = planOf(session, [{ method: 'POST', path, body: sent }], found.price_per_hour);
      if (options.dryRun === true) {
        const text = session.quiet ? `${found.id}\n` : session.table(offerColumns, [found]);
        showPlan(session, plan, { ...found }, text);
        return;
      }
      checkPlan(plan, options.plan);
      const { perHour, prepaid } = costOf(found, options);
      const price = costText(perHour, prepaid);
      if (need !== 'none') {
        await settle(need, {
          question: `Rent ${gpuText(found.gpu_name, found.gpu_count)} for ${price}?`,
          undone: `nothing was rented (it would cost ${price})`,
          would: `spend ${price}`,
        });
      }
    }
    const sent = most === null ? body : { ...body, max_price: most };
    const idempotencyKey = options.idempotencyKey ?? randomUUID();
    const answer = await withWayOut(() => callPaid(session, 'rent', path, sent, idempotencyKey), {
      not_found: `offers come and go: "gpuproxy list ${provider}" has those of now`,
    });
    const { instance_id: id, contract_id: contract, price } = await session.read('rented', answer);
    if (session.json) session.printBody(answer);
    else
      session.print(session.quiet ? `${id}\n` : session.line(id, contract, session.plain ? String(price) : usd(price)));
    session.note(`Give it back: gpuproxy destroy ${id}`);
  });
}

async function findOffer(session: Session, provider: string, id: string) {
  const answer = await session.call('GET', '/gpu/instances', { query: { provider } });
  const { instances: offers } = await session.read('offers', answer);
  const found = offers.find((offer) => offer.id === id);
  if (found !== undefined) return found;
  const near = nearest(
    id,
    offers.map((offer) => offer.id),
  );
  throw new CliError(
    exitCodes.nothing,
    'not_found',
    `no offer "${id}" at ${provider}${near === undefined ? '' : `; did you mean ${near}?`}`,
    { why: 'offers come and go', hint: `"gpuproxy list ${provider}" has those of now` },
  );
}
