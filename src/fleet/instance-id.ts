import type { Ledger } from './ledger/ledger.ts';

/** `wanted` as a word that is safe in URLs, with `-2`, `-3`, … when the ledger ever used it: an id means one instance for ever. */
export function unusedInstanceId(ledger: Ledger, wanted: string): string {
  const id = wanted.replace(/[^A-Za-z0-9._-]+/g, '-');
  if (!ledger.rentals.instanceIdUsed(id)) return id;
  for (let n = 2; ; n += 1) if (!ledger.rentals.instanceIdUsed(`${id}-${n}`)) return `${id}-${n}`;
}
