import type { Command } from 'commander';
import { nearest } from '../../core/words.ts';
import { suggest, withConnection, withExamples } from '../command.ts';
import { CliError, usageError, withWayOut } from '../exit.ts';
import { instanceIds } from '../fleet-call.ts';
import { openSession } from '../session.ts';

export function build(command: Command): void {
  suggest(command, 'id', 'upstreams');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy upstream add http://10.0.0.5:8000', 'balance over a server that you already have'],
    ['gpuproxy upstream add http://10.0.0.5:8000 --name lab', 'with a name'],
    ['gpuproxy upstream remove static-lab', 'forget it, once what is open has ended'],
  ]);
  const add = command
    .command('add')
    .description('Balance over a server that you already have.')
    .argument('<url>', 'base URL', (word: string) => {
      if (!URL.canParse(word) || !/^https?:$/.test(new URL(word).protocol)) {
        throw usageError(`url: got "${word}", accepts an http:// or https:// URL`);
      }
      return word;
    })
    .option('--name <name>', 'part of its id (default: from the URL)');
  withExamples(add, [
    ['gpuproxy upstream add http://10.0.0.5:8000', 'static-10.0.0.5-8000'],
    ['gpuproxy upstream add http://10.0.0.5:8000 --name lab', 'static-lab'],
  ]).action(async (url: string, options: { name?: string }, self: Command) => {
    const session = openSession(self);
    const body = options.name === undefined ? { url } : { url, name: options.name };
    const answer = await withWayOut(() => session.call('POST', '/upstreams', { body }), {
      conflict: 'choose another name with --name, or take that one out first with "gpuproxy upstream remove"',
    });
    if (session.json) session.printBody(answer);
    else {
      const { instance_id: id, state } = await session.read('upstream', answer);
      session.print(session.quiet ? `${id}\n` : session.line(id, state));
    }
  });
  const remove = command
    .command('remove')
    .description('Forget a server.')
    .argument('<id>', 'instance')
    .option('--now', 'cut what is open');
  withExamples(remove, [
    ['gpuproxy upstream remove static-lab', 'no new requests, finish the open ones, forget it'],
    ['gpuproxy upstream remove static-lab --now', 'at once'],
  ]).action(async (id: string, options: { now?: boolean }, self: Command) => {
    const session = openSession(self);
    try {
      await session.call('DELETE', `/upstreams/${encodeURIComponent(id)}${options.now === true ? '?now=true' : ''}`);
    } catch (error) {
      if (!(error instanceof CliError) || error.status !== 404) throw error;
      const near = nearest(id, await instanceIds(session));
      throw new CliError(
        error.exitCode,
        error.code,
        `unknown upstream "${id}"${near === undefined ? '' : `; did you mean ${near}?`}`,
        { status: 404, hint: '"gpuproxy fleet" lists them' },
      );
    }
    if (session.json) session.printJson(null);
    else session.print(session.quiet ? `${id}\n` : session.line(id, 'removed'));
  });
}
