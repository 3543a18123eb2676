import { counted } from '../../core/words.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { money } from '../format.ts';
import { outside, span } from '../line.ts';
import { createConfirmation } from './confirmation.ts';
import { loadWithout, prepaidLines } from './destroy.ts';

/** Destroys everything of a reservation, after the number of its instances was typed. */
export function createReleaseDialog(dashboard: Dashboard, id: string): Overlay {
  const members = dashboard.view().snapshot.reservations.find((item) => item.id === id)?.instances ?? [];
  const living = dashboard
    .view()
    .snapshot.upstreams.filter((row) => members.includes(row.id) && row.lifecycle.phase !== 'ended');
  const commandLine = (now: boolean): string => `gpuproxy reservations release ${id}${now ? ' --now' : ''}`;
  const release = (now: boolean) => () => {
    void dashboard.act(
      'release',
      async () => {
        const answer = await dashboard.app.releaseReservation(id, { now });
        if (answer.failed.length > 0)
          throw new Error(`${answer.failed.join(', ')} could not be destroyed yet; tried again`);
        return `${id}: ${counted(answer.released.length, 'instance')} released`;
      },
      commandLine(now),
    );
  };
  return createConfirmation(dashboard, {
    title: 'RELEASE',
    body: (view) => {
      const rows = view.snapshot.upstreams.filter((row) => living.some((one) => one.id === row.id));
      const after = loadWithout(view.snapshot.upstreams, new Set(members));
      const saved = rows.reduce((sum, row) => sum + row.usdPerHour, 0);
      const inFlight = rows.reduce((sum, row) => sum + row.active, 0);
      return [
        [span('Release '), outside(id, 'strong'), span(` and destroy its ${counted(rows.length, 'instance')}?`)],
        [],
        [span(`  ${counted(inFlight, 'request')} in flight; stops `), span(`${money(saved)}/h`, 'good')],
        [
          after.left === 0
            ? span('  Nothing would be left to answer requests.', 'bad')
            : span(`  ${counted(after.left, 'instance stays', 'instances stay')} in rotation.`, 'dim'),
        ],
        ...prepaidLines(rows, view.clock),
      ];
    },
    choices: [
      { label: 'Drain first, then destroy', note: 'recommended', cli: commandLine(false), run: release(false) },
      { label: 'Destroy now', cli: commandLine(true), run: release(true) },
      { label: 'Cancel', run: null },
    ],
    first: 0,
    typed: { word: id.slice(-4), prompt: 'Type the last 4 characters of the id and enter:' },
  });
}
