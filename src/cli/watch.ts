import { CliError, exitCodes } from './exit.ts';
import type { Session } from './session.ts';

/** What one look at the server shows. */
export type Look = Readonly<{ json: unknown; text: string }>;

/**
 * Shows something once, or again and again: on a terminal in place, elsewhere one after the other, with `--json` one
 * document a line. `everySeconds` null: once. The first look must succeed; a later one that fails is told on stderr.
 */
export async function show(
  session: Session,
  everySeconds: number | null,
  look: () => Promise<Look>,
  once?: (result: Look) => void,
): Promise<void> {
  if (everySeconds === null) {
    const result = await look();
    if (once) once(result);
    else if (session.json) session.printJson(result.json);
    else session.print(result.text);
    return;
  }
  const inPlace = process.stdout.isTTY === true && !session.json;
  for (let first = true; ; first = false) {
    const started = performance.now();
    try {
      const result = await look();
      if (session.json) session.print(`${JSON.stringify(session.narrowed(result.json))}\n`);
      // Home, text with the rest of each line cleared, then the rest of the screen: no flicker of an empty screen.
      else if (inPlace)
        session.print(`${first ? '\u001b[2J' : ''}\u001b[H${result.text.replaceAll('\n', '\u001b[K\n')}\u001b[J`);
      else session.print(first ? result.text : `\n${result.text}`);
    } catch (error) {
      if (first || !(error instanceof CliError) || error.exitCode === exitCodes.usage) throw error;
      process.stderr.write(`error: ${error.message}\n`);
    }
    const rest = everySeconds * 1000 - (performance.now() - started);
    await new Promise((resolve) => setTimeout(resolve, Math.max(50, rest)));
  }
}
