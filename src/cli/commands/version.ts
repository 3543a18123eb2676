import type { Command } from 'commander';
import { withConnection, withExamples } from '../command.ts';
import { CliError } from '../exit.ts';
import { openSession, type Session } from '../session.ts';
import { programCommit, programVersion } from '../version.ts';

export function build(command: Command): void {
  withConnection(command);
  withExamples(command, [
    ['gpuproxy --version', 'one line'],
    ['gpuproxy version', 'with those of Node and of the server'],
    ['gpuproxy version --json', 'with the commit that it was built of'],
  ]);
  command.action(async () => {
    const session = openSession(command);
    const { url } = session.client.connection;
    const own = { version: programVersion(), commit: programCommit(), node: process.versions.node };
    if (session.quiet && !session.json) return session.print(`${own.version}\n`);
    const server = await serverVersion(session);
    if (session.json) session.printJson({ ...own, server: { url, ...server } });
    else {
      const told = server.version === null ? '' : ` ${server.version}, Node ${server.node},`;
      session.print(
        session.plain
          ? session.line('gpuproxy', own.version, own.node) + session.line(url, server.version ?? '', server.node ?? '')
          : `gpuproxy ${own.version}\nnode     ${own.node}\nserver  ${told} ${url} (${server.status})\n`,
      );
    }
  });
}

type ServerVersion = Readonly<{
  status: 'running' | 'not reachable';
  /** null: not reachable, too old to tell, or it does not tell this key. */
  version: string | null;
  node: string | null;
}>;

async function serverVersion(session: Session): Promise<ServerVersion> {
  try {
    // The liveness path is public, so whether it runs is told without a key.
    await session.call('GET', '//healthz', { timeoutMs: 2000 });
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    return { status: 'not reachable', version: null, node: null };
  }
  try {
    return { status: 'running', ...(await session.read('version', await session.client.call('GET', '/version'))) };
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    return { status: 'running', version: null, node: null };
  }
}
