import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
import { CliError, exitCodes } from '../exit.ts';
import { fieldsOf, listOf, numberOf, textOf } from '../fields.ts';
import { nearest } from '../nearest.ts';
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
import { table, usd } from '../output.ts';
import { callPaid } from '../paid-call.ts';
import { confirm, notConfirmed, openSession, type Session } from '../session.ts';

export function build(command: Command): void {
  command.argument('<provider>', 'vast.ai or io.net', providerWord).argument('<offer>', 'id of the offer, from "list"');
  withInstanceConfig(command);
  command
    .optionsGroup('Options:')
    .option('-y, --yes', 'rent without asking')
    .option('-n, --dry-run', 'show the offer, and rent nothing');
  suggest(command, 'provider', ['vast.ai', 'io.net']);
  withConnection(command);
  withExamples(command, [
    ['gpuproxy rent vast.ai 21000472', 'this very offer'],
    ['gpuproxy rent vast.ai 21000472 --image vllm/vllm-openai:latest --yes', 'with an image, without asking'],
  ]);
  command.action(
    async (provider: string, offer: string, options: ConfigOptions & Readonly<{ yes?: boolean; dryRun?: boolean }>) => {
      const session = openSession(command);
      if (options.dryRun === true || (session.interactive && options.yes !== true)) {
        const found = await findOffer(session, provider, offer);
        if (options.dryRun === true) {
          if (session.json) session.printJson(found);
          else session.print(table(offerColumns, [found]));
          return;
        }
        const { perHour, prepaid } = costOf(found, options);
        const price = costText(perHour, prepaid);
        if (!(await confirm(`Rent ${gpuText(found.gpu_name, found.gpu_count)} for ${price}?`))) {
          throw notConfirmed(`nothing was rented (it would cost ${price})`);
        }
      }
      const path = `/gpu/instances/${encodeURIComponent(provider)}/${encodeURIComponent(offer)}`;
      const answer = await callPaid(session, path, configBody(options), null);
      const rented = fieldsOf(answer.body);
      if (session.json) session.printBody(answer);
      else {
        session.print(
          session.quiet
            ? `${textOf(rented.instance_id)}\n`
            : `${textOf(rented.instance_id)}  ${textOf(rented.contract_id)}  ${usd(numberOf(rented.price))}\n`,
        );
      }
      session.note(`Give it back: gpuproxy destroy ${textOf(rented.instance_id)}`);
    },
  );
}

async function findOffer(session: Session, provider: string, id: string) {
  const { body } = await session.call('GET', '/gpu/instances', { query: { provider } });
  const offers = listOf(fieldsOf(body).instances);
  const found = offers.find((offer) => offer.id === id);
  if (found !== undefined) return found;
  const near = nearest(
    id,
    offers.map((offer) => textOf(offer.id)),
  );
  throw new CliError(
    exitCodes.nothing,
    'not_found',
    `no offer "${id}" at ${provider}${near === undefined ? '' : `; did you mean ${near}?`}`,
    { why: 'offers come and go', hint: `gpuproxy list ${provider}` },
  );
}
