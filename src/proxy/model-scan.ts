/**
 * Finds the value of the top-level `model` member of a JSON object while its bytes arrive. Nothing is parsed further
 * than that and nothing is kept besides the value; the body itself is never decoded or changed.
 */
export class ModelScan {
  /** `pending` until the value was read; `none`: there is no such member, or it is no string, or this is no JSON object. */
  state: 'pending' | 'found' | 'none' = 'pending';
  model: string | null = null;
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** Bytes of the string being read, when it is a top-level key or the value of `model`. */
  #text: number[] | null = null;
  #expect: 'start' | 'key' | 'colon' | 'value' | 'comma' = 'start';
  #keyIsModel = false;

  /** Takes the next bytes; true when the answer is known. */
  write(chunk: Uint8Array): boolean {
    for (let i = 0; i < chunk.length && this.state === 'pending'; i++) this.#byte(chunk[i]!);
    return this.state !== 'pending';
  }

  #byte(byte: number): void {
    if (this.#inString) {
      this.#stringByte(byte);
      return;
    }
    if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) return;
    if (this.#depth === 0) {
      if (byte !== 0x7b) this.#end();
      this.#depth = 1;
      this.#expect = 'key';
      return;
    }
    switch (byte) {
      case 0x22: // "
        this.#inString = true;
        if (this.#depth === 1 && (this.#expect === 'key' || this.#keyIsModel)) this.#text = [];
        return;
      case 0x7b: // {
      case 0x5b: // [
        if (this.#depth === 1 && this.#keyIsModel) this.#end();
        this.#depth++;
        return;
      case 0x7d: // }
      case 0x5d: // ]
        this.#depth--;
        if (this.#depth === 0) this.#end();
        return;
      case 0x3a: // :
        if (this.#depth === 1) this.#expect = 'value';
        return;
      case 0x2c: // ,
        if (this.#depth === 1) {
          this.#expect = 'key';
          this.#keyIsModel = false;
        }
        return;
      default:
        if (this.#depth === 1 && this.#keyIsModel && this.#expect === 'value') this.#end();
    }
  }

  #stringByte(byte: number): void {
    if (this.#escaped) this.#escaped = false;
    else if (byte === 0x5c) this.#escaped = true;
    else if (byte === 0x22) {
      this.#inString = false;
      this.#stringEnd();
      return;
    }
    this.#text?.push(byte);
    // Longer than any name of a model: not worth remembering.
    if (this.#text !== null && this.#text.length > 4096) {
      if (this.#keyIsModel) this.#end();
      this.#text = null;
    }
  }

  #stringEnd(): void {
    if (this.#text === null) return;
    const text = decode(this.#text);
    this.#text = null;
    if (this.#expect === 'key') {
      this.#keyIsModel = text === 'model';
      this.#expect = 'colon';
      return;
    }
    if (text === null) {
      this.#end();
      return;
    }
    this.model = text;
    this.state = 'found';
  }

  #end(): void {
    this.state = 'none';
  }
}

function decode(bytes: readonly number[]): string | null {
  try {
    const text: unknown = JSON.parse(`"${Buffer.from(bytes).toString('utf8')}"`);
    return typeof text === 'string' ? text : null;
  } catch {
    return null;
  }
}
