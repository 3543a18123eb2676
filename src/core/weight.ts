/**
 * Weight of an instance (docs/load-balancing-guide.md): at least 80 GB VRAM 3.0, 40 GB 2.0, 24 GB 1.5, else 1.0; under 1 USD per
 * hour times 1.2. The tier goes by one GPU and its part of the price, the result counts once per GPU.
 */
export function weightOf(instance: { vramGb: number; gpuCount: number; usdPerHour: number }): number {
  const gpus = Math.max(1, Math.round(instance.gpuCount));
  const tier = instance.vramGb >= 80 ? 3 : instance.vramGb >= 40 ? 2 : instance.vramGb >= 24 ? 1.5 : 1;
  const cheap = instance.usdPerHour / gpus < 1 ? 1.2 : 1;
  // One decimal: the products are exact in tenths, binary fractions are not (3 × 1.2 = 3.5999…).
  return Math.round(tier * cheap * gpus * 10) / 10;
}

/** What is printed on cards that are rented out, GB. */
const printedGb = [6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192, 256, 288];

/**
 * VRAM as printed on the card, from what is reported of it in GB of 1,024 MB: drivers leave out up to 7.5 % (error
 * correction, firmware), so 24,564 MB is 24 GB, 81,559 and 81,251 are 80, 23,028 is 24. Other sizes are rounded.
 */
export function nominalVramGb(reportedGb: number): number {
  const size = printedGb.find((gb) => reportedGb <= gb * 1.01);
  return size !== undefined && reportedGb >= size * 0.925 ? size : Math.round(reportedGb);
}
