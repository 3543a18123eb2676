import type { Command } from 'commander';
import { withExamples } from '../command.ts';
import { positive, wholeFrom } from '../offer-options.ts';
import type { SimOptions } from '../server-options.ts';

export function build(command: Command): void {
  command
    .option(
      '--seed <n>',
      'the same seed gives the same offers, prices and boot times',
      wholeFrom('--seed', 0, 2 ** 31),
      1,
    )
    .option('--host <address>', 'address of the listeners', '127.0.0.1')
    .option('--vast-port <n>', 'of the vast.ai API, 0 takes a free one', wholeFrom('--vast-port', 0, 65_535), 0)
    .option('--ionet-port <n>', 'of the io.net API, 0 takes a free one', wholeFrom('--ionet-port', 0, 65_535), 0)
    .option('--control-port <n>', 'of the fault control, 0 takes a free one', wholeFrom('--control-port', 0, 65_535), 0)
    .option('--speed <factor>', 'of the GPU servers', positive('--speed'), 1)
    .option('--json', 'print addresses and keys as one document');
  withExamples(command, [
    ['gpuproxy sim', 'both marketplaces on free ports'],
    ['gpuproxy sim --vast-port 9001 --ionet-port 9002 --seed 7', 'on fixed ports'],
  ]);
  command.action(async (values: SimOptions) => {
    const { run } = await import('../sim.ts');
    process.exitCode = await run({ ...values, json: values.json === true });
  });
}
