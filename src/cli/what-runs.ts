import type { App } from '../fleet/app.ts';

/** What goes on costing money after this program has ended, for its last words; nothing when nothing does. */
export function whatRuns(app: App): string[] {
  const { upstreams, cost } = app.state.get();
  const billed = upstreams.filter((upstream) => upstream.contract !== null && upstream.lifecycle.phase !== 'ended');
  if (billed.length === 0) return [];
  const leaving = billed.filter((upstream) => upstream.lifecycle.phase === 'destroying').length;
  return [
    `${billed.length} rented instances keep running and cost $${cost.usdPerHour.toFixed(2)}/h: ` +
      '"gpuproxy tui" or "gpuproxy serve" takes them up again, "gpuproxy destroy" gives them back',
    ...(leaving === 0
      ? []
      : [`${leaving} of them were being given back when this ended, and are given back only by that next start`]),
  ];
}
