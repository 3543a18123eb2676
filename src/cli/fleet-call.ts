import { nearest } from '../core/words.ts';
import type { Answers } from './answers.ts';
import type { Answer, Call, Method } from './client.ts';
import { CliError, exitCodes } from './exit.ts';
import type { Session } from './session.ts';

/** A call about one instance. When the server does not know the id, the error names the nearest one that it knows. */
export async function callInstance(
  session: Session,
  method: Method,
  id: string,
  tail: string,
  call: Call = {},
): Promise<Answer> {
  try {
    return await session.call(method, `/fleet/${encodeURIComponent(id)}${tail}`, call);
  } catch (error) {
    if (!(error instanceof CliError) || error.status !== 404) throw error;
    const known = await instanceIds(session);
    // The server knows it, so it is something else that was not found.
    if (known.includes(id)) throw error;
    const near = nearest(id, known);
    throw new CliError(
      exitCodes.failed,
      error.code,
      `unknown instance "${id}"${near === undefined ? '' : `; did you mean ${near}?`}`,
      { status: error.status, requestId: error.requestId, hint: '"gpuproxy fleet" lists them' },
    );
  }
}

/** The instances as they are, in the order of the ids. Throws when one is not known. */
export async function lookAt(
  session: Session,
  ids: readonly string[],
): Promise<Readonly<{ bodies: readonly unknown[]; upstreams: readonly Answers['upstream'][] }>> {
  const answers: Answer[] = [];
  for (const id of ids) answers.push(await callInstance(session, 'GET', id, ''));
  return {
    bodies: answers.map(({ body }) => body),
    upstreams: await Promise.all(answers.map((answer) => session.read('upstream', answer))),
  };
}

/** Ids that the server knows, for a suggestion; none when it does not tell them. */
export async function instanceIds(session: Session): Promise<string[]> {
  return forSuggestion(async () => {
    const { upstreams } = await session.read('upstreamWords', await session.client.call('GET', '/fleet'));
    return upstreams.map((upstream) => upstream.instance_id);
  });
}

/** What a suggestion could be made of. That it cannot be had must not hide the error that it would decorate. */
export async function forSuggestion(ask: () => Promise<string[]>): Promise<string[]> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof CliError) return [];
    throw error;
  }
}

/**
 * The same for several ids, one after the other: a failure does not keep the others from being done. Throws the last
 * failure; exit code 6 when some were done.
 */
export async function forEachId(ids: readonly string[], act: (id: string) => Promise<void>): Promise<void> {
  const failures: unknown[] = [];
  for (const id of ids) {
    try {
      await act(id);
    } catch (error) {
      if (!(error instanceof CliError) || ids.length === 1 || error.status === null) throw error;
      failures.push(error);
      process.stderr.write(`error: ${error.message}\n`);
    }
  }
  if (failures.length === 0) return;
  throw new CliError(
    failures.length < ids.length ? exitCodes.partly : exitCodes.failed,
    'partly_done',
    `${failures.length} of ${ids.length} failed`,
  );
}
