import type { Command } from 'commander';
import { withConnection, withExamples } from '../command.ts';
import { CliError } from '../exit.ts';
import { openSession } from '../session.ts';
import { programVersion } from '../version.ts';

export function build(command: Command): void {
  withConnection(command);
  withExamples(command, [
    ['gpuproxy --version', 'one line'],
    ['gpuproxy version', 'with that of Node, and whether a server answers'],
  ]);
  command.action(async () => {
    const session = openSession(command);
    const { url } = session.client.connection;
    // The liveness path is public, so this works without a key.
    const server = await session.client.call('GET', '//healthz', { timeoutMs: 2000 }).then(
      () => 'running',
      (error: unknown) => {
        if (error instanceof CliError) return 'not reachable';
        throw error;
      },
    );
    if (session.json)
      session.printJson({ version: programVersion(), node: process.versions.node, server: { url, status: server } });
    else
      session.print(`gpuproxy ${programVersion()}\nnode     ${process.versions.node}\nserver   ${url} (${server})\n`);
  });
}
