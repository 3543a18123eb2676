import type { Command } from 'commander';
import { gpuName, nearest } from '../core/words.ts';
import type { Answers } from './answers.ts';
import { suggest } from './command.ts';
import { CliError, exitCodes, usageError } from './exit.ts';
import { type Column, usd } from './output.ts';

/** Providers that rent, as people write them. The server knows the aliases too. */
const providerWords = ['vast.ai', 'vastai', 'vast', 'io.net', 'ionet', 'io'];

export type FilterOptions = Readonly<{
  minVram?: number;
  maxPrice?: number;
  gpu?: string;
  location?: string;
  provider?: string;
  gpuCount?: number;
  verified?: boolean;
}>;

export function withFilters(command: Command, options: { provider: boolean }): Command {
  suggest(command, 'gpu', 'gpus');
  suggest(command, 'provider', ['vast.ai', 'io.net']);
  command
    .optionsGroup('Which offers:')
    .option('--min-vram <gb>', 'GB of one GPU, at least', positive('--min-vram'))
    .option('--max-price <usd>', 'USD per hour and instance, at most', positive('--max-price'))
    .option('--gpu <model>', 'GPU model, part of its name: "rtx 4090", a100')
    .option('--location <place>', 'country code or part of the place')
    .option('--gpu-count <n>', 'GPUs of each instance', wholeFrom('--gpu-count', 1, 16))
    .option('--verified', 'only offers that the provider has verified');
  if (options.provider) command.option('--provider <name>', 'vast.ai or io.net', providerWord);
  return command;
}

