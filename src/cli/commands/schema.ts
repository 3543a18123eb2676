import type { Command } from 'commander';
import { nearest } from '../../core/words.ts';
import { withExamples, withoutConnection } from '../command.ts';
import { usageError } from '../exit.ts';

export function build(command: Command): void {
  withoutConnection(command);
  command.argument('[command...]', 'a command, "error" or --dry-run; without one, all names');
  withExamples(command, [
    ['gpuproxy schema load', 'what "gpuproxy load --json" prints'],
    ['gpuproxy schema reservations show', 'of a subcommand'],
    ['gpuproxy schema error', 'what stands on stderr when a command with --json fails'],
    ['gpuproxy schema -- --dry-run', 'what every --dry-run --json has'],
  ]);
  command.action(async (words: readonly string[]) => {
    const { outputSchema, outputSchemas } = await import('../output-schemas.ts');
    const names = Object.keys(outputSchemas);
    if (words.length === 0) {
      process.stdout.write(`${names.join('\n')}\n`);
      return;
    }
    const name = words.join(' ');
    const schema = outputSchema(name);
    if (schema === undefined) {
      const near = nearest(name, names);
      throw usageError(`no schema of "${name}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
        hint: '"gpuproxy schema" lists them',
      });
    }
    process.stdout.write(`${JSON.stringify(schema, null, 2)}\n`);
  });
}
