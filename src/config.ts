import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import * as z from 'zod';
import { isBaseUrl, isFileContent, shownValue } from './core/base-url.ts';
import { strategyNames } from './core/domain.ts';
import type { HealthSettings } from './core/health.ts';

/**
 * All configuration of the program. Precedence: flag, environment, `.env` in the working directory, conf file, default.
 * One schema parses it once; the result is frozen.
 */

const boolean = z.union(
  [z.boolean(), z.stringbool({ truthy: ['true', '1', 'yes', 'on'], falsy: ['false', '0', 'no', 'off'] })],
  {
    error: 'true or false',
  },
);
const port = z.coerce.number({ error: 'a port number from 0 to 65535' }).int().min(0).max(65_535);
const seconds = (min: number, max: number) =>
  z.coerce
    .number({ error: `seconds from ${min} to ${max}` })
    .min(min, { error: `seconds from ${min} to ${max}` })
    .max(max, {
      error: `seconds from ${min} to ${max}`,
    });
const whole = (min: number, max: number) =>
  z.coerce
    .number({ error: `a whole number from ${min} to ${max}` })
    .int({ error: `a whole number from ${min} to ${max}` })
    .min(min, { error: `a whole number from ${min} to ${max}` })
    .max(max, { error: `a whole number from ${min} to ${max}` });
const fraction = z.coerce
  .number({ error: 'a number from 0 to 1' })
  .min(0, { error: 'a number from 0 to 1' })
  .max(1, { error: 'a number from 0 to 1' });
/** Of a server that requests are sent to: what else a URL can carry would be lost on the way, or be shown to people. */
const baseUrl = z
  .string()
  .refine(isBaseUrl, { error: 'an http:// or https:// URL without user, password, query and fragment' })
  .transform((text) => text.replace(/\/+$/, ''));
