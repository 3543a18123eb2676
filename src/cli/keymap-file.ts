import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from '../tui/commands.ts';
import { CliError, exitCodes } from './exit.ts';
import { preferencesFolder } from './preferences-file.ts';

/**
 * The dashboard's commands with the keys of `keymap.json` in the folder of the conf file; undefined when there is none.
 * Throws CliError (exit 2) that names what is wrong in it.
 */
export async function readKeymap(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<readonly Command[] | undefined> {
  const file = join(preferencesFolder(environment), 'keymap.json');
  const refuse = (why: string) => new CliError(exitCodes.usage, 'configuration', `${file}: ${why}`);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw refuse(`cannot be read (${code ?? 'unknown error'})`);
  }
  let keymap: unknown;
  try {
    keymap = JSON.parse(text);
  } catch (error) {
    throw refuse(`is not JSON (${(error as Error).message})`);
  }
  const { KeymapError, withKeymap } = await import('../tui/keymap.ts');
  try {
    return withKeymap(keymap);
  } catch (error) {
    if (error instanceof KeymapError) throw refuse(error.message);
    throw error;
  }
}
