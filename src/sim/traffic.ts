import { Agent, request as httpRequest } from '../node-http.ts';
import { createRandom, type Random } from './random.ts';

export type TrafficOptions = Readonly<{
  /** Data plane, `http://127.0.0.1:8081`. */
  url: string;
  /** Sent as X-API-Key; null or absent where the data plane wants none. */
  key?: string | null | undefined;
  seed?: number | undefined;
  /** Requests per second at the bottom and at the top of the wave. */
  rps?: Readonly<{ min: number; max: number }> | undefined;
  /** Length of one wave, from bottom to bottom. */
  waveMs?: number | undefined;
  /** Open requests at most; what comes on top is left out. */
  maxInFlight?: number | undefined;
}>;

export type TrafficStats = Readonly<{
  sent: number;
  ok: number;
  /** Answers of 400 and above. */
  refused: number;
  /** Broken off by the client on purpose. */
  aborted: number;
  /** No answer, or one that broke off. */
  failed: number;
  skipped: number;
  inFlight: number;
}>;

export interface Traffic {
  stats(): TrafficStats;
  stop(): Promise<void>;
}

const prompts = [
  'Summarise the incident report in three sentences.',
  'Write a haiku about a GPU that is never idle.',
  'Translate to Swedish: where is the nearest data centre?',
  'Explain backpressure to a new colleague.',
  'Extract every date from the text below and return JSON.',
  'Which of these log lines is the first sign of trouble?',
  'Draft a polite reply that declines the meeting.',
  'Find the bug in this function and show the fix.',
];

/** Sends light, varied inference traffic at a data plane until it is stopped. The same seed plans the same requests. */
export function startTraffic(options: TrafficOptions): Traffic {
  const random = createRandom(options.seed ?? 1);
  const { min, max } = options.rps ?? { min: 5, max: 40 };
  const waveMs = options.waveMs ?? 90_000;
  const maxInFlight = options.maxInFlight ?? 96;
  const agent = new Agent({ keepAlive: true, maxSockets: maxInFlight });
  const base = new URL(options.url);
  const stopping = new AbortController();
  const counts = { sent: 0, ok: 0, refused: 0, aborted: 0, failed: 0, skipped: 0 };
  const startedAt = performance.now();
  let inFlight = 0;
  let models: readonly string[] = [];
  let idle = () => {};

  const send = (method: string, path: string, body: unknown, leaveAfterMs: number | null): Promise<string> =>
    new Promise((resolve) => {
      const payload = body === undefined ? undefined : JSON.stringify(body);
      let left = false;
      let answer = '';
      const request = httpRequest(
        {
          agent,
          method,
          path,
          host: base.hostname,
          port: base.port,
          signal: stopping.signal,
          headers: {
            ...(payload === undefined
              ? {}
              : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(payload) }),
            ...(options.key == null ? {} : { 'X-API-Key': options.key }),
          },
        },
        (response) => {
          response.setEncoding('utf8');
          response.on('data', (part: string) => {
            if (method === 'GET') answer += part;
          });
          response.once('error', () => settle('failed'));
          response.once('end', () => settle((response.statusCode ?? 500) >= 400 ? 'refused' : 'ok'));
        },
      );
      const timer =
        leaveAfterMs === null
          ? undefined
          : setTimeout(() => {
              left = true;
              request.destroy();
            }, leaveAfterMs);
      let settled = false;
      const settle = (how: 'ok' | 'refused' | 'failed') => {
        if (settled) return;
        settled = true;
        clearTimeout(timer);
        counts[left ? 'aborted' : how]++;
        resolve(how === 'ok' ? answer : '');
      };
      request.once('error', () => settle('failed'));
      request.once('close', () => settle('failed'));
      request.end(payload);
    });

  const learnModels = async (): Promise<void> => {
    try {
      const { data } = JSON.parse(await send('GET', '/v1/models', undefined, null)) as { data?: { id: string }[] };
      models = (data ?? []).map(({ id }) => id);
    } catch {
      // Nothing serves yet: requests go without a model until something does.
      models = [];
    }
  };

  const one = async (): Promise<void> => {
    if (inFlight >= maxInFlight) {
      counts.skipped++;
      return;
    }
    inFlight++;
    counts.sent++;
    const { path, body, leaveAfterMs } = plan(random, models);
    await send('POST', path, body, leaveAfterMs);
    inFlight--;
    if (inFlight === 0) idle();
  };

  /** Two waves on top of each other, with noise: never the same minute twice, and never flat. */
  const rate = (): number => {
    // Begins on the way up.
    const t = ((performance.now() - startedAt) / waveMs + 1 / 6) * 2 * Math.PI;
    const wave = 0.5 - 0.38 * Math.cos(t) - 0.12 * Math.cos(t * 3.7);
    return Math.max(0.2, min + (max - min) * wave * random.between(0.8, 1.2));
  };

  let timer: NodeJS.Timeout;
  const next = (): void => {
    void one();
    // Poisson arrivals.
    timer = setTimeout(next, Math.min(2000, (-Math.log(1 - random.next()) / rate()) * 1000));
  };
  void learnModels();
  const learning = setInterval(() => void learnModels(), 5000);
  timer = setTimeout(next, 10);

  return {
    stats: () => ({ ...counts, inFlight }),
    async stop() {
      clearTimeout(timer);
      clearInterval(learning);
      stopping.abort();
      if (inFlight > 0) await new Promise<void>((resolve) => (idle = resolve));
      agent.destroy();
    },
  };
}

type Planned = Readonly<{ path: string; body: unknown; leaveAfterMs: number | null }>;

function plan(random: Random, models: readonly string[]): Planned {
  const chat = models.filter((model) => !model.startsWith('bge'));
  const small = chat.find((model) => model.includes('8b')) ?? chat[0];
  const model = random.chance(0.85) ? small : chat.length > 0 ? random.pick(chat) : undefined;
  const leaveAfterMs = random.chance(0.03) ? random.between(30, 900) : null;
  const kind = random.next();
  if (kind < 0.12) {
    const input = Array.from({ length: random.int(1, 4) }, () => random.pick(prompts));
    return { path: '/v1/embeddings', body: { ...(models.length > 0 ? { model: 'bge-m3' } : {}), input }, leaveAfterMs };
  }
  // Lengths have a long tail, as real ones do.
  const tokens = Math.round(Math.min(400, 18 / (1 - random.next()) ** 0.6));
  return {
    path: '/v1/chat/completions',
    body: {
      ...(model === undefined ? {} : { model }),
      messages: [{ role: 'user', content: random.pick(prompts) }],
      max_tokens: tokens,
      stream: kind < 0.75,
    },
    leaveAfterMs,
  };
}