/** The filters on the wire; only what was given. */
export function filtersBody(options: FilterOptions): Record<string, string | number | boolean> {
  const wire = {
    min_vram: options.minVram,
    max_price: options.maxPrice,
    gpu_model: options.gpu,
    location: options.location,
    provider: options.provider,
    gpu_count: options.gpuCount,
    verified: options.verified,
  };
  return Object.fromEntries(
    Object.entries(wire).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
}

/** The provider word, checked; an unknown one gets the nearest that is known. */
export function providerWord(word: string): string {
  if (providerWords.includes(word.toLowerCase())) return word.toLowerCase();
  const near = nearest(word, ['vast.ai', 'io.net']);
  throw usageError(`unknown provider "${word}"${near === undefined ? '' : `; did you mean ${near}?`}`, {
    hint: 'one of vast.ai, io.net',
  });
}

export type ConfigOptions = Readonly<{
  image?: string;
  diskGb?: number;
  env?: readonly (readonly [string, string])[];
  onstart?: string;
  port?: readonly number[];
  arg?: readonly string[];
  maxBid?: number;
  hours?: number;
}>;

export function withInstanceConfig(command: Command): Command {
  return command
    .optionsGroup('What runs on them:')
    .option('--image <name>', 'container image')
    .option('--disk-gb <gb>', 'disk', wholeFrom('--disk-gb', 8, 10_000))
    .option(
      '--env <NAME=value>',
      'environment variable, repeatable',
      (word: string, before: [string, string][] = []) => {
        const match = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(word);
        if (match === null) throw usageError(`--env: got "${word.split('=')[0]}", accepts NAME=value`);
        return [...before, [match[1]!, match[2]!] as [string, string]];
      },
    )
    .option('--onstart <script>', 'script run when the container starts')
    .option(
      '--port <n>',
      'container port to publish, repeatable; the first serves HTTP',
      (word: string, before: number[] = []) => [...before, wholeFrom('--port', 1, 65_535)(word)],
    )
    .option('--arg <word>', 'argument of the container, repeatable', (word: string, before: string[] = []) => [
      ...before,
      word,
    ])
    .option(
      '--max-bid <usd>',
      'rent interruptible at this bid per hour, disk comes on top (vast.ai)',
      positive('--max-bid'),
    )
    .option('--hours <n>', 'prepaid hours where time is sold (io.net)', wholeFrom('--hours', 1, 8760));
}

/** The config on the wire; only what was given. */
export function configBody(options: ConfigOptions): Record<string, unknown> {
  const wire = {
    image: options.image,
    disk_gb: options.diskGb,
    env: options.env === undefined ? undefined : Object.fromEntries(options.env),
    onstart: options.onstart,
    ports: options.port,
    args: options.arg,
    max_bid: options.maxBid,
    duration_hours: options.hours,
  };
  return Object.fromEntries(Object.entries(wire).filter(([, value]) => value !== undefined));
}

/** Parser of a whole number in a range; says the name, what came and what is accepted. */
export function wholeFrom(name: string, min: number, max: number): (word: string) => number {
  return (word) => {
    const value = /^\d+$/.test(word) ? Number(word) : Number.NaN;
    if (!(value >= min && value <= max)) {
      throw usageError(`${name}: got "${word}", accepts a whole number from ${min} to ${max}`);
    }
    return value;
  };
}

export function positive(name: string): (word: string) => number {
  return (word) => {
    const value = /^\d*\.?\d+$/.test(word) ? Number(word) : Number.NaN;
    if (!(value > 0)) throw usageError(`${name}: got "${word}", accepts a number above 0`);
    return value;
  };
}

export type Offer = Answers['offers']['instances'][number];

/** What one instance of an offer costs, USD: per hour, and at once where time is prepaid. */
export function costOf(
  {
    price_per_hour: price,
    prepaid_hours: prepaidHours,
    storage,
  }: Pick<Offer, 'price_per_hour' | 'prepaid_hours' | 'storage'>,
  config: ConfigOptions,
): { perHour: number; prepaid: number } {
  const perGb = storage?.usd_per_gb_hour ?? 0;
  const pricedGb = storage?.priced_gb ?? 0;
  const diskGb = config.diskGb ?? pricedGb;
  // A bid is for the GPUs alone: the disk comes on top.
  const perHour = config.maxBid === undefined ? price + perGb * (diskGb - pricedGb) : config.maxBid + perGb * diskGb;
  return { perHour, prepaid: prepaidHours == null ? 0 : perHour * (config.hours ?? prepaidHours) };
}

/** "$3.16 per hour in total, $12.00 charged at once". */
export function costText(perHour: number, prepaid: number): string {
  const atOnce = prepaid <= 0 ? '' : `, ${usd(prepaid)} charged at once`;
  return `${usd(perHour)} per hour in total${atOnce}`;
}

/** Throws (exit 7) when what would be rented costs more than --max-total. */
export function checkTotal({ price_per_hour: perHour }: Answers['plan'], most: number | null): void {
  if (most === null || perHour <= most) return;
  throw new CliError(exitCodes.refused, 'over_max_total', 'nothing was rented: it costs more than --max-total', {
    why: `it would cost ${usd(perHour)} per hour in total, ${usd(most)} are allowed`,
    hint: 'lower the count or --max-price, or raise --max-total',
  });
}

/** A plan without an offer: there is nothing to ask about, and nothing may be rented unasked. */
export function nothingToRent(reasons: readonly string[]): CliError {
  return new CliError(exitCodes.nothing, 'no_offers', 'nothing was rented: no offers match the filters', {
    why: reasons.length === 0 ? null : reasons.join('; '),
    hint: 'look at "gpuproxy list", then loosen the filters or lower the count',
  });
}

/** Columns of offers, in the words of the reservation table. */
export const offerColumns: readonly Column<Offer>[] = [
  { title: 'OFFER', width: 11, value: (offer) => offer.id },
  { title: 'PROVIDER', width: 8, value: (offer) => offer.provider },
  gpuColumn((offer) => [offer.gpu_name, offer.gpu_count]),
  { title: 'VRAM', width: 4, value: (offer) => vramText(offer.vram_gb), plain: (offer) => offer.vram_gb },
  { title: 'PRICE', width: 5, usd: (offer) => offer.price_per_hour },
  {
    title: 'PREPAID',
    value: (offer) => (offer.prepaid_hours == null ? '-' : `${offer.prepaid_hours} h`),
    plain: (offer) => offer.prepaid_hours ?? null,
  },
  { title: 'AVAIL', value: (offer) => String(offer.available) },
  { title: 'LOCATION', value: (offer) => offer.location ?? '-', cut: 6 },
];

/** The GPUs of a row; where there is little room without the words that tell no model from another. */
export function gpuColumn<Row>(of: (row: Row) => readonly [model: string, count: number | undefined]): Column<Row> {
  return {
    title: 'GPU',
    width: 10,
    value: (row) => gpuText(...of(row)),
    brief: (row) => {
      const [model, count] = of(row);
      return gpuText(gpuName(model), count);
    },
    cut: 8,
  };
}

/** "RTX 4090", "4x A100". */
export function gpuText(model: string, count = 1): string {
  return count > 1 ? `${count}x ${model || '-'}` : model || '-';
}

export function vramText(gb: number): string {
  return gb === 0 ? '-' : `${Math.round(gb * 10) / 10}GB`;
}
