export type ColorChoice = 'auto' | 'always' | 'never';

/**
 * May this stream carry colour? The nearer word wins: `--color`, GPUPROXY_COLOR, NO_COLOR, FORCE_COLOR,
 * CLICOLOR_FORCE, CLICOLOR=0, TERM=dumb, and at last whether it is a terminal.
 */
export function colorWanted(
  choice: ColorChoice,
  environment: Readonly<Record<string, string | undefined>>,
  isTerminal: boolean,
): boolean {
  const own = environment.GPUPROXY_COLOR;
  for (const word of [choice, own]) {
    if (word === 'always') return true;
    if (word === 'never') return false;
  }
  if (environment.NO_COLOR) return false;
  if (environment.FORCE_COLOR) return environment.FORCE_COLOR !== '0' && environment.FORCE_COLOR !== 'false';
  if (environment.CLICOLOR_FORCE && environment.CLICOLOR_FORCE !== '0') return true;
  if (environment.CLICOLOR === '0' || environment.TERM === 'dumb') return false;
  return isTerminal;
}
