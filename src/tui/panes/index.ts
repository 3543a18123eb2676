import type { PaneId } from '../layout.ts';
import { eventsPane } from './events.ts';
import { instancesPane } from './instances.ts';
import type { Pane } from './pane.ts';
import { providersPane } from './providers.ts';
import { reservationsPane } from './reservations.ts';
import { strategyPane } from './strategy.ts';

/** Every pane; Tab goes through them in this order. */
export const panes: readonly Pane[] = [instancesPane, providersPane, strategyPane, reservationsPane, eventsPane];

export function paneById(id: PaneId): Pane {
  const found = panes.find((pane) => pane.id === id);
  if (!found) throw new RangeError(`unknown pane ${id}`);
  return found;
}
