import * as z from 'zod';
import { type App, AppError, type FleetEvent, type Snapshot } from '../fleet/app.ts';

/** At most one picture in this time goes into a recording. */
const stepMs = 1000;

/** Text without what could be a secret: credentials and queries in addresses, values of keys and tokens. */
export function redact(text: string): string {
  return text
    .replace(/(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@"']+@/gi, '$1')
    .replace(/(\bhttps?:\/\/[^\s"'?#]+)[?#][^\s"']*/gi, '$1')
    .replace(/\b(bearer)\s+[\w.~+/=-]{6,}/gi, '$1 ***')
    .replace(/((?:api[_-]?key|token|secret|password|authorization)["']?\s*[:=]\s*["']?)[^\s"',;&}]+/gi, '$1***');
}

const redacted = (_name: string, value: unknown): unknown => (typeof value === 'string' ? redact(value) : value);

/**
 * Writes what the dashboard is shown as lines of JSON: pictures at most once a second, every event, all redacted.
 * Returns what ends it.
 */
export function startRecording(app: App, write: (line: string) => void): () => void {
  let last: Snapshot | null = null;
  const put = (value: unknown) => write(`${JSON.stringify(value, redacted)}\n`);
  const picture = () => {
    const snapshot = app.state.get();
    if (snapshot === last || (last !== null && snapshot.at - last.at < stepMs)) return;
    last = snapshot;
    put({ kind: 'snapshot', snapshot });
  };
  put({ kind: 'gpuproxy-recording', version: 1 });
  for (const event of app.events.recent()) put({ kind: 'event', event });
  picture();
  const stops = [app.state.subscribe(picture), app.events.subscribe((event) => put({ kind: 'event', event }))];
  return () => {
    for (const stop of stops) stop();
  };
}

const eventSchema = z.object({
  id: z.number(),
  at: z.number(),
  level: z.enum(['info', 'ok', 'warn', 'error']),
  kind: z.string(),
  subject: z.string().nullable(),
  message: z.string(),
});

/** The parts that a picture cannot be drawn without; the rest is as this program once wrote it. */
const snapshotSchema = z
  .looseObject({
    version: z.number(),
    at: z.number(),
    startedAt: z.number(),
    mode: z.looseObject({}),
    strategy: z.looseObject({ name: z.string() }),
    upstreams: z.array(z.looseObject({ id: z.string(), state: z.string() })),
    providers: z.array(z.looseObject({ name: z.string() })),
    reservations: z.array(z.looseObject({ id: z.string() })),
    foreign: z.array(z.looseObject({})),
    traffic: z.looseObject({ rps: z.number(), trend: z.array(z.number()) }),
    cost: z.looseObject({ usdPerHour: z.number() }),
  })
  .transform((value) => value as unknown as Snapshot);

const lineSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('gpuproxy-recording'), version: z.literal(1) }),
  z.object({ kind: z.literal('snapshot'), snapshot: snapshotSchema }),
  z.object({ kind: z.literal('event'), event: eventSchema }),
]);

/** A recording as an App that changes by itself, and cannot be changed. */
export interface ReplayApp extends App, Disposable {
  /** The time in the recording, wall-clock ms. */
  now(): number;
  /** True when the last picture is shown. */
  readonly ended: boolean;
}

/** A file that is not a recording; `message` names the line. */
export class RecordingError extends Error {
  override readonly name = 'RecordingError';
}

/** Plays a recording `speed` times as fast as it was made. Throws RecordingError. */
export function createReplayApp(text: string, options: { speed?: number; monotonicMs?: () => number } = {}): ReplayApp {
  const clock = options.monotonicMs ?? (() => performance.now());
  const speed = options.speed ?? 1;
  const pictures: Snapshot[] = [];
  const events: FleetEvent[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw new RecordingError(`line ${index + 1} is no JSON: not a recording of gpuproxy`);
    }
    const parsed = lineSchema.safeParse(value);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      throw new RecordingError(
        `line ${index + 1}: ${issue?.path.join('.') ?? ''} ${issue?.message ?? 'is not understood'}`,
      );
    }
    if (parsed.data.kind === 'snapshot') pictures.push(parsed.data.snapshot);
    else if (parsed.data.kind === 'event') events.push(parsed.data.event);
  }
  const first = pictures[0];
  if (first === undefined) throw new RecordingError('the recording has no picture in it');

  const startedAt = clock();
  const listeners = new Set<() => void>();
  const eventListeners = new Set<(event: FleetEvent) => void>();
  let at = 0;
  let told = 0;
  const now = () => first.at + (clock() - startedAt) * speed;
  const advance = () => {
    const time = now();
    let moved = false;
    while (at + 1 < pictures.length && (pictures[at + 1]?.at ?? 0) <= time) {
      at += 1;
      moved = true;
    }
    while (told < events.length && (events[told]?.at ?? 0) <= time) {
      const event = events[told];
      told += 1;
      if (event) for (const listener of eventListeners) listener(event);
    }
    if (moved) for (const listener of listeners) listener();
  };
  advance();
  const timer = setInterval(advance, 100);

  const refuse = async (): Promise<never> => {
    throw new AppError('read_only', 'this is a recording: nothing can be changed');
  };
  const nothing = async () => [];
  return {
    now,
    get ended() {
      return at === pictures.length - 1;
    },
    state: {
      get: () => pictures[at] ?? first,
      subscribe(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
    events: {
      recent: (afterId = 0) => events.slice(0, told).filter((event) => event.id > afterId),
      subscribe(listener) {
        eventListeners.add(listener);
        return () => eventListeners.delete(listener);
      },
    },
    setStrategy: refuse,
    offers: refuse,
    plan: refuse,
    planBatch: refuse,
    reserve: refuse,
    batch: refuse,
    rentOffer: refuse,
    reservationOf: refuse,
    cancel: refuse,
    releaseReservation: refuse,
    destroy: refuse,
    drain: refuse,
    resume: refuse,
    setWeight: refuse,
    extend: refuse,
    logs: refuse,
    adopt: refuse,
    addUpstream: refuse,
    removeUpstream: refuse,
    refresh: refuse,
    decisions: nothing,
    requests: nothing,
    [Symbol.dispose]() {
      clearInterval(timer);
    },
  };
}
