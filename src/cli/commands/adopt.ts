import type { Command } from 'commander';
import { suggest, withConnection, withExamples } from '../command.ts';
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
    const answer = await session.call('POST', '/fleet/adopt', {
      body: { provider, contract_id: contract },
      timeoutMs: 60_000,
    });
    if (session.json) session.printBody(answer);
    else {
      const { instance_id: id, state } = await session.read('upstream', answer);
      session.print(session.quiet ? `${id}\n` : session.line(id, state));
    }
  });
}
