import type { Command } from 'commander';
import { withExamples } from '../command.ts';
import { serverOptions, withServer } from '../server-options.ts';

export function build(command: Command): void {
  withServer(command);
  withExamples(command, [
    ['gpuproxy serve', 'with the configuration of the environment and .env'],
    ['gpuproxy serve --demo', 'on a simulated fleet'],
    ['gpuproxy serve --upstreams http://10.0.0.5:8000,http://10.0.0.6:8000', 'balance over servers you already have'],
    ['gpuproxy serve --port 0 --proxy-port 0', 'on free ports, which are printed'],
  ]);
  command.action(async (values: Record<string, unknown>) => {
    const { run } = await import('../serve.ts');
    process.exitCode = await run(serverOptions(values));
  });
}
