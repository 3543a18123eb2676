import { type Command, InvalidArgumentError, Option } from 'commander';
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
    .option('--screen-reader', 'sentences and typed commands in place of a drawn screen (INK_SCREEN_READER=true)')
    .option('--record <file>', 'keep what is shown in a new file, secrets left out')
    .option('--replay <file>', 'show a recording')
    .addOption(new Option('--speed <n>', 'of --replay: times as fast as it was recorded').argParser(speed))
    .option('--reset', 'put a terminal back in order that a killed program left behind');
  withExamples(command, [
    ['gpuproxy tui', 'the system and its dashboard; a simulated fleet when nothing is configured'],
    ['gpuproxy tui --demo --seed 7', 'another simulated fleet'],
    ['gpuproxy tui --url http://gpu-host:8080 --readonly', 'look at a server elsewhere'],
    ['gpuproxy tui --record session.jsonl', 'keep the session, to show it to somebody'],
    ['gpuproxy tui --replay session.jsonl --speed 4', 'show it again, four times as fast'],
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
      screenReader: values.screenReader === true,
      record: (values.record as string | undefined) ?? null,
      replay: (values.replay as string | undefined) ?? null,
      speed: values.speed as number | undefined,
    });
  });
}

function speed(word: string): number {
  const times = Number(word);
  if (!(times >= 0.1 && times <= 1000)) throw new InvalidArgumentError('accepts a number from 0.1 to 1000');
  return times;
}
