import { type Command, Option } from 'commander';
import type { ColorChoice } from '../color.ts';
import { withExamples } from '../command.ts';
import { serverOptions, withServer } from '../server-options.ts';

export function build(command: Command): void {
  withServer(command);
  command
    .optionsGroup('Dashboard:')
    .option('-u, --url <url>', 'follow a running server in place of running one here')
    .option('-k, --key <key>', 'API key for --url (GPUPROXY_API_KEY)')
    .option('--once', 'print one frame as text and end')
    .option('--interactive', 'draw on the terminal although CI is set')
    .option('--readonly', 'refuse everything that changes something')
    .option('--theme <name>', 'colours')
    .option('--ascii', 'no characters beyond ASCII')
    .addOption(new Option('--color <when>', 'colour').choices(['auto', 'always', 'never']).default('auto'))
    .option('--reset', 'put a terminal back in order that a killed program left behind');
  withExamples(command, [
    ['gpuproxy tui', 'the system and its dashboard; a simulated fleet when nothing is configured'],
    ['gpuproxy tui --demo --seed 7', 'another simulated fleet'],
    ['gpuproxy tui --url http://gpu-host:8080 --readonly', 'look at a server elsewhere'],
    ['gpuproxy tui --once', 'one frame as text'],
  ]);
  command.action(async (values: Record<string, unknown>) => {
    const { run } = await import('../tui.ts');
    process.exitCode = await run({
      ...serverOptions(values),
      url: (values.url as string | undefined) ?? null,
      key: values.key as string | undefined,
      once: values.once === true,
      interactive: values.interactive === true,
      reset: values.reset === true,
      readonly: values.readonly === true,
      theme: values.theme as string | undefined,
      ascii: values.ascii === true,
      color: values.color as ColorChoice,
    });
  });
}
