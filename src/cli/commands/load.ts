import type { Command } from 'commander';
import { suggest, watchSeconds, withConnection, withExamples, withWatch } from '../command.ts';
import { usageError } from '../exit.ts';
import { type Fields, fieldsOf, listOf, numberOf, textOf } from '../fields.ts';
import { nearest } from '../nearest.ts';
import { type Column, outputWidth, tableLines } from '../output.ts';
import { openSession } from '../session.ts';
import { show } from '../watch.ts';

const parts = ['server', 'provider'] as const;

export function build(command: Command): void {
  command.argument('[part]', `server or provider; both when left out`);
  withWatch(command);
  withConnection(command);
  suggest(command, 'part', parts);
  withExamples(command, [
    ['gpuproxy load', 'the load of every instance, and what the providers offer'],
    ['gpuproxy load server --watch 5', 'the load table, again every 5 seconds'],
    ['gpuproxy load --json | jq .loads', 'for programs'],
  ]);
  command.action(async (part: string | undefined, options: { watch?: number }) => {
    if (part !== undefined && !(parts as readonly string[]).includes(part)) {
      const near = nearest(part, parts);
      throw usageError(`unknown part "${part}"${near ? `; did you mean ${near}?` : ''}`, {
        hint: 'gpuproxy load, gpuproxy load server, or gpuproxy load provider',
      });
    }
    const session = openSession(command);
    await show(session, watchSeconds(options.watch), async () => {
      const [loads, providers] = await Promise.all([
        part === 'provider' ? null : session.call('GET', '/loadbalancer/loads'),
        part === 'server' ? null : session.call('GET', '/providers'),
      ]);
      const text = [loads && serverText(fieldsOf(loads.body)), providers && providerText(fieldsOf(providers.body))];
      return {
        json: { ...fieldsOf(loads?.body), ...fieldsOf(providers?.body) },
        text: text.filter((block) => block !== null).join('\n'),
      };
    });
  });
}

export const loadColumns: readonly Column<Fields>[] = [
  { title: 'INSTANCE', width: 11, value: (load) => textOf(load.instance_id), cut: true },
  { title: 'PROVIDER', width: 8, value: (load) => textOf(load.provider) },
  { title: 'ACTIVE', width: 6, value: (load) => textOf(load.active_connections) },
  { title: 'TOTAL', width: 5, value: (load) => textOf(load.total_connections) },
  { title: 'AVG RT', width: 7, value: (load) => textOf(load.avg_response_time) },
  { title: 'WEIGHT', value: (load) => numberOf(load.weight)?.toFixed(2) ?? '-' },
];

function serverText(body: Fields): string {
  const loads = Object.values(fieldsOf(body.loads)).map(fieldsOf);
  const head = `Load Balancing Strategy: ${textOf(body.strategy)}\nTracked Instances: ${numberOf(body.count) ?? loads.length}\n`;
  return `${head}\n${tableLines(loadColumns, loads, outputWidth()).join('\n')}\n`;
}

function providerText(body: Fields): string {
  const rows = listOf(body.providers)
    // Servers that one already has are not for rent.
    .filter((provider) => provider.provider !== 'static')
    .map((provider) => [textOf(provider.provider), numberOf(provider.available) ?? 0] as const);
  const total = numberOf(body.total_available) ?? rows.reduce((sum, [, available]) => sum + available, 0);
  const width = Math.max(...['Total', ...rows.map(([name]) => name)].map((name) => name.length)) + 2;
  const lines = [...rows, ['Total', total] as const].map(
    ([name, count], i) =>
      `  ${`${name}:`.padEnd(width)}${count} ${i < rows.length ? 'available ' : ''}instance${count === 1 ? '' : 's'}`,
  );
  return `Provider Load:\n${lines.join('\n')}\n`;
}
