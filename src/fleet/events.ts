import type { FleetEvent } from './app.ts';
import type { Ledger } from './ledger/ledger.ts';

export type NewEvent = Readonly<{
  level: FleetEvent['level'];
  kind: string;
  message: string;
  subject?: string | null;
  /** Worth reading after a restart. */
  keep?: boolean;
}>;

export interface EventLog {
  emit(event: NewEvent): FleetEvent;
  recent(afterId?: number): readonly FleetEvent[];
  subscribe(listener: (event: FleetEvent) => void): () => void;
}

const ringSize = 1000;
const keptInLedger = 2000;
/** Ids are taken from the ledger in blocks, so that they keep growing over restarts without a write an event. */
const idBlock = 1000;

/** The last 1,000 events in memory; those worth keeping also in the ledger, with ids that grow over restarts. */
export function createEventLog(ledger: Ledger, now: () => number): EventLog {
  const listeners = new Set<(event: FleetEvent) => void>();
  const ring: FleetEvent[] = ledger.events.recent(200);
  let nextId = Number(ledger.settings.get('event_id') ?? '1');
  let reserved = nextId;
  let keptSincePrune = 0;

  return {
    emit({ level, kind, message, subject = null, keep = true }) {
      if (nextId >= reserved) {
        reserved = nextId + idBlock;
        ledger.settings.set('event_id', String(reserved));
      }
      const event: FleetEvent = { id: nextId, at: now(), level, kind, subject, message };
      nextId += 1;
      ring.push(event);
      if (ring.length > ringSize) ring.splice(0, ring.length - ringSize);
      if (keep) {
        ledger.events.insert(event);
        keptSincePrune += 1;
        if (keptSincePrune >= 200) {
          keptSincePrune = 0;
          ledger.events.prune(keptInLedger);
        }
      }
      for (const listener of listeners) listener(event);
      return event;
    },
    recent(afterId = 0) {
      return ring.filter((event) => event.id > afterId);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
