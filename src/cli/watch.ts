import { CliError, exitCodes } from './exit.ts';
import type { Session } from './session.ts';
import { terminal } from './terminal.ts';

/** How far something is on its way to the state that --until names. */
export type Progress = Readonly<{
  reached: boolean;
  /** "2 of 4 ready" */
  text: string;
  /** Why it will never get there; null while it may. */
  hopeless: string | null;
}>;

/** What one look at the server shows. `text` is made when it is printed: a JSON document needs none. */
export type Look = Readonly<{
  json: unknown;
  text: () => string | Promise<string>;
  progress?: () => Promise<Progress>;
}>;

export type Repeat = Readonly<{
  /** Seconds between two looks; null: one look. */
  watch: number | null;
  /** Look until the state is reached, for at most so long. */
  until?: Readonly<{ state: string; timeoutMs: number }> | null;
}>;

const untilSeconds = 2;
const progressEveryMs = 10_000;

/**
 * Shows something once, or again and again: on a terminal in place, elsewhere one after the other, with `--json` one
 * document a line. With `until` it ends when the state is reached, and without `--watch` shows that last look alone.
 * The first look must succeed; a later one that fails is told on stderr.
 */
export async function show(
  session: Session,
  { watch, until = null }: Repeat,
  look: () => Promise<Look>,
): Promise<void> {
  if (watch === null && until === null) {
    const result = await look();
    if (session.json) session.printJson(result.json);
    else await session.page(await result.text());
    return;
  }
  const inPlace = terminal() !== null && !session.json && !session.plain;
  const begun = performance.now();
  let told = begun;
  for (let first = true; ; first = false) {
    const started = performance.now();
    try {
      const result = await look();
      const progress = until === null ? null : await result.progress?.();
      if (watch !== null || progress?.reached === true) {
        if (session.json) session.print(`${JSON.stringify(session.narrowed(result.json))}\n`);
        // Home, text with the rest of each line cleared, then the rest of the screen: no flicker of an empty screen.
        else if (inPlace && watch !== null)
          session.print(`${first ? '\u001b[2J' : ''}\u001b[H${fitted(await result.text())}\u001b[J`);
        else session.print(first || watch === null ? await result.text() : `\n${await result.text()}`);
      }
      if (progress?.reached === true) return;
      if (until !== null && progress) {
        if (progress.hopeless !== null) {
          throw new CliError(exitCodes.failed, 'never_reached', `will not be ${until.state}: ${progress.hopeless}`, {
            hint: '"gpuproxy fleet" shows what is there, "gpuproxy events --since 0" what happened',
          });
        }
        if (started - begun > until.timeoutMs) {
          throw new CliError(exitCodes.failed, 'timeout', `not ${until.state} in time: ${progress.text}`, {
            hint: 'look with "gpuproxy fleet", or wait longer with --timeout 30m',
          });
        }
        if (watch === null && started - told >= progressEveryMs) {
          told = started;
          session.note(`${progress.text} (${Math.round((started - begun) / 1000)} s)`);
        }
      }
    } catch (error) {
      const lasting =
        error instanceof CliError && ['never_reached', 'timeout'].includes(error.code) && error.exitCode === 1;
      if (first || lasting || !(error instanceof CliError) || error.exitCode === exitCodes.usage) throw error;
      process.stderr.write(`error: ${error.message}\n`);
      if (until !== null && performance.now() - begun > until.timeoutMs) throw error;
    }
    const rest = (watch ?? untilSeconds) * 1000 - (performance.now() - started);
    await new Promise((resolve) => setTimeout(resolve, Math.max(50, rest)));
  }
}

/** As much as the terminal is high, each line cleared to its end: more would scroll, and leave the rounds before behind. */
function fitted(text: string): string {
  const lines = text.split('\n');
  const room = (process.stdout.rows || Number.POSITIVE_INFINITY) - 1;
  const shown =
    lines.length - 1 > room ? [...lines.slice(0, room - 1), `… ${lines.length - room} more lines`, ''] : lines;
  return shown.join('\u001b[K\n');
}