const path = z.string().regex(/^\//, { error: 'a path that begins with /' });
const text = z.string().min(1, { error: 'a text that is not empty' });

const maxThreads = 64;

/** GPUPROXY_THREADS where it is not set: one core stays for the main thread. */
export function defaultThreads(cores: number): number {
  return Math.min(maxThreads, Math.max(1, cores - 1));
}

const pemPath = text.refine((value) => !isFileContent(value), { error: 'the path of a PEM file, not what is in it' });

export type UpstreamSetting = Readonly<{ name: string; url: string }>;

const upstreams = z.string().transform((value, context): UpstreamSetting[] => {
  const items = value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
  const parsed: UpstreamSetting[] = [];
  for (const [index, item] of items.entries()) {
    const match = /^(?:([A-Za-z0-9._-]+)=)?(https?:\/\/.+)$/.exec(item);
    const url = baseUrl.safeParse(match?.[2] ?? '');
    if (!match || !url.success) {
      context.addIssue({
        code: 'custom',
        message: `a comma list of [name=]http(s)://host:port, without user, password, query and fragment; item ${index + 1} is not`,
        params: { wrong: item },
      });
      return z.NEVER;
    }
    const name = match[1] ?? new URL(url.data).host.replace(/[^A-Za-z0-9.-]/g, '-');
    if (parsed.some((other) => other.name === name)) {
      context.addIssue({
        code: 'custom',
        message: `different names; ${name} comes twice`,
        params: { wrong: item },
      });
      return z.NEVER;
    }
    parsed.push({ name, url: url.data });
  }
  return parsed;
});

/** Samplers by their names in the OpenTelemetry specification. */
export const samplerNames = [
  'always_on',
  'always_off',
  'traceidratio',
  'parentbased_always_on',
  'parentbased_always_off',
  'parentbased_traceidratio',
] as const;
export type SamplerName = (typeof samplerNames)[number];

/** `name=value,…` with percent-encoded values, as the OpenTelemetry specification writes headers. */
const headerList = z.string().transform((value, context): Record<string, string> => {
  const headers: Record<string, string> = {};
  for (const item of value.split(',').filter((each) => each.trim() !== '')) {
    const match = /^\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*([\x21-\x7e]*)\s*$/.exec(item);
    try {
      if (match === null) throw new URIError();
      headers[match[1]!.toLowerCase()] = decodeURIComponent(match[2]!);
    } catch {
      context.addIssue({ code: 'custom', message: 'a comma list of name=value, values percent-encoded' });
      return z.NEVER;
    }
  }
  return headers;
});

/** One row a variable: schema, default and the line of `.env.example`. */
export const variables = {
  LB_STRATEGY: {
    schema: z.enum(strategyNames, { error: `one of ${strategyNames.join(', ')}` }).optional(),
    default: undefined,
    shown: 'round_robin',
    help: 'Load balancing strategy; when set it wins over the last choice at every start',
  },
  LB_ENABLED: {
    schema: boolean,
    default: true,
    shown: 'true',
    help: 'false: first eligible upstream in fleet order (failover only), reservations take the cheapest offers',
  },
  VASTAI_API_KEY: {
    schema: text.optional(),
    default: undefined,
    shown: '',
    help: 'vast.ai key; without it the provider is off',
    secret: true,
  },
  IONET_API_KEY: {
    schema: text.optional(),
    default: undefined,
    shown: '',
    help: 'io.net key; without it the provider is off',
    secret: true,
  },
  VASTAI_URL: {
    schema: baseUrl,
    default: 'https://console.vast.ai',
    shown: 'https://console.vast.ai',
    help: 'Base URL of the vast.ai API',
  },
  IONET_URL: {
    schema: baseUrl,
    default: 'https://api.io.solutions',
    shown: 'https://api.io.solutions',
    help: 'Base URL of the io.net API',
  },
  UPSTREAMS: { schema: upstreams, default: '', shown: '', help: 'Servers you already have: comma list of [name=]url' },
  UPSTREAM_API_KEY: {
    schema: text.optional(),
    default: undefined,
    shown: '',
    help: "Sent to upstreams as Authorization: Bearer, in place of the client's key",
    secret: true,
  },
  GPUPROXY_HOST: { schema: text, default: '127.0.0.1', shown: '127.0.0.1', help: 'Address both listeners bind to' },
  GPUPROXY_PORT: { schema: port, default: 8080, shown: '8080', help: 'Control plane (REST) port; 0 takes a free one' },
  GPUPROXY_PROXY_PORT: { schema: port, default: 8081, shown: '8081', help: 'Data plane port; 0 takes a free one' },
  GPUPROXY_API_KEY: {
    schema: z.string().min(8, { error: 'a key of at least 8 characters' }).optional(),
    default: undefined,
    shown: '',
    help: 'Server: an admin key. Client commands: the key they send',
    secret: true,
  },
  GPUPROXY_URL: {
    schema: baseUrl,
    default: 'http://127.0.0.1:8080',
    shown: 'http://127.0.0.1:8080',
    help: 'Where client commands find the server',
  },
  GPUPROXY_DATA_DIR: {
    schema: text.optional(),
    default: undefined,
    shown: '',
    help: 'Folder of the ledger; default: $XDG_STATE_HOME/gpuproxy or ~/.local/state/gpuproxy',
  },
  GPUPROXY_THREADS: {
    schema: whole(1, maxThreads).optional(),
    default: undefined,
    shown: '',
    help: 'Data-plane threads; default: cores - 1, at least 1 and at most 64',
  },
  PROXY_AUTH: {
    schema: z.enum(['auto', 'required'], { error: 'auto or required' }),
    default: 'auto',
    shown: 'auto',
    help: 'Key on the data plane: auto asks for one unless it listens on loopback alone; required always asks',
  },
  INSTANCE_PORT: {
    schema: whole(1, 65_535),
    default: 8000,
    shown: '8000',
    help: 'Container port that serves HTTP on a rented instance',
  },
  HEALTH_PATH: { schema: path, default: '/health', shown: '/health', help: 'Path of the active probe' },
  HEALTH_INTERVAL_SECONDS: {
    schema: seconds(0.1, 3600),
    default: 5,
    shown: '5',
    help: 'Time between probes of an upstream',
  },
  HEALTH_TIMEOUT_SECONDS: {
    schema: seconds(0.1, 60),
    default: 3,
    shown: '3',
    help: 'A probe without an answer in this time fails',
  },
  EJECT_AFTER_FAILURES: {
    schema: whole(1, 100),
    default: 3,
    shown: '3',
    help: 'Consecutive failures that eject an upstream',
  },
  EJECT_BASE_SECONDS: {
    schema: seconds(0.1, 3600),
    default: 5,
    shown: '5',
    help: 'First ejection; doubles with each one in a row',
  },
  EJECT_MAX_SECONDS: { schema: seconds(0.1, 86_400), default: 300, shown: '300', help: 'Longest ejection' },
  MAX_EJECTED_FRACTION: {
    schema: fraction,
    default: 0.5,
    shown: '0.5',
    help: 'Part of the fleet that may be ejected at once; beyond it ejected upstreams still get requests',
  },
  SLOW_START_SECONDS: {
    schema: seconds(0, 3600),
    default: 30,
    shown: '30',
    help: 'Ramp of weight and ceiling after joining and after recovery; 0 switches it off',
  },
  UPSTREAM_MAX_IN_FLIGHT: {
    schema: whole(0, 1_000_000),
    default: 256,
    shown: '256',
    help: 'Ceiling of in-flight requests per upstream; 0: none',
  },
  QUEUE_LIMIT: {
    schema: whole(0, 1_000_000),
    default: 1024,
    shown: '1024',
    help: 'Requests that may wait when every upstream is at its ceiling',
  },
  QUEUE_TIMEOUT_SECONDS: {
    schema: seconds(0, 3600),
    default: 30,
    shown: '30',
    help: 'Longest wait in the queue, then 503',
  },
  CONNECT_TIMEOUT_SECONDS: { schema: seconds(0.1, 600), default: 5, shown: '5', help: 'Connecting to an upstream' },
  FIRST_BYTE_TIMEOUT_SECONDS: {
    schema: seconds(0.1, 86_400),
    default: 120,
    shown: '120',
    help: 'From dispatch to the first byte of the answer',
  },
  IDLE_TIMEOUT_SECONDS: {
    schema: seconds(0.1, 86_400),
    default: 120,
    shown: '120',
    help: 'Silence between two chunks of an answer',
  },
  TOTAL_TIMEOUT_SECONDS: { schema: seconds(0, 86_400), default: 0, shown: '0', help: 'Whole request; 0: no limit' },
  MAX_RETRIES: {
    schema: whole(0, 10),
    default: 2,
    shown: '2',
    help: 'Further attempts on other upstreams after the first',
  },
  RETRY_BODY_BYTES: {
    schema: whole(0, 16_777_216),
    default: 65_536,
    shown: '65536',
    help: 'Request bodies up to this size are kept for a retry',
  },
  DRAIN_SECONDS: {
    schema: seconds(0, 86_400),
    default: 30,
    shown: '30',
    help: 'Deadline of a drain: of an upstream before it is destroyed, of the server at SIGTERM',
  },
  MAX_CONNECTIONS: {
    schema: whole(1, 1_000_000),
    default: 16_384,
    shown: '16384',
    help: 'Client connections per data-plane thread',
  },
  ACCESS_LOG: {
    schema: text,
    default: 'off',
    shown: 'off',
    help: 'off, - for stderr, or a file: one JSON line a request',
  },
  OTEL_EXPORTER_OTLP_ENDPOINT: {
    schema: baseUrl.optional(),
    default: undefined,
    shown: '',
    help: 'Base URL of an OTLP/HTTP receiver (port 4318) for traces; without it nothing is traced',
  },
  OTEL_EXPORTER_OTLP_HEADERS: {
    schema: headerList,
    default: '',
    shown: '',
    help: 'Sent to the receiver: comma list of name=value',
    secret: true,
  },
  OTEL_SERVICE_NAME: { schema: text, default: 'gpuproxy', shown: 'gpuproxy', help: 'service.name of the traces' },
  OTEL_TRACES_SAMPLER: {
    schema: z.enum(samplerNames, { error: `one of ${samplerNames.join(', ')}` }),
    default: 'parentbased_always_on',
    shown: 'parentbased_always_on',
    help: 'Which requests are traced',
  },
  OTEL_TRACES_SAMPLER_ARG: {
    schema: fraction,
    default: 1,
    shown: '1',
    help: 'Part of the requests that the ratio samplers trace',
  },
  INSTANCE_HEADER: { schema: boolean, default: true, shown: 'true', help: 'Answer with X-Gpuproxy-Instance' },
  TLS_CERT: {
    schema: pemPath.optional(),
    default: undefined,
    shown: '',
    help: 'PEM certificate chain for both listeners',
  },
  TLS_KEY: { schema: pemPath.optional(), default: undefined, shown: '', help: 'PEM private key for TLS_CERT' },
  REFRESH_SECONDS: {
    schema: seconds(1, 3600),
    default: 30,
    shown: '30',
    help: 'Availability of each provider is asked this often',
  },
  RECONCILE_SECONDS: {
    schema: seconds(1, 3600),
    default: 30,
    shown: '30',
    help: "Ledger against the providers' lists; 2 while something boots",
  },
  MAX_USD_PER_HOUR: {
    schema: z.coerce
      .number({ error: 'a positive number of USD per hour' })
      .positive({ error: 'a positive number of USD per hour' })
      .optional(),
    default: undefined,
    shown: '',
    help: 'Reservations that would exceed it are refused',
  },
  DEFAULT_IMAGE: {
    schema: text,
    default: 'vllm/vllm-openai:latest',
    shown: 'vllm/vllm-openai:latest',
    help: 'Container image when a reservation names none',
  },
  DEFAULT_DISK_GB: { schema: whole(8, 10_000), default: 40, shown: '40', help: 'Disk when a reservation names none' },
} as const;

export type VariableName = keyof typeof variables;
export type Config = Readonly<z.output<typeof schema>> & {
  /** Where each value came from. */
  readonly origin: Readonly<Record<VariableName, 'flag' | 'environment' | '.env' | 'conf' | 'default'>>;
};

/** One or more variables are wrong. `message` has one line each; exit code 2. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

export type ConfigSources = Readonly<{
  flags?: Partial<Record<VariableName, unknown>>;
  environment?: Readonly<Record<string, string | undefined>>;
  /** Folder whose `.env` is read. */
  cwd?: string;
  /** Values of the conf file. */
  stored?: Partial<Record<VariableName, unknown>>;
}>;

