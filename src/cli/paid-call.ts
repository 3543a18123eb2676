import type { Answer } from './client.ts';
import { CliError, exitCodes } from './exit.ts';
import { onInterrupt } from './interrupts.ts';
import type { Session } from './session.ts';

/** Renting goes through slow provider calls one after the other. */
const paidTimeoutMs = 300_000;

/**
 * A call that spends money. Ctrl-C does not cut it: the server finishes what it began whether somebody waits or not, so
 * the answer is awaited and what was rented is given back. A second Ctrl-C leaves at once and says how to look.
 */
export async function callPaid(
  session: Session,
  path: string,
  body: unknown,
  /** null: the path knows no idempotency. */
  idempotencyKey: string | null,
): Promise<Answer> {
  const quit = new AbortController();
  const look =
    idempotencyKey === null
      ? 'see what became of it with "gpuproxy fleet"'
      : 'see what became of it with "gpuproxy reservations", or repeat the command with ' +
        `--idempotency-key ${idempotencyKey}, which rents nothing twice`;
  let cancelled = false;
  const onSignal = () => {
    if (cancelled) {
      quit.abort();
      return;
    }
    cancelled = true;
    process.stderr.write(
      'cancelled: waiting for the answer of the server, to give back what was rented; Ctrl-C again leaves at once\n',
    );
  };
  const restore = onInterrupt(onSignal);
  try {
    let answer: Answer;
    try {
      answer = await session.call('POST', path, {
        body,
        ...(idempotencyKey === null ? {} : { headers: { 'idempotency-key': idempotencyKey } }),
        signal: quit.signal,
        timeoutMs: paidTimeoutMs,
      });
    } catch (error) {
      if (quit.signal.aborted) {
        throw new CliError(exitCodes.interrupted, 'interrupted', 'interrupted: the server may still rent', {
          hint: look,
        });
      }
      if (cancelled && error instanceof CliError && error.status !== null) {
        throw new CliError(exitCodes.interrupted, 'interrupted', `cancelled: nothing was rented (${error.message})`);
      }
      if (error instanceof CliError && error.exitCode === exitCodes.unreachable && error.code !== 'unreachable') {
        throw new CliError(error.exitCode, error.code, error.message, { why: error.why, hint: look });
      }
      throw error;
    }
    if (!cancelled) return answer;
    await giveBack(session, answer, look);
    throw new CliError(exitCodes.interrupted, 'interrupted', 'cancelled: what was rented was given back', {
      hint: '"gpuproxy fleet" shows what is left',
    });
  } finally {
    restore();
  }
}

async function giveBack(session: Session, answer: Answer, look: string): Promise<void> {
  let remedy = look;
  try {
    const { readRental } = await import('./answers.ts');
    const { reservation_id: reservation, instance_id: instance } = readRental(answer.body);
    if (reservation) remedy = `gpuproxy reservations release ${reservation}`;
    else if (instance) remedy = `gpuproxy destroy ${instance}`;
    else throw new Error('the answer does not name what was rented');
    const path = reservation
      ? `/reservations/${encodeURIComponent(reservation)}`
      : `/fleet/${encodeURIComponent(instance ?? '')}`;
    // Nothing can be open on what nobody has used yet, so there is nothing to drain.
    await session.client.call('DELETE', path, { query: { now: true }, timeoutMs: 60_000 });
  } catch (error) {
    throw new CliError(
      exitCodes.interrupted,
      'interrupted',
      'cancelled, but it was rented and could not be given back',
      {
        why: error instanceof Error ? error.message : String(error),
        hint: remedy,
      },
    );
  }
}
