import type { Command } from 'commander';
import { withExamples } from '../command.ts';
import { usageError } from '../exit.ts';
import { serverOptions, withServer } from '../server-options.ts';

export function build(command: Command): void {
  withServer(command);
  command
    .option('-n, --dry-run', 'show the configuration and what would run with it, and start nothing')
    .option('--json', 'with --dry-run: print one JSON document');
  withExamples(command, [
    ['gpuproxy serve', 'with the configuration of the environment and .env'],
    ['gpuproxy serve --demo', 'on a simulated fleet'],
    ['gpuproxy serve --upstreams http://10.0.0.5:8000,http://10.0.0.6:8000', 'balance over servers you already have'],
    ['gpuproxy serve --port 0 --proxy-port 0', 'on free ports, which are printed'],
    ['gpuproxy serve --dry-run', 'would it start, and with what'],
  ]);
  command.action(async (values: Record<string, unknown>) => {
    if (values.dryRun === true) {
      const { showServe } = await import('../serve-plan.ts');
      showServe(serverOptions(values), values.json === true);
      return;
    }
    if (values.json === true) throw usageError('--json: only with --dry-run', { hint: 'its log is JSON in a pipe' });
    const { run } = await import('../serve.ts');
    process.exitCode = await run(serverOptions(values));
  });
}