const schema = z.object(
  Object.fromEntries(Object.entries(variables).map(([name, row]) => [name, row.schema])) as {
    [K in VariableName]: (typeof variables)[K]['schema'];
  },
);

/** Reads, merges and checks everything. Throws ConfigError. An empty environment variable counts as not set. */
export function loadConfig(sources: ConfigSources): Config {
  const dotenv = sources.cwd === undefined ? {} : readDotenv(sources.cwd);
  const merged: Record<string, unknown> = {};
  const origin: Record<string, string> = {};
  for (const name of Object.keys(variables) as VariableName[]) {
    const layers = [
      ['flag', sources.flags?.[name]],
      ['environment', sources.environment?.[name] || undefined],
      ['.env', dotenv[name] || undefined],
      ['conf', sources.stored?.[name]],
      ['default', variables[name].default],
    ] as const;
    const found = layers.find(([, value]) => value !== undefined) ?? (['default', undefined] as const);
    merged[name] = found[1];
    origin[name] = found[0];
  }
  const parsed = schema.safeParse(merged);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => {
      const name = String(issue.path[0]) as VariableName;
      // Of a list the one item that is wrong: the others are nobody's business here.
      const wrong = (issue.code === 'custom' ? issue.params?.wrong : undefined) ?? merged[name];
      const got = 'secret' in variables[name] ? 'a value that is hidden' : shownValue(wrong);
      return `${name}: got ${got}${origin[name] === 'environment' ? '' : ` (${origin[name]})`}, accepts ${issue.message}`;
    });
    throw new ConfigError(lines.join('\n'));
  }
  const config = parsed.data;
  if ((config.TLS_CERT === undefined) !== (config.TLS_KEY === undefined)) {
    throw new ConfigError('TLS_CERT and TLS_KEY go together: set both or none');
  }
  return Object.freeze({ ...config, origin: Object.freeze(origin) as Config['origin'] });
}

