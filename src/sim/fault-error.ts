/** A fault that cannot be understood; the message names the field, what came and what is accepted. */
export class FaultError extends Error {
  override readonly name = 'FaultError';
}
