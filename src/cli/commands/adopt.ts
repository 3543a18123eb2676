import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
import { withWayOut } from '../exit.ts';
import { providerWord } from '../offer-options.ts';
import { openSession } from '../session.ts';

export function build(command: Command): void {
  command
    .argument('<provider>', 'vast.ai or io.net', providerWord)
    .argument('<contract>', 'contract id at the provider');
  withConnection(command);
  suggest(command, 'provider', ['vast.ai', 'io.net']);
  withExamples(command, [['gpuproxy adopt vast.ai 54321', 'balance over an instance that was rented elsewhere']]);
  command.action(async (provider: string, contract: string) => {
    const session = openSession(command);
    const body = { provider, contract_id: contract };
    const answer = await withWayOut(() => session.call('POST', '/fleet/adopt', { body, timeoutMs: 60_000 }), {
      not_found: 'at the end of "gpuproxy fleet" are the instances of the account that can be taken over',
    });
    if (session.json) session.printBody(answer);
    else {
      const { instance_id: id, state } = await session.read('upstream', answer);
      session.print(session.quiet ? `${id}\n` : session.line(id, state));
    }
  });
}
