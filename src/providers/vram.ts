/** What is printed on cards that are rented out, GB. */
const printedGb = [6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192, 256, 288];

/**
 * VRAM as printed on the card, from what is reported of it: drivers leave out up to 7.5 % (error correction, firmware),
 * so an A100 of 80 GB reports 79.3, a B200 of 180 GB 179, an L40S of 48 GB 45. Other sizes are rounded.
 */
export function printedVramGb(reportedGb: number): number {
  const size = printedGb.find((gb) => reportedGb <= gb * 1.01);
  return size !== undefined && reportedGb >= size * 0.925 ? size : Math.round(reportedGb);
}
