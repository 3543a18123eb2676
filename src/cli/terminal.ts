/**
 * The terminal that stdout is; null when the output goes elsewhere. One that was never told its size has 0 columns. GPUPROXY_FORCE_TTY gives the columns of one that is
 * not there: for tests, and for output that is shown in a document.
 */
export function terminal(): Readonly<{ columns: number }> | null {
  const forced = Number(process.env.GPUPROXY_FORCE_TTY);
  if (forced >= 20 && forced <= 1000) return { columns: Math.floor(forced) };
  return process.stdout.isTTY === true ? { columns: process.stdout.columns || 80 } : null;
}
