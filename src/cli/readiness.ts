import type { Answers } from './answers.ts';
import type { Progress } from './watch.ts';

/** How many of the instances take requests. One that the server no longer lists, or that ends, never will. */
export function readiness(
  ids: readonly string[],
  upstreams: readonly Pick<Answers['upstream'], 'instance_id' | 'eligible' | 'lifecycle' | 'reason'>[],
): Progress {
  const known = new Map(upstreams.map((upstream) => [upstream.instance_id, upstream]));
  const ready = ids.filter((id) => known.get(id)?.eligible === true);
  const lost = ids.find((id) => ['destroying', 'ended', undefined].includes(known.get(id)?.lifecycle.phase));
  const why = lost === undefined ? null : known.get(lost)?.reason || known.get(lost)?.lifecycle.phase || 'gone';
  return {
    reached: ids.length > 0 && ready.length === ids.length,
    text: `${ready.length} of ${ids.length} ready`,
    hopeless: lost === undefined ? null : `${lost} is ${why === 'gone' ? 'gone' : `not: ${why}`}`,
  };
}
