/**
 * True for an http(s) URL that carries nothing but an address and a path: what else it can carry would be lost on the way
 * to a server, or be shown wherever the server is named.
 */
export function isBaseUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, search, hash } = new URL(text);
  return /^https?:$/.test(protocol) && `${username}${password}${search}${hash}` === '';
}
