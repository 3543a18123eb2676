import type { Command } from 'commander';
import { Option } from 'commander';
import { nearest } from '../../core/words.ts';
import type { Answers } from '../answers.ts';
import { defaultSubcommand, suggest, withConnection, withExamples } from '../command.ts';
import { CliError, usageError, withWayOut } from '../exit.ts';
import { forSuggestion } from '../fleet-call.ts';
import { wholeFrom } from '../offer-options.ts';
import { type Column, duration } from '../output.ts';
import { openSession, type Session } from '../session.ts';

type Key = Answers['keys']['keys'][number];

const columns: readonly Column<Key>[] = [
  { title: 'ID', value: (row) => row.id },
  { title: 'NAME', value: (row) => row.name, cut: 6 },
  { title: 'SCOPE', value: (row) => row.scope },
  { title: 'CREATED', value: (row) => row.created_at.slice(0, 10), plain: (row) => row.created_at, drop: 1 },
  {
    title: 'LAST USED',
    value: (row) => fromNow(row.last_used_at),
    plain: (row) => row.last_used_at,
    drop: 2,
  },
  {
    title: 'EXPIRES',
    value: (row) => fromNow(row.expires_at),
    plain: (row) => row.expires_at,
  },
  { title: 'STATE', value: (row) => (row.revoked_at === null ? (expired(row) ? 'expired' : 'live') : 'revoked') },
  { title: 'PER MIN', value: (row) => String(row.requests_per_minute ?? '-') },
  { title: 'OPEN', value: (row) => String(row.max_concurrent ?? '-') },
];

export function build(command: Command): void {
  suggest(command, 'id', 'keys');
  withConnection(command);
  withExamples(command, [
    ['gpuproxy keys create --name grafana --scope read', 'a key that only reads; it is shown this once'],
    ['gpuproxy keys create --name app --scope proxy --expires 30d', 'a key for the data plane, valid for 30 days'],
    ['gpuproxy keys list', 'all keys, without their secrets'],
    ['gpuproxy keys revoke <id>', 'end one at once'],
  ]);
  const list = defaultSubcommand(command, 'list').description('All keys, without their secrets.');
  withExamples(list, [
    ['gpuproxy keys list', 'which there are, when they were used, and their limits'],
    ['gpuproxy keys list -q', 'ids only'],
  ]).action(async (_options: unknown, self: Command) => {
    const session = openSession(self, { rows: 'keys' });
    const answer = await session.call('GET', '/keys');
    if (session.json) return session.printBody(answer);
    const { keys } = await session.read('keys', answer);
    await session.page(session.quiet ? keys.map((row) => `${row.id}\n`).join('') : session.table(columns, keys));
  });
  const create = command
    .command('create')
    .description('Make a key. It is shown once: the server keeps only its hash.')
    .requiredOption('--name <name>', 'what it is for')
    .addOption(
      new Option('--scope <scope>', 'admin, read, or proxy (data plane only)')
        .choices(['admin', 'read', 'proxy'])
        .makeOptionMandatory(),
    )
    .option('--expires <when>', 'a time from now like 12h or 30d, or a date like 2027-01-31', expiry)
    .option('--requests-per-minute <n>', 'limit', wholeFrom('--requests-per-minute', 1, 1_000_000))
    .option('--max-concurrent <n>', 'limit of open requests', wholeFrom('--max-concurrent', 1, 100_000));
  withExamples(create, [
    ['gpuproxy keys create --name grafana --scope read', 'a key that only reads'],
    ['gpuproxy keys create --name app --scope proxy --requests-per-minute 600', 'a key for traffic, with a limit'],
    ['gpuproxy keys create --name guest --scope proxy --expires 12h', 'a key that ends by itself'],
  ]).action(async (options: CreateOptions, self: Command) => {
    const session = openSession(self);
    const body = {
      name: options.name,
      scope: options.scope,
      ...(options.expires === undefined ? {} : { expires_at: options.expires }),
      ...(options.requestsPerMinute === undefined ? {} : { requests_per_minute: options.requestsPerMinute }),
      ...(options.maxConcurrent === undefined ? {} : { max_concurrent: options.maxConcurrent }),
    };
    const answer = await session.call('POST', '/keys', { body });
    const { id, key } = await session.read('keyCreated', answer);
    if (session.json) session.printBody(answer);
    else session.print(`${key}\n`);
    session.note(`Key ${id} (${options.scope}). It is shown this once.`);
  });
  const end = command.command('revoke').description('End a key at once.').argument('<id>', 'id of the key');
  withExamples(end, [['gpuproxy keys revoke key-9149f6a5dc61', 'with an id of "gpuproxy keys list"']]).action(
    async (id: string, _options: unknown, self: Command) => {
      const session = openSession(self);
      // Not even sent: a path is what logs hold.
      if (id.startsWith('gp_') || id === session.client.connection.key) {
        throw usageError('got a key, accepts its id', { hint: '"gpuproxy keys list" lists the ids' });
      }
      await revoke(session, id);
      if (session.json) session.printJson(null);
      else session.print(session.quiet ? `${id}\n` : session.line(id, 'revoked'));
    },
  );
}

type CreateOptions = Readonly<{
  name: string;
  scope: string;
  expires?: string;
  requestsPerMinute?: number;
  maxConcurrent?: number;
}>;

async function revoke(session: Session, id: string): Promise<void> {
  try {
    await withWayOut(() => session.call('DELETE', `/keys/${encodeURIComponent(id)}`), {
      conflict: 'gpuproxy keys create --name <name> --scope admin',
    });
  } catch (error) {
    if (!(error instanceof CliError) || error.status !== 404) throw error;
    const known = await forSuggestion(async () =>
      (await session.read('keys', await session.client.call('GET', '/keys'))).keys.map((row) => row.id),
    );
    const near = nearest(id, known);
    throw new CliError(
      error.exitCode,
      error.code,
      `unknown key "${id}"${near === undefined ? '' : `; did you mean ${near}?`}`,
      { status: 404, requestId: error.requestId, hint: '"gpuproxy keys list" lists them' },
    );
  }
}

/** "in 29 d", "5 m ago". */
function fromNow(time: string | null): string {
  if (time === null) return '-';
  const ms = Date.parse(time) - Date.now();
  return ms > 0 ? `in ${duration(ms)}` : `${duration(-ms)} ago`;
}

function expired(row: Key): boolean {
  return row.expires_at !== null && Date.parse(row.expires_at) <= Date.now();
}

function expiry(word: string): string {
  const match = /^(\d+)([mhd])$/.exec(word);
  const at = match
    ? Date.now() + Number(match[1]) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[match[2] as 'm' | 'h' | 'd']
    : /^\d{4}-\d\d-\d\d/.test(word)
      ? Date.parse(word)
      : Number.NaN;
  if (!(at > Date.now()) || at > 8.64e15) {
    throw usageError(
      `--expires: got "${word}", accepts a time from now like 12h or 30d, or a date in the future like 2027-01-31`,
    );
  }
  return new Date(at).toISOString();
}
