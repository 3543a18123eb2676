import { counted } from '../core/words.ts';
import type { Answer } from './client.ts';
import { CliError, exitCodes } from './exit.ts';
import { onInterrupt } from './interrupts.ts';
import type { Session } from './session.ts';

/** Renting goes through slow provider calls one after the other. */
const paidTimeoutMs = 300_000;
const progressEveryMs = 10_000;
/** A price that rose by at most this much since it was confirmed is still paid. */
const acceptedRise = 1.02;

/** What the server is told to stay below: the price that somebody agreed to, and what prices move by in a moment. */
export function agreed(usdPerHour: number): number {
  return Math.ceil(usdPerHour * acceptedRise * 1e6) / 1e6;
}

/**
 * A call that spends money, with its progress on stderr. Ctrl-C does not cut it, because the server finishes what it began
 * whether somebody waits or not: it is told to stop, to wait for what is under way and to give back what was rented. A
 * second Ctrl-C leaves at once and says how to look.
 */
export async function callPaid(
  session: Session,
  /** Name of the command, for its progress. */
  name: string,
  path: string,
  body: unknown,
  idempotencyKey: string,
): Promise<Answer> {
  const quit = new AbortController();
  const look =
    'see what became of it with "gpuproxy reservations", or repeat the command with ' +
    `--idempotency-key ${idempotencyKey}, which rents nothing twice`;
  const cancel = async (): Promise<Cancelled | null> => {
    try {
      const call = { body: { idempotency_key: idempotencyKey }, signal: quit.signal, timeoutMs: paidTimeoutMs };
      const { readCancelled } = await import('./answers.ts');
      return readCancelled((await session.client.call('POST', '/reservations/cancel', call)).body);
    } catch (error) {
      // The server knows nothing of the request, or not yet.
      if (error instanceof CliError && error.status === 404) return null;
      throw error;
    }
  };
  const progress = showProgress(session, name, idempotencyKey);
  let cancelling: Promise<Cancelled | null> | undefined;
  const restore = onInterrupt(() => {
    if (cancelling !== undefined) {
      quit.abort();
      return;
    }
    progress.stop();
    process.stderr.write(
      'cancelled: waiting for what is under way, to give back what was rented; Ctrl-C again leaves at once\n',
    );
    cancelling = cancel();
    // Looked at when the answer is there; until then its failure is nobody's.
    cancelling.catch(() => {});
  });
  try {
    const answer = await session
      .call('POST', path, {
        body,
        headers: { 'idempotency-key': idempotencyKey },
        signal: quit.signal,
        timeoutMs: paidTimeoutMs,
      })
      .catch((error: unknown) => {
        if (quit.signal.aborted) {
          throw new CliError(exitCodes.interrupted, 'interrupted', 'interrupted: the server may still rent', {
            hint: look,
          });
        }
        if (cancelling !== undefined && error instanceof CliError && error.status !== null) return error;
        if (error instanceof CliError && error.exitCode === exitCodes.unreachable && error.code !== 'unreachable') {
          throw new CliError(error.exitCode, error.code, error.message, { why: error.why, hint: look });
        }
        throw error;
      });
    if (cancelling === undefined) {
      if (answer instanceof CliError) throw answer;
      return answer;
    }
    // A request that was not there yet when it was to be stopped is there now.
    const done = (await cancelling.catch(unreturned(look))) ?? (await cancel().catch(unreturned(look)));
    throw new CliError(exitCodes.interrupted, 'interrupted', cancelledText(done), {
      hint: '"gpuproxy fleet" shows what is left',
    });
  } finally {
    restore();
    progress.stop();
  }
}

/** As the server answers it. */
export type Cancelled = Readonly<{ released: readonly string[]; pending: readonly string[] }>;

function cancelledText(done: Cancelled | null): string {
  const { released = [], pending = [] } = done ?? {};
  if (released.length + pending.length === 0) return 'cancelled: nothing was rented';
  const given = `cancelled: ${counted(released.length + pending.length, 'rented instance')} given back`;
  return pending.length === 0
    ? given
    : `${given}, ${pending.length} of them not confirmed yet: the server repeats it until the provider does`;
}

function unreturned(look: string): (error: unknown) => never {
  return (error) => {
    throw new CliError(exitCodes.interrupted, 'interrupted', 'cancelled, but what was rented may not be given back', {
      why: error instanceof Error ? error.message : String(error),
      hint: look,
    });
  };
}

/** How far the request is: in place on a terminal, elsewhere a line every ten seconds. */
function showProgress(session: Session, name: string, idempotencyKey: string): { stop(): void } {
  const inPlace = process.stderr.isTTY === true;
  if (session.quiet || session.shows) return { stop() {} };
  const started = performance.now();
  const ended = new AbortController();
  let drawn = false;
  const say = (far: string) => {
    const seconds = Math.round((performance.now() - started) / 1000);
    const time = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} m ${seconds % 60} s`;
    process.stderr.write(inPlace ? `\r\u001b[K${name}: ${far} (${time})` : `${name}: ${far} (${time})\n`);
    drawn = inPlace;
  };
  const timer = setInterval(
    () => {
      void farOf(session, idempotencyKey, ended.signal)
        .then((far) => {
          if (!ended.signal.aborted) say(far);
        })
        // Only a courtesy: whether the server is there, the answer itself will say.
        .catch(() => {});
    },
    inPlace ? 1000 : progressEveryMs,
  );
  return {
    stop() {
      clearInterval(timer);
      ended.abort();
      if (drawn) process.stderr.write('\r\u001b[K');
      drawn = false;
    },
  };
}

async function farOf(session: Session, idempotencyKey: string, signal: AbortSignal): Promise<string> {
  const query = { idempotency_key: idempotencyKey };
  const found = await session.client.call('GET', '/reservations', { query, signal });
  const [reservation] = (await session.read('reservations', found)).reservations;
  if (reservation === undefined) return 'asking the providers for offers';
  const { upstreams } = await session.read('fleet', await session.client.call('GET', '/fleet', { signal }));
  const rented = upstreams.filter(
    (upstream) => upstream.reservation_id === reservation.reservation_id && upstream.contract_id !== null,
  );
  const gpus = rented.reduce((sum, upstream) => sum + upstream.gpu_count, 0);
  return `${gpus}/${counted(reservation.requested, 'GPU')} rented`;
}
