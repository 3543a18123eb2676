import { CliError, exitCodes } from './exit.ts';
import type { Session } from './session.ts';

/** Anything but yes is no. */
export async function confirm(question: string): Promise<boolean> {
  return /^y(es)?$/i.test(await ask(`${question} [y/N]`));
}

/** Asks on stderr and reads one line of stdin. */
async function ask(question: string): Promise<string> {
  const { createInterface } = await import('node:readline/promises');
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const closed = new Promise<string>((resolve) => lines.once('close', () => resolve('')));
  lines.once('SIGINT', () => {
    process.stderr.write('\n');
    process.exit(exitCodes.interrupted);
  });
  try {
    return (await Promise.race([lines.question(`${question} `), closed])).trim();
  } finally {
    lines.close();
  }
}

/**
 * Whether a deed that costs money or cannot be undone may be done at once. On a terminal a person is asked; elsewhere it is
 * refused unless the command line confirms it, except where `unasked` says that scripts without a terminal do it bare.
 */
export function confirmation(
  session: Pick<Session, 'asking' | 'shows'>,
  { confirmed, unasked = false }: Readonly<{ confirmed: boolean; unasked?: boolean }>,
): 'none' | 'ask' | 'refuse' {
  // --curl shows the request and does nothing.
  if (confirmed || session.shows) return 'none';
  if (session.asking === 'terminal') return 'ask';
  return session.asking === 'nobody' && unasked ? 'none' : 'refuse';
}

/** Does --confirm name what is to be destroyed? A word that was meant for something else must destroy nothing. */
export function confirmedAs(word: string | undefined, wanted: string, what: string): boolean {
  if (word === undefined) return false;
  if (word === wanted) return true;
  throw new CliError(exitCodes.refused, 'not_confirmed', `not confirmed: --confirm says "${word}"`, {
    why: what,
    hint: 'nothing was destroyed',
  });
}

/** Asks, or refuses where nobody can be asked. Throws CliError (exit 7) unless the answer is yes. */
export async function settle(
  need: 'ask' | 'refuse',
  {
    question,
    undone,
    would,
    flags = '--yes',
  }: Readonly<{ question: string; undone: string; would: string; flags?: string }>,
): Promise<void> {
  if (need === 'refuse') {
    throw new CliError(exitCodes.refused, 'not_confirmed', `not confirmed: add ${flags} (would ${would})`, {
      why: 'nobody can be asked: stdin is no terminal, CI is set, or --no-input was given',
    });
  }
  if (await confirm(question)) return;
  throw new CliError(exitCodes.refused, 'not_confirmed', `not confirmed: ${undone}`, {
    hint: `answer y, or add ${flags} to skip the question`,
  });
}
