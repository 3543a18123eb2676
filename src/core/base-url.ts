/**
 * True for an http(s) URL that carries nothing but an address and a path: what else it can carry would be lost on the way
 * to a server, or be shown wherever the server is named.
 */
export function isBaseUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, search, hash } = new URL(text);
  return /^https?:$/.test(protocol) && `${username}${password}${search}${hash}` === '';
}

/**
 * A URL, or what somebody took for one, as it may be shown: without user and password, query and fragment. Such a text is
 * shown because it is wrong, so it is cut where a secret may begin and not where the standard says that one does.
 */
export function withoutUrlSecrets(text: string): string {
  const [, start = '', rest = ''] = /^((?:[\w.-]+=)?(?:[a-z][a-z0-9+.-]*:\/\/)?)([\s\S]*)$/i.exec(text) ?? [];
  const tail = rest.search(/[?#]/);
  const at = rest.lastIndexOf('@');
  // A password with a "?" in it, or a query with an "@": what lies between them may be either.
  if (tail >= 0 && at > tail) return `${start}…`;
  const address = tail < 0 ? rest : rest.slice(0, tail);
  const end = tail < 0 ? '' : `${rest[tail]}…`;
  if (at >= 0) return `${start}…${address.slice(at)}${end}`;
  // Half of a URL that was cut in two: "http://user:pass".
  const half = start.includes('://') ? /^([^/:[\]]*:)(?!\d{0,5}(?:\/|$))/.exec(address)?.[1] : undefined;
  return `${start}${half === undefined ? address : `${half}…`}${end}`;
}

/** The content of a PEM file, where its path should stand, or another text of several lines. */
export function isFileContent(text: string): boolean {
  return /-----BEGIN|[\r\n]/.test(text);
}

/** A wrong value of the configuration, for a message: "got …". */
export function shownValue(value: unknown): string {
  if (typeof value !== 'string') return typeof value === 'object' && value !== null ? 'an object' : String(value);
  return isFileContent(value) ? 'a value that is hidden' : JSON.stringify(withoutUrlSecrets(value));
}
