import type { CancelResult } from '../../fleet/app.ts';
import type { Dashboard, Overlay } from '../dashboard.ts';
import { outside, span } from '../line.ts';
import { cancelText, type OpenRental } from '../rentals.ts';
import { createConfirmation } from './confirmation.ts';

/** Stops requests, waits for their paid calls and says what became of each. Null when they could not be stopped. */
async function stop(
  dashboard: Dashboard,
  rentals: readonly OpenRental[],
  keep: boolean,
): Promise<readonly CancelResult[] | null> {
  dashboard.toast('info', 'stopping: the paid calls that are under way are waited for');
  let results: readonly CancelResult[] | null = null;
  await dashboard.act('cancel', async () => {
    results = await Promise.all(rentals.map(({ key }) => dashboard.app.cancel(key, { keep })));
    return results.map(cancelText).join('; ');
  });
  return results;
}

/** Resolves when none of these instances exists any more. */
function gone(dashboard: Dashboard, ids: readonly string[]): Promise<void> {
  const { state } = dashboard.app;
  const left = () => state.get().upstreams.some((row) => ids.includes(row.id) && row.lifecycle.phase !== 'ended');
  return new Promise((resolve) => {
    const look = () => {
      if (left()) return;
      unsubscribe();
      resolve();
    };
    const unsubscribe = state.subscribe(look);
    look();
  });
}

/** Esc while something is being rented: it costs money from the first answer on, so the choice is the person's. */
export function createStopDialog(
  dashboard: Dashboard,
  rental: OpenRental,
  chosen: { background(): void; stopping(keep: boolean): void; sent(): boolean },
): Overlay {
  const run = (keep: boolean) => () => {
    chosen.stopping(keep);
    // What has not been asked for yet needs no stopping: it is not asked for.
    if (chosen.sent()) void stop(dashboard, [rental], keep);
  };
  return createConfirmation(dashboard, {
    title: 'STOP RENTING?',
    body: () => [
      [span('Still being rented: '), outside(rental.what, 'strong')],
      [span('Paid calls under way cannot be called back; they are waited for.', 'dim')],
    ],
    choices: [
      { label: 'Let it go on in the background', run: chosen.background },
      { label: 'Stop, and keep what is rented', run: run(true) },
      { label: 'Stop, and give everything back', run: run(false) },
      { label: 'Stay here', run: null },
    ],
    first: 0,
    typed: null,
    insist: () => dashboard.quit(),
  });
}

/** Leaving while something is being rented. */
export function createQuitDialog(dashboard: Dashboard): Overlay {
  const rentals = dashboard.rentals.all();
  const leave = (keep: boolean) => () => {
    void (async () => {
      const results = await stop(dashboard, rentals, keep);
      if (results === null) return;
      const pending = results.flatMap((result) => result.pending);
      if (!dashboard.remote && pending.length > 0) {
        dashboard.toast(
          'warn',
          `${pending.length} still to be confirmed as given back; q leaves without waiting for it`,
        );
        await gone(dashboard, pending);
      }
      dashboard.quit();
    })();
  };
  return createConfirmation(dashboard, {
    title: 'QUIT?',
    body: () => [
      [span('Still being rented: '), outside(rentals.map(({ what }) => what).join(', '), 'strong')],
      [
        span(
          dashboard.remote
            ? 'The server goes on with it unless it is stopped.'
            : 'Paid calls under way are finished in any case, nothing more is rented.',
          'dim',
        ),
      ],
    ],
    choices: [
      { label: 'Stay', run: null },
      { label: 'Stop, keep what is rented, and quit', run: leave(true) },
      { label: 'Stop, give everything back, and quit', run: leave(false) },
      { label: dashboard.remote ? 'Quit, the server goes on' : 'Quit at once', run: () => dashboard.quit() },
    ],
    first: 0,
    typed: null,
    insist: () => dashboard.quit(),
  });
}
