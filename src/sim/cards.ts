/** One GPU model as both marketplaces name it, with what it costs and how fast the simulated server behind it is. */
export type Card = Readonly<{
  /** Name on vast.ai. */
  vast: string;
  /** Name on io.net; null where io.net does not rent it. */
  ionet: string | null;
  /** As the driver reports it: a "24 GB" card is 24564, not 24576. */
  vramMb: number;
  /** USD per GPU-hour, cheapest and dearest host. */
  usd: readonly [number, number];
  /** Compute capability × 100. */
  computeCap: number;
  tflops: number;
  memoryGbPerS: number;
  watts: number;
  /** Milliseconds to the first token of a short prompt on an idle card. */
  ttftMs: number;
  /** For one stream on an idle card. */
  tokensPerSecond: number;
  /** Sequences served at once by one card; further ones queue. */
  slots: number;
  /** How common it is, on vast.ai and on io.net. */
  share: readonly [number, number];
  sizes: readonly number[];
  interconnect: string;
}>;

const card = (
  vast: string,
  ionet: string | null,
  vramMb: number,
  usd: readonly [number, number],
  chip: readonly [computeCap: number, tflops: number, memoryGbPerS: number, watts: number],
  speed: readonly [ttftMs: number, tokensPerSecond: number, slots: number],
  share: readonly [number, number],
  sizes: readonly number[],
  interconnect = 'pcie',
): Card => ({
  vast,
  ionet,
  vramMb,
  usd,
  computeCap: chip[0],
  tflops: chip[1],
  memoryGbPerS: chip[2],
  watts: chip[3],
  ttftMs: speed[0],
  tokensPerSecond: speed[1],
  slots: speed[2],
  share,
  sizes,
  interconnect,
});

export const cards: readonly Card[] = [
  card('Tesla T4', 'Tesla T4', 15_360, [0.12, 0.22], [750, 8.1, 320, 70], [380, 24, 4], [2, 1], [1, 1, 2]),
  card(
    'RTX 3090',
    'GeForce RTX 3090',
    24_576,
    [0.16, 0.29],
    [860, 35.6, 936, 350],
    [230, 46, 6],
    [7, 2],
    [1, 1, 1, 2, 4],
  ),
  card(
    'RTX 4090',
    'GeForce RTX 4090',
    24_564,
    [0.31, 0.79],
    [890, 82.6, 1008, 450],
    [165, 68, 8],
    [10, 5],
    [1, 1, 1, 2, 4, 8],
  ),
  card(
    'RTX 5090',
    'GeForce RTX 5090',
    32_607,
    [0.45, 0.92],
    [1200, 104.8, 1792, 575],
    [125, 96, 10],
    [6, 3],
    [1, 1, 2, 4],
  ),
  card('RTX A6000', 'RTX A6000', 49_140, [0.42, 0.71], [860, 38.7, 768, 300], [205, 52, 10], [3, 3], [1, 1, 2, 4]),
  card('L40S', 'L40S', 46_068, [0.67, 1.09], [890, 91.6, 864, 350], [140, 78, 14], [3, 4], [1, 1, 2, 4]),
  card('A100 PCIE', 'A100 PCIe 40GB', 40_960, [0.59, 0.94], [800, 19.5, 1555, 250], [130, 84, 16], [2, 2], [1, 1, 2]),
  card(
    'A100 PCIE',
    'A100 PCIe 80GB',
    81_920,
    [0.86, 1.39],
    [800, 19.5, 1935, 300],
    [118, 92, 20],
    [3, 2],
    [1, 1, 2, 4],
  ),
  card('A100 SXM4', null, 40_537, [0.65, 0.99], [800, 19.5, 1555, 400], [122, 90, 16], [1, 0], [1, 2], 'sxm4'),
  card(
    'A100 SXM4',
    'A100-SXM4-80GB',
    81_251,
    [0.98, 1.99],
    [800, 19.5, 2039, 400],
    [104, 104, 22],
    [4, 5],
    [1, 1, 2, 4, 8],
    'sxm4',
  ),
  card('H100 PCIE', 'H100 PCIe', 81_559, [1.65, 2.35], [900, 51.2, 2039, 350], [82, 128, 28], [2, 3], [1, 1, 2]),
  card(
    'H100 SXM',
    'H100 SXM5',
    81_559,
    [1.85, 2.95],
    [900, 66.9, 3350, 700],
    [66, 160, 32],
    [4, 6],
    [1, 1, 2, 4, 8],
    'sxm5',
  ),
  card('H200', 'H200', 143_771, [2.35, 3.6], [900, 66.9, 4800, 700], [56, 188, 40], [2, 3], [1, 1, 2, 8], 'sxm5'),
  card('B200', 'B200', 183_359, [3.4, 4.9], [1000, 80, 8000, 1000], [42, 240, 56], [1, 1], [1, 2, 8], 'sxm6'),
];

