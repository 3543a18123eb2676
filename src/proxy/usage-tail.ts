/** More than any `usage` object and what servers put after it. */
const keptBytes = 2048;
const maxTokens = 100_000_000;

export type Usage = Readonly<{ promptTokens: number; completionTokens: number }>;

/**
 * Remembers the last pieces of an answer of a model, where servers tell what it cost: at the end of a JSON document, or in
 * the last event of a stream.
 */
export class UsageTail {
  readonly #pieces: string[] = [];
  #length = 0;

  /** Of `piece`, one character a byte, no more than the end is needed. */
  push(piece: string): void {
    this.#pieces.push(piece);
    this.#length += piece.length;
    while (this.#length - this.#pieces[0]!.length >= keptBytes) this.#length -= this.#pieces.shift()!.length;
  }

  /** The same, of a piece that is no string yet. */
  pushEnd(piece: Buffer): void {
    this.push(piece.toString('latin1', Math.max(0, piece.length - keptBytes)));
  }

  /** What the last `usage` says, in the words of OpenAI or of Anthropic; null when there is none. */
  read(): Usage | null {
    // Pieces may come with the framing of their chunks.
    const text = this.#pieces.join('').replace(/\r\n[0-9a-fA-F]{1,7}\r\n/g, '');
    const at = text.lastIndexOf('"usage"');
    if (at === -1) return null;
    const usage = text.slice(at);
    const promptTokens = count(/"(?:prompt|input)_tokens"\s*:\s*(\d+)/, usage);
    const completionTokens = count(/"(?:completion|output)_tokens"\s*:\s*(\d+)/, usage);
    return promptTokens === null && completionTokens === null
      ? null
      : { promptTokens: promptTokens ?? 0, completionTokens: completionTokens ?? 0 };
  }
}

function count(pattern: RegExp, text: string): number | null {
  const found = Number(pattern.exec(text)?.[1] ?? Number.NaN);
  return found <= maxTokens ? found : null;
}
