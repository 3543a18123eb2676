import { Agent, request } from 'undici';
import * as z from 'zod';
import type { Balancer } from '../core/balancer.ts';
import { withoutUrlSecrets } from '../core/base-url.ts';
import type { FleetRecord, FleetRecords } from './records.ts';
import type { Clock, Timing } from './timing.ts';

const modelList = z.object({ data: z.array(z.object({ id: z.string().min(1) })).max(1000) });
/** Each probe has a deadline of its own, which may change; this only ends connections that nobody waits for any more. */
const maxProbeMs = 60_000;
const modelListBytes = 1_000_000;

/** Asks every running upstream for its health path and, once it is up, for its models. */
export interface Prober {
  start(): void;
  stop(): Promise<void>;
}

type Target = { record: FleetRecord; timer: NodeJS.Timeout | null; modelsAt: number; generation: number };

export function createProber(parts: {
  records: FleetRecords;
  balancer: Balancer;
  clock: Clock;
  timing: Timing;
  healthPath: string;
  /** Sent to upstreams as a bearer token. */
  upstreamKey: string | null;
  random: () => number;
  changed: () => void;
}): Prober {
  const { records, balancer, clock, timing, random, changed } = parts;
  const agent = new Agent({
    connections: 2,
    pipelining: 1,
    connect: { timeout: maxProbeMs },
    keepAliveTimeout: Math.max(1000, timing.probeIntervalMs + 1000),
    maxHeaderSize: 65_536,
  });
  const targets = new Map<string, Target>();
  const abort = new AbortController();
  let running = false;
  let unsubscribe = () => {};

  const get = (url: string) =>
    request(url, {
      dispatcher: agent,
      headers: {
        ...(parts.upstreamKey === null ? {} : { authorization: `Bearer ${parts.upstreamKey}` }),
        accept: 'application/json, */*',
      },
      signal: AbortSignal.any([AbortSignal.timeout(timing.probeTimeoutMs), abort.signal]),
    });

  const ask = async (origin: string): Promise<{ ok: boolean; why: string }> => {
    try {
      const answer = await get(origin + parts.healthPath);
      // The status is the answer; a body that breaks off only costs its connection.
      await answer.body.dump({ limit: 65_536, signal: abort.signal }).catch(() => undefined);
      const ok = answer.statusCode >= 200 && answer.statusCode < 300;
      return { ok, why: ok ? '' : `${withoutUrlSecrets(parts.healthPath)} answered ${answer.statusCode}` };
    } catch (error) {
      return { ok: false, why: reasonOf(error, timing.probeTimeoutMs) };
    }
  };
  const askModels = async (origin: string): Promise<readonly string[] | null | undefined> => {
    try {
      const answer = await get(`${origin}/v1/models`);
      if (answer.statusCode !== 200) {
        // As above.
        await answer.body.dump({ limit: 65_536, signal: abort.signal }).catch(() => undefined);
        // It has no such path: not a server of models, or one that does not say. Any request may go to it.
        return answer.statusCode === 404 || answer.statusCode === 405 ? null : undefined;
      }
      let size = 0;
      const chunks: Buffer[] = [];
      for await (const chunk of answer.body) {
        size += (chunk as Buffer).length;
        if (size > modelListBytes) throw new Error('too long');
        chunks.push(chunk as Buffer);
      }
      const parsed = modelList.safeParse(JSON.parse(Buffer.concat(chunks).toString('utf8')));
      return parsed.success ? parsed.data.data.map((model) => model.id) : null;
    } catch {
      return undefined;
    }
  };

  const runs = (record: FleetRecord) =>
    record.ref !== null && record.origin !== null && record.lifecycle.phase === 'running';

  const probe = async (target: Target): Promise<void> => {
    const { record } = target;
    const generation = target.generation;
    const origin = record.origin;
    if (!runs(record) || origin === null) {
      targets.delete(record.id);
      return;
    }
    const { ok, why } = await ask(origin);
    // Meanwhile it may have gone, or have moved to another origin with a probe of its own.
    if (!running || target.generation !== generation) return;
    if (record.ref === null || record.origin !== origin) {
      targets.delete(record.id);
      return;
    }
    balancer.probed(record.ref, ok, clock.monotonic(), why);
    changed();
    if (ok && clock.monotonic() >= target.modelsAt) {
      target.modelsAt = clock.monotonic() + timing.modelsMs;
      const models = await askModels(origin);
      if (models !== undefined && record.origin === origin) records.setModels(record, models);
    }
    const state = record.ref === null ? null : balancer.table.read(record.ref);
    const pause = state?.health === 'unknown' ? timing.probeFirstMs : timing.probeIntervalMs;
    schedule(target, generation, pause * (0.9 + 0.2 * random()));
  };
  const schedule = (target: Target, generation: number, ms: number) => {
    if (!running || target.generation !== generation) return;
    target.timer = setTimeout(() => void probe(target), ms);
    target.timer.unref();
  };
  const begin = (record: FleetRecord) => {
    const known = targets.get(record.id);
    if (known?.timer) clearTimeout(known.timer);
    const target: Target = known ?? { record, timer: null, modelsAt: 0, generation: 0 };
    target.generation += 1;
    target.modelsAt = 0;
    targets.set(record.id, target);
    void probe(target);
  };

  return {
    start() {
      running = true;
      unsubscribe = records.onRunning(begin);
      for (const record of records.all()) if (runs(record)) begin(record);
    },
    async stop() {
      running = false;
      unsubscribe();
      abort.abort();
      for (const target of targets.values()) if (target.timer !== null) clearTimeout(target.timer);
      targets.clear();
      await agent.destroy();
    },
  };
}

/** Why a probe failed; that it did is said where the reason is shown. */
function reasonOf(error: unknown, timeoutMs: number): string {
  const code = (error as { code?: unknown }).code;
  const name = (error as { name?: unknown }).name;
  if (name === 'TimeoutError' || (typeof code === 'string' && code.includes('TIMEOUT'))) {
    return `no answer in ${timeoutMs / 1000} s`;
  }
  return typeof code === 'string' ? code : 'broken answer';
}
