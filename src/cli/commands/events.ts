import type { Command } from 'commander';
import { parseJson } from '../client.ts';
import { withConnection, withExamples } from '../command.ts';
import { CliError, exitCodes } from '../exit.ts';
import { wholeFrom } from '../offer-options.ts';
import { openSession, type Session } from '../session.ts';

const levelColor: Readonly<Record<string, string>> = { ok: '32', warn: '33', error: '31' };
const maxWaitMs = 15_000;

export function build(command: Command): void {
  command
    .option(
      '--since <id>',
      'begin after this event; 0: all that the server keeps',
      wholeFrom('--since', 0, Number.MAX_SAFE_INTEGER),
    )
    .option('--kind <kind>', 'only this kind, like strategy, rental, ejected')
    .option('--once', 'end when the server ends the stream, do not connect again');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy events', 'follow what happens; Ctrl-C ends it'],
    ['gpuproxy events --since 0', 'what the server keeps first'],
    ['gpuproxy events --json | jq .message', 'one document a line'],
  ]);
  command.action(async (options: { since?: number; kind?: string; once?: boolean }) => {
    const session = openSession(command);
    let lastId: string | null = options.since === undefined ? null : String(options.since);
    let waitMs = 500;
    for (let connected = false; ; ) {
      try {
        const headers = lastId === null ? {} : { 'last-event-id': lastId };
        for await (const { id, event, data } of session.events('/events', { headers })) {
          connected = true;
          waitMs = 500;
          if (id !== null) lastId = id;
          if (options.kind !== undefined && event !== options.kind) continue;
          session.print(session.json ? documentText(session, event, data) : await eventText(session, event, data));
        }
        connected = true;
        if (options.once === true) return;
      } catch (error) {
        // The first connection tells at once that it cannot work; later ones wait for the server to come back.
        if (!connected || !(error instanceof CliError) || error.exitCode !== exitCodes.unreachable) throw error;
        session.note(`note: connection lost (${error.message}), trying again`);
      }
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      waitMs = Math.min(maxWaitMs, waitMs * 2);
    }
  });
}

/** One line. A gap is none of the events whose fields --fields names. */
function documentText(session: Session, kind: string, data: string): string {
  return kind === 'gap' ? `${data}\n` : `${JSON.stringify(session.narrowed(parseJson(data)))}\n`;
}

async function eventText(session: Session, kind: string, data: string): Promise<string> {
  if (kind === 'gap') return session.plain || session.quiet ? '' : '...  older events are no longer kept\n';
  const { readAnswer } = await import('../answers.ts');
  const event = readAnswer('event', parseJson(data), session.client.connection.url);
  if (session.quiet) return `${event.id}\n`;
  const message = event.message.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ');
  if (session.plain) return session.line(event.at, event.level, event.kind, event.subject ?? '', message);
  const code = session.color ? levelColor[event.level] : undefined;
  const word = event.level.padEnd(5);
  const line = [
    new Date(event.at).toTimeString().slice(0, 8),
    code === undefined ? word : `\u001b[${code}m${word}\u001b[0m`,
    event.kind,
    // Most messages begin with what they are about.
    event.subject === null || message.startsWith(event.subject) ? '' : event.subject,
    message,
  ];
  return `${line.filter((part) => part !== '').join('  ')}\n`;
}
