import { type Card, cards, type Place, places } from './cards.ts';
import { createRandom, type Random } from './random.ts';

/** An ask on vast.ai, with the API's own field names. Prices without disk; those with disk depend on the search. */
export type Ask = {
  readonly card: Card;
  readonly id: number;
  readonly machine_id: number;
  readonly host_id: number;
  readonly bundle_id: number;
  readonly num_gpus: number;
  readonly gpu_frac: number;
  readonly gpu_ids: readonly number[];
  readonly cuda_max_good: number;
  readonly driver_version: string | null;
  readonly cpu_name: string;
  readonly cpu_cores: number | null;
  readonly cpu_cores_effective: number;
  readonly cpu_ghz: number;
  readonly cpu_ram: number;
  readonly disk_space: number;
  readonly storage_cost: number;
  readonly inet_up: number;
  readonly inet_down: number;
  readonly inet_up_cost: number;
  readonly inet_down_cost: number;
  readonly direct_port_count: number;
  readonly static_ip: boolean;
  readonly reliability: number;
  readonly verification: 'verified' | 'unverified' | 'deverified';
  readonly hosting_type: number;
  readonly geolocation: string | null;
  readonly duration: number;
  readonly start_date: number;
  readonly dlperf: number | null;
  dph_base: number;
  min_bid: number;
  rentable: boolean;
  rented: boolean;
};

const cpus = [
  'AMD EPYC 7763 64-Core Processor',
  'AMD EPYC 9354 32-Core Processor',
  'Xeon® Gold 6338',
  'AMD Ryzen 9 7950X',
];
const drivers: readonly (readonly [driver: string, cuda: number])[] = [
  ['535.183.01', 12.2],
  ['550.90.07', 12.4],
  ['560.35.03', 12.6],
  ['570.86.15', 12.8],
  ['580.65.06', 13.0],
];
const round = (value: number, digits: number): number => Number(value.toFixed(digits));

/** Draws an ask. `spare` ones are of no use to a client that needs an HTTP port: nothing is mapped directly. */
export function drawAsk(
  random: Random,
  id: number,
  fixed: Readonly<{ card?: Card; gpus?: number; spare?: boolean }> = {},
): Ask {
  const card = fixed.card ?? random.weighted(cards, (it) => it.share[0]);
  const place: Place = random.pick(places);
  const num_gpus = fixed.gpus ?? random.pick(card.sizes);
  const perGpu = random.between(card.usd[0], card.usd[1]);
  const [driver, cuda] = random.pick(card.computeCap >= 1000 ? drivers.slice(-2) : drivers);
  const cores = random.pick([16, 32, 48, 64, 96, 128, 256]);
  const frac = random.pick([1, 1, 0.5, 0.25, 0.125].filter((part) => part >= num_gpus / 8));
  const dph_base = round(perGpu * num_gpus, 4);
  return {
    card,
    id,
    machine_id: random.int(1000, 60_000),
    host_id: random.int(50, 9000),
    bundle_id: random.int(100_000_000, 999_999_999),
    num_gpus,
    gpu_frac: frac,
    gpu_ids: Array.from({ length: num_gpus }, () => random.int(1000, 99_999)),
    cuda_max_good: cuda,
    driver_version: random.chance(0.04) ? null : driver,
    cpu_name: random.pick(cpus),
    cpu_cores: random.chance(0.08) ? null : cores,
    cpu_cores_effective: round(cores * frac, 1),
    cpu_ghz: round(random.between(2.2, 4.5), 2),
    cpu_ram: Math.round((card.vramMb * num_gpus * random.between(1.2, 3)) / frac),
    disk_space: round(random.between(60, 2800), 1),
    storage_cost: round(random.between(0.08, 0.35), 3),
    inet_up: round(random.between(80, 4000), 1),
    inet_down: round(random.between(150, 8000), 1),
    inet_up_cost: round(random.between(0.001, 0.02), 4),
    inet_down_cost: round(random.between(0.001, 0.02), 4),
    direct_port_count: fixed.spare ? 0 : random.pick([2, 12, 50, 100, 250]),
    static_ip: random.chance(0.6),
    reliability: round(1 - random.next() ** 3 * 0.08, 6),
    verification: random.chance(fixed.spare ? 0.5 : 0.07)
      ? random.pick(['unverified', 'deverified'] as const)
      : 'verified',
    hosting_type: random.chance(0.35) ? 1 : 0,
    geolocation: random.chance(0.06) ? null : `${place.region}, ${place.iso2}`,
    duration: random.int(2, 90) * 86_400,
    start_date: 1_760_000_000 + random.int(0, 5_000_000) + 0.5,
    dlperf: random.chance(0.04) ? null : round(card.tflops * random.between(0.9, 1.2) * num_gpus, 1),
    dph_base,
    min_bid: round(dph_base * random.between(0.35, 0.7), 4),
    rentable: true,
    rented: false,
  };
}

/** USD per hour of so many GB (a month is 720 hours). */
export const diskUsdPerHour = (ask: Ask, diskGb: number): number => (diskGb * ask.storage_cost) / 30 / 24;

export function countryOf(ask: Ask): string | null {
  return ask.geolocation?.split(',').at(-1)?.trim() ?? null;
}

