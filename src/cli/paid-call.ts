import type { Answer } from './client.ts';
import { CliError, exitCodes } from './exit.ts';
import { fieldsOf, textOf } from './fields.ts';
import { onInterrupt } from './interrupts.ts';
import type { Session } from './session.ts';

/** Renting goes through slow provider calls one after the other. */
const paidTimeoutMs = 300_000;

/**
 * A call that spends money. Ctrl-C does not cut it: the server finishes what it began whether somebody waits or not, so
 * the answer is awaited and what was rented is given back. A second Ctrl-C leaves at once and says how to look.
 */
export async function callPaid(session: Session, path: string, body: unknown, idempotencyKey: string): Promise<Answer> {
  const quit = new AbortController();
  let cancelled = false;
  const look =
    `see what became of it with "gpuproxy reservations", or repeat the command with ` +
    `--idempotency-key ${idempotencyKey}, which rents nothing twice`;
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
        headers: { 'idempotency-key': idempotencyKey },
        signal: quit.signal,
        timeoutMs: paidTimeoutMs,
      });
    } catch (error) {
      if (quit.signal.aborted) {
        throw new CliError(
          exitCodes.interrupted,
          'interrupted',
          'interrupted: the server may still finish the reservation',
          { hint: look },
        );
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
    await giveBack(session, textOf(fieldsOf(answer.body).reservation_id, ''), look);
    throw new CliError(exitCodes.interrupted, 'interrupted', 'cancelled: what was rented was given back', {
      hint: '"gpuproxy reservations" shows that nothing is left',
    });
  } finally {
    restore();
  }
}

async function giveBack(session: Session, reservation: string, look: string): Promise<void> {
  try {
    if (reservation === '') throw new Error('the answer names no reservation');
    await session.client.call('DELETE', `/reservations/${encodeURIComponent(reservation)}`, { timeoutMs: 60_000 });
  } catch (error) {
    throw new CliError(
      exitCodes.interrupted,
      'interrupted',
      'cancelled, but the reservation was made and could not be given back',
      {
        why: error instanceof Error ? error.message : String(error),
        hint: reservation === '' ? look : `gpuproxy reservations release ${reservation}`,
      },
    );
  }
}
