import type { ProviderInstance, ProviderName } from '../core/domain.ts';
import { type Provider, ProviderError } from '../providers/provider.ts';
import { AppError } from './app.ts';
import type { EventLog } from './events.ts';
import { appErrorOf } from './failure.ts';
import type { Ledger } from './ledger/ledger.ts';
import type { Extension } from './ledger/rows.ts';
import type { FleetRecord, FleetRecords } from './records.ts';
import type { Spend } from './spend.ts';
import type { Clock, Timing } from './timing.ts';

const hourMs = 3_600_000;

/**
 * Buys more prepaid time, by the same rule as renting: a committed intent, one paid call, a committed outcome. What
 * became of a lost answer is read from the end of the prepaid time that the provider lists.
 */
export interface Extender {
  /** Rejects with AppError; `provider_timeout` when it is not known yet whether the time was bought. */
  extend(record: FleetRecord, provider: Provider, hours: number): Promise<void>;
  /** A list that was asked for at `askedAt` shows the instance: settles an extension whose answer was lost. */
  seen(record: FleetRecord, instance: ProviderInstance, askedAt: number): void;
  /** Settles what concerns instances that have ended. Cheap when nothing is open. */
  tidy(): void;
  /** Takes up what the last process left open. */
  recover(): void;
}

export function createExtender(parts: {
  ledger: Ledger;
  records: FleetRecords;
  spend: Spend;
  events: EventLog;
  clock: Clock;
  timing: Timing;
  nudge: (provider: ProviderName) => void;
  step: (name: string) => void;
}): Extender {
  const { ledger, records, spend, events, clock, timing, step } = parts;
  /** By label: at most one for each rental. */
  const open = new Map<string, Extension>();

  const settle = (extension: Extension, state: Extension['state'], usd = extension.usd) => {
    const settled = { ...extension, state, usd, settledAt: clock.now() };
    ledger.extensions.update(settled);
    if (state === 'unknown') open.set(extension.label, settled);
    else open.delete(extension.label);
  };
  const bought = (record: FleetRecord, extension: Extension) => {
    const { rental } = record;
    if (rental === null) return;
    const usd = rental.usdPerHour * extension.hours;
    ledger.transaction(() => {
      settle(extension, 'bought', usd);
      spend.prepaid(rental.label, usd, clock.now());
      records.patch(record, { prepaidHours: (rental.prepaidHours ?? 0) + extension.hours });
    });
    events.emit({
      level: 'ok',
      kind: 'rental',
      subject: record.id,
      message: `${record.id} extended by ${extension.hours} h for $${usd.toFixed(2)}`,
    });
  };
  const refused = (instanceId: string, extension: Extension, why: string) => {
    settle(extension, 'refused');
    events.emit({
      level: 'error',
      kind: 'rental',
      subject: instanceId,
      message: `${instanceId} was not extended by ${extension.hours} h: ${why}`,
    });
  };
  /** True when an end of the prepaid time can only be explained by the extension. */
  const proves = (extension: Extension, at: number | null): boolean =>
    at !== null && at - extension.expiresBefore >= (extension.hours * hourMs) / 2;

  return {
    async extend(record, provider, hours) {
      const { rental } = record;
      if (rental === null || rental.contract === null || rental.state !== 'rented') {
        throw new AppError('conflict', `${record.id} is not running for us (any more)`);
      }
      if (provider.extend === undefined || !rental.prepaid) {
        throw new AppError('unsupported', `${record.provider} bills by use: there is no time to extend`);
      }
      if (open.has(rental.label)) {
        throw new AppError(
          'conflict',
          `it is not known yet whether the last extension of ${record.id} went through; try again when its time left is`,
        );
      }
      if (rental.expiresAt === null) {
        throw new AppError('conflict', `the end of the prepaid time of ${record.id} is not known yet; try again soon`);
      }
      const extension = ledger.extensions.insert({
        label: rental.label,
        hours,
        usd: rental.usdPerHour * hours,
        createdAt: clock.now(),
        expiresBefore: rental.expiresAt,
        state: 'intended',
        settledAt: null,
      });
      open.set(rental.label, extension);
      step('extend');
      try {
        await provider.extend(rental.contract, hours, AbortSignal.timeout(timing.rentTimeoutMs));
      } catch (error) {
        const refusal = appErrorOf(record.provider, error);
        const definite =
          error instanceof ProviderError &&
          (!error.sent || ['auth', 'rate_limited', 'rejected', 'not_found'].includes(error.code));
        if (definite) {
          refused(record.id, extension, refusal.message);
          throw refusal;
        }
        settle(extension, 'unknown');
        parts.nudge(record.provider);
        const message = `the answer to the extension of ${record.id} was lost (${refusal.message}); its time left will tell, do not repeat it blindly`;
        events.emit({ level: 'warn', kind: 'rental', subject: record.id, message });
        throw new AppError('provider_timeout', message, { cause: error });
      }
      step('extended');
      bought(record, extension);
    },
    seen(record, instance, askedAt) {
      const extension = open.get(record.rental?.label ?? '');
      if (extension?.state !== 'unknown') return;
      if (proves(extension, instance.expiresAt)) bought(record, extension);
      else if (instance.expiresAt !== null && askedAt - (extension.settledAt ?? 0) >= timing.unknownGraceMs) {
        refused(record.id, extension, 'its time left did not grow');
      }
    },
    tidy() {
      for (const extension of open.values()) {
        if (extension.state !== 'unknown') continue;
        const rental = ledger.rentals.get(extension.label);
        if (rental?.state !== 'ended') continue;
        const record = records.byLabel(extension.label);
        if (record !== undefined && proves(extension, rental.endedAt)) bought(record, extension);
        else refused(rental.instanceId, extension, 'it had ended before');
      }
    },
    recover() {
      for (const extension of ledger.extensions.open()) settle(extension, 'unknown');
    },
  };
}
