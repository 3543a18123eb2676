/** More than any `usage` object and what servers put after it. */
const keptBytes = 2048;
const maxTokens = 100_000_000;

export type Usage = Readonly<{ promptTokens: number; completionTokens: number }>;

/**
 * Remembers the last pieces of an answer of a model, where servers tell what it cost: at the end of a JSON document, or in
 * the last event of a stream. Holds pieces that are there anyway and copies nothing until the end.
 */
export class UsageTail {
  readonly #pieces: Buffer[] = [];
  #bytes = 0;

  push(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    while (this.#bytes - this.#pieces[0]!.length >= keptBytes) this.#bytes -= this.#pieces.shift()!.length;
  }

  /** What the last `usage` says, in the words of OpenAI or of Anthropic; null when there is none. */
  read(): Usage | null {
    const all = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    const text = all.toString('latin1', Math.max(0, all.length - keptBytes));
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
