import { nominalVramGb } from '../core/weight.ts';

/** One card of a public list, its names compacted for comparison. */
export type PublicCard = Readonly<{ name: string; interconnect: string; vramGb: number }>;

/** When neither the name nor the public list tells. More special names first. */
const knownVramGb: readonly (readonly [RegExp, number])[] = [
  [/MI300X/, 192],
  [/B300/, 288],
  [/B200/, 180],
  [/H200/, 141],
  [/H100\s*NVL/, 94],
  [/H100|H800|A800/, 80],
  [/A100/, 80],
  [/PRO\s*6000/, 96],
  [/L40|A6000|A40\b|6000\s*ADA|RTX\s*8000/, 48],
  [/5090/, 32],
  [/4090|3090|A5000|A10\b|A10G|A30\b|L4\b|TITAN\s*RTX/, 24],
  [/4000\s*ADA|A4500/, 20],
  [/V100|5080|5070\s*TI|4080|4070\s*TI\s*SUPER|4060\s*TI|A4000|T4\b/, 16],
  [/5070|4070|3080\s*TI|3060/, 12],
  [/2080\s*TI/, 11],
  [/3080/, 10],
  [/3070|4060|2080|2070/, 8],
];

/** Nominal GB of one card; 0 when nothing tells, so that a wish for memory never gets a card that may lack it. */
export function vramOf(hardwareName: string, sizes: readonly PublicCard[]): number {
  const upper = hardwareName.toUpperCase();
  const said = /(\d+)\s*GB/.exec(upper)?.[1];
  if (said !== undefined) return Number(said);
  const key = compact(upper);
  const same = sizes.filter((card) => key.startsWith(card.name));
  const longest = Math.max(...same.map((card) => card.name.length));
  const nearest = same.filter((card) => card.name.length === longest);
  const exact = nearest.filter((card) => card.interconnect !== '' && key.includes(card.interconnect));
  const candidates = exact.length > 0 ? exact : nearest;
  // Of several sizes under one name the smallest is the one that is certain.
  if (candidates.length > 0) return Math.min(...candidates.map((card) => card.vramGb));
  return knownVramGb.find(([pattern]) => pattern.test(upper))?.[1] ?? 0;
}

/** The list has a row for every configuration in every place: each card once is enough. */
export function cardsOf(
  rows: readonly Readonly<{ name: string; vram_per_card: number; interconnect?: string | null | undefined }>[],
): PublicCard[] {
  const found = new Map<string, PublicCard>();
  for (const row of rows) {
    if (row.vram_per_card <= 0) continue;
    const card = {
      name: compact(row.name),
      interconnect: compact(row.interconnect ?? ''),
      vramGb: nominalVramGb(row.vram_per_card),
    };
    if (card.name !== '') found.set(JSON.stringify(card), card);
  }
  return [...found.values()];
}

function compact(text: string): string {
  return text.toUpperCase().replace(/NVIDIA|GEFORCE|[^A-Z0-9]/g, '');
}
