/** More than any `usage` object and what servers put after it. */
const keptBytes = 2048;
const maxTokens = 100_000_000;

export type Usage = Readonly<{ promptTokens: number; completionTokens: number }>;

/**
 * Remembers the last pieces of an answer of a model, where servers tell what it cost: at the end of a JSON document, or in
 * the last event of a stream.
 */
export class UsageTail {
  readonly #pieces: Readonly<{ text: string; framed: boolean }>[] = [];
  #length = 0;

  /** Of a piece, one character a byte, no more than the end is needed. `framed`: whole chunks, as they came. */
  push(text: string, framed = false): void {
    this.#pieces.push({ text, framed });
    this.#length += text.length;
    while (this.#length - this.#pieces[0]!.text.length >= keptBytes) this.#length -= this.#pieces.shift()!.text.length;
  }

  /** The same, of a piece that is no string yet. */
  pushEnd(piece: Buffer): void {
    this.push(piece.toString('latin1', Math.max(0, piece.length - keptBytes)));
  }

  /** What the last `usage` says, in the words of OpenAI or of Anthropic; null when there is none. */
  read(): Usage | null {
    const text = this.#pieces.map((piece) => (piece.framed ? bodyOf(piece.text) : piece.text)).join('');
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

/** What whole chunks hold. */
function bodyOf(chunks: string): string {
  let body = '';
  for (let at = 0; at < chunks.length; ) {
    const start = chunks.indexOf('\r\n', at) + 2;
    const size = Number.parseInt(chunks.slice(at, start), 16);
    body += chunks.slice(start, start + size);
    at = start + size + 2;
  }
  return body;
}