function named(name: string, minVramMb = 0): Card {
  const found = cards.find((it) => (it.vast === name || it.ionet === name) && it.vramMb >= minVramMb);
  if (!found) throw new RangeError(`no card ${name}`);
  return found;
}

/** Single cards that every fleet has, as far as it is large enough, so that a demo finds what people look for. */
export const vastStaples: readonly Card[] = [
  named('RTX 4090'),
  named('RTX 4090'),
  named('RTX 3090'),
  named('A100 SXM4', 80_000),
  named('RTX 4090'),
  named('RTX 5090'),
  named('H100 SXM'),
  named('L40S'),
  named('A100 PCIE', 80_000),
  named('RTX 3090'),
  named('H200'),
  named('Tesla T4'),
];
export const ionetStaples: readonly Card[] = [
  named('H100 SXM5'),
  named('L40S'),
  named('A100-SXM4-80GB'),
  named('GeForce RTX 4090'),
  named('H200'),
];

export type Place = Readonly<{ region: string; iso2: string; country: string }>;
export const places: readonly Place[] = [
  { region: 'Sweden', iso2: 'SE', country: 'Sweden' },
  { region: 'California', iso2: 'US', country: 'United States' },
  { region: 'Texas', iso2: 'US', country: 'United States' },
  { region: 'Virginia', iso2: 'US', country: 'United States' },
  { region: 'Quebec', iso2: 'CA', country: 'Canada' },
  { region: 'British Columbia', iso2: 'CA', country: 'Canada' },
  { region: 'Germany', iso2: 'DE', country: 'Germany' },
  { region: 'Norway', iso2: 'NO', country: 'Norway' },
  { region: 'Finland', iso2: 'FI', country: 'Finland' },
  { region: 'Czechia', iso2: 'CZ', country: 'Czechia' },
  { region: 'Poland', iso2: 'PL', country: 'Poland' },
  { region: 'France', iso2: 'FR', country: 'France' },
  { region: 'Spain', iso2: 'ES', country: 'Spain' },
  { region: 'Netherlands', iso2: 'NL', country: 'Netherlands' },
  { region: 'United Kingdom', iso2: 'GB', country: 'United Kingdom' },
  { region: 'Iceland', iso2: 'IS', country: 'Iceland' },
  { region: 'Bulgaria', iso2: 'BG', country: 'Bulgaria' },
  { region: 'Japan', iso2: 'JP', country: 'Japan' },
  { region: 'South Korea', iso2: 'KR', country: 'South Korea' },
  { region: 'Taiwan', iso2: 'TW', country: 'Taiwan' },
  { region: 'Singapore', iso2: 'SG', country: 'Singapore' },
  { region: 'India', iso2: 'IN', country: 'India' },
  { region: 'Australia', iso2: 'AU', country: 'Australia' },
];

/** What a server with this much VRAM per card has loaded; everybody has the first one. */
export function modelsFor(vramMb: number): readonly string[] {
  const models = ['llama-3.1-8b-instruct', 'bge-m3'];
  if (vramMb >= 40_000) models.push('qwen-2.5-32b-instruct');
  if (vramMb >= 80_000) models.push('llama-3.3-70b-instruct');
  return models;
}