function driverNumber(driver: string | null): number | null {
  if (driver === null) return null;
  const [major = '0', minor = '0', patch = '0'] = driver.split('.');
  return Number(`${major}${minor.padStart(3, '0')}${patch.padStart(3, '0')}`);
}

export type Pricing = Readonly<{ bid: boolean; diskGb: number }>;

export function totalUsdPerHour(ask: Ask, { bid, diskGb }: Pricing): number {
  return round((bid ? ask.min_bid : ask.dph_base) + diskUsdPerHour(ask, diskGb), 6);
}

/** One field of a row without building the row; undefined when there is no such field. */
export function askField(ask: Ask, field: string, pricing: Pricing): unknown {
  switch (field) {
    case 'dph_total':
    case 'dph':
    case 'discounted_dph_total':
    case 'dph_total_adj':
      return totalUsdPerHour(ask, pricing);
    case 'gpu_name':
      return ask.card.vast;
    case 'gpu_ram':
      return ask.card.vramMb;
    case 'gpu_total_ram':
      return ask.card.vramMb * ask.num_gpus;
    case 'verified':
      return ask.verification === 'verified';
    case 'geolocation':
      return countryOf(ask);
    case 'reliability2':
      return ask.reliability;
    case 'ask_contract_id':
      return ask.id;
    case 'compute_cap':
      return ask.card.computeCap;
    case 'driver_vers':
      return driverNumber(ask.driver_version);
    case 'score':
      return score(ask, pricing);
    case 'external':
      return false;
    case 'datacenter':
      return ask.hosting_type === 1;
    // Documented as a filter, but matches nothing.
    case 'id':
      return null;
  }
  if (field in ask && field !== 'card') return ask[field as keyof Ask];
  return rowFields.has(field) ? askRow(ask, pricing)[field] : undefined;
}

function score(ask: Ask, pricing: Pricing): number {
  return round(((ask.dlperf ?? 10) * ask.reliability) / totalUsdPerHour(ask, pricing), 4);
}

/** A row of a search answer. */
export function askRow(ask: Ask, pricing: Pricing): Record<string, unknown> {
  const { card, ...stored } = ask;
  const total = totalUsdPerHour(ask, pricing);
  const gpuUsd = pricing.bid ? ask.min_bid : ask.dph_base;
  const diskHour = round(diskUsdPerHour(ask, pricing.diskGb), 6);
  const prices = (gpu: number) => ({
    gpuCostPerHour: gpu,
    diskHour,
    totalHour: round(gpu + diskHour, 6),
    discountTotalHour: 0,
    discountedTotalPerHour: round(gpu + diskHour, 6),
  });
  return {
    ...stored,
    ask_contract_id: ask.id,
    resource_type: 'gpu',
    gpu_name: card.vast,
    gpu_ram: card.vramMb,
    gpu_total_ram: card.vramMb * ask.num_gpus,
    gpu_arch: 'nvidia',
    compute_cap: card.computeCap,
    driver_vers: driverNumber(ask.driver_version),
    total_flops: round(card.tflops * ask.num_gpus, 1),
    dlperf_per_dphtotal: ask.dlperf === null ? null : round(ask.dlperf / total, 2),
    flops_per_dphtotal: round((card.tflops * ask.num_gpus) / total, 2),
    score: score(ask, pricing),
    gpu_mem_bw: card.memoryGbPerS,
    gpu_max_power: card.watts,
    gpu_max_temp: 83,
    gpu_lanes: 16,
    pcie_bw: 24,
    pci_gen: 4,
    bw_nvlink: card.interconnect === 'pcie' ? 0 : 450,
    cpu_arch: 'amd64',
    has_avx: 1,
    disk_bw: 3200,
    disk_name: 'nvme',
    storage_total_cost: diskHour,
    public_ipaddr: `203.0.113.${ask.machine_id % 254}`,
    dph_total: total,
    dph_total_adj: total,
    is_bid: pricing.bid,
    discount_rate: 0,
    discounted_hourly: 0,
    discounted_dph_total: total,
    credit_discount_max: 0.4,
    vram_costperhour: round(total / card.vramMb / ask.num_gpus, 8),
    reliability2: ask.reliability,
    expected_reliability: ask.reliability,
    reliability_mult: 0.98,
    vericode: ask.verification === 'verified' ? 1 : 0,
    external: null,
    webpage: null,
    logo: '/static/logos/sim.png',
    geolocode: ask.machine_id * 1009,
    os_version: '22.04',
    mobo_name: 'SIM-1',
    vms_enabled: false,
    is_vm_deverified: false,
    end_date: ask.start_date + ask.duration,
    time_remaining: '',
    time_remaining_isbid: '',
    search: prices(gpuUsd),
    instance: prices(0),
    internet_up_cost_per_tb: round(ask.inet_up_cost * 1000, 2),
    internet_down_cost_per_tb: round(ask.inet_down_cost * 1000, 2),
    cluster_id: null,
    avail_vol_ask_id: null,
    avail_vol_dph: null,
    avail_vol_size: null,
    rn: 1,
  };
}

const rowFields = new Set(Object.keys(askRow(drawAsk(createRandom(1), 1), { bid: false, diskGb: 0 })));
