import type { Command } from 'commander';
import { suggest, watchSeconds, withConnection, withExamples, withWatch } from '../command.ts';
import { exitCodes, usageError } from '../exit.ts';
import { fieldsOf, listOf, textOf } from '../fields.ts';
import { type FilterOptions, filtersBody, offerColumns, providerWord, withFilters } from '../offer-options.ts';
import { outputWidth, tableLines } from '../output.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

export function build(command: Command): void {
  command.argument('[provider]', 'vast.ai or io.net; both when left out', providerWord);
  withFilters(command, { provider: true });
  command.optionsGroup('Options:');
  withWatch(command);
  withConnection(command);
  suggest(command, 'provider', ['vast.ai', 'io.net']);
  withExamples(command, [
    ['gpuproxy list', 'every offer, cheapest first'],
    ['gpuproxy list vast.ai --gpu "rtx 4090" --max-price 0.5', 'RTX 4090 on vast.ai for at most $0.50 per hour'],
    ['gpuproxy list --min-vram 80 --json', 'for programs'],
  ]);
  command.action(async (provider: string | undefined, options: FilterOptions & { watch?: number }) => {
    if (provider !== undefined && options.provider !== undefined && provider !== options.provider) {
      throw usageError(`two providers: ${provider} and --provider ${options.provider}`, { hint: 'name one of them' });
    }
    const session = openSession(command);
    const query = filtersBody(provider === undefined ? options : { ...options, provider });
    await show(session, watchSeconds(options.watch), async () => {
      const { body } = await session.call('GET', '/gpu/instances', { query });
      const answer = fieldsOf(body);
      const offers = listOf(answer.instances);
      for (const error of listOf(answer.errors)) {
        session.note(
          `warning: ${textOf(error.provider)}: ${textOf(error.message)}${error.stale_ms === null ? '' : ' (older offers shown)'}`,
        );
      }
      if (offers.length === 0) {
        session.note('No offer matches. Loosen the filters, or look at "gpuproxy providers".');
        process.exitCode = exitCodes.nothing;
      } else process.exitCode = exitCodes.done;
      const text = session.quiet
        ? offers.map((offer) => `${textOf(offer.id)}\n`).join('')
        : offers.length === 0
          ? ''
          : `${tableLines(offerColumns, offers, outputWidth()).join('\n')}\n`;
      return { json: body, text };
    });
  });
}