function readDotenv(folder: string): Record<string, string | undefined> {
  try {
    return parseEnv(readFileSync(join(folder, '.env'), 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new ConfigError(`.env: cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`);
  }
}

/** What the balancers of all threads go by. */
export function healthSettingsOf(
  config: Pick<
    Config,
    'EJECT_AFTER_FAILURES' | 'EJECT_BASE_SECONDS' | 'EJECT_MAX_SECONDS' | 'MAX_EJECTED_FRACTION' | 'SLOW_START_SECONDS'
  >,
): HealthSettings {
  return {
    ejectAfterFailures: config.EJECT_AFTER_FAILURES,
    ejectBaseMs: config.EJECT_BASE_SECONDS * 1000,
    ejectMaxMs: config.EJECT_MAX_SECONDS * 1000,
    maxEjectedFraction: config.MAX_EJECTED_FRACTION,
    slowStartMs: config.SLOW_START_SECONDS * 1000,
  };
}

/** Read before there is a configuration, or of every command: by the environment alone. */
const environmentOnly = {
  GPUPROXY_CONFIG_DIR: {
    shown: '',
    help: 'Folder of the stored preferences; default: $XDG_CONFIG_HOME/gpuproxy or ~/.config/gpuproxy',
  },
  GPUPROXY_COLOR: { shown: 'auto', help: 'auto, always or never; --color wins' },
  GPUPROXY_GLYPHS: { shown: '', help: 'unicode or ascii; default: what the locale and the terminal can show' },
  GPUPROXY_PAGER: {
    shown: '',
    help: 'Shows what is longer than the terminal; cat: nothing does; default: PAGER, else less -FIRX',
  },
  GPUPROXY_DEBUG: {
    shown: '',
    help: 'Set to anything: tell each request of a client command, and where a bug came from',
  },
  GPUPROXY_FORCE_TTY: { shown: '', help: 'Columns, 20 to 1000: write as to a terminal that wide' },
} as const;

/** Not ours, but heeded. */
const heeded = [
  'NO_COLOR FORCE_COLOR CLICOLOR CLICOLOR_FORCE COLORTERM TERM LANG LC_ALL LC_CTYPE LINES COLUMNS PAGER CI',
  'INK_SCREEN_READER NODE_COMPILE_CACHE NOTIFY_SOCKET XDG_CACHE_HOME XDG_CONFIG_HOME XDG_STATE_HOME APPDATA',
];

/** The text of `.env.example`. */
export function envExample(): string {
  const texts = (rows: Readonly<Record<string, Readonly<{ help: string; shown: string }>>>) =>
    Object.entries(rows).map(([name, row]) => `# ${row.help}\n#${name}=${row.shown}\n`);
  return [
    ...texts(variables),
    '# What follows is read of the environment alone, not of a file like this one.\n',
    ...texts(environmentOnly),
    `# So are, with their usual meaning:\n${heeded.map((names) => `#   ${names}\n`).join('')}`,
  ].join('\n');
}
