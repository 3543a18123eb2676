/**
 * Weight of an instance by the guide's table: at least 80 GB VRAM 3.0, 40 GB 2.0, 24 GB 1.5, else 1.0; under 1 USD per
 * hour times 1.2. The tier goes by one GPU and its part of the price, the result counts once per GPU.
 */
export function weightOf(instance: { vramGb: number; gpuCount: number; usdPerHour: number }): number {
  const gpus = Math.max(1, Math.round(instance.gpuCount));
  const tier = instance.vramGb >= 80 ? 3 : instance.vramGb >= 40 ? 2 : instance.vramGb >= 24 ? 1.5 : 1;
  const cheap = instance.usdPerHour / gpus < 1 ? 1.2 : 1;
  // One decimal: the products are exact in tenths, binary fractions are not (3 × 1.2 = 3.5999…).
  return Math.round(tier * cheap * gpus * 10) / 10;
}

/** Sizes of cards whose driver keeps 1/16 of the memory for ECC: they report 15/16 of what is printed. */
const eccSizesGb = [16, 24, 48];

/** VRAM as printed on the card, from what its driver reports: 24,564 MB is 24 GB, 81,559 is 80, 23,028 (ECC) is 24. */
export function nominalVramGb(megabytes: number): number {
  const gb = megabytes / 1024;
  return eccSizesGb.find((size) => Math.abs(gb - (size * 15) / 16) < 0.1) ?? Math.round(gb);
}
