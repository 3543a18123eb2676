/** The page to read and try the API. Everything in it comes from the same server: no network is needed. */
export function docsPage(): { html: string; contentSecurityPolicy: string } {
  return {
    html: '<!doctype html><title>gpuproxy API</title><a href="openapi.json">openapi.json</a>',
    contentSecurityPolicy: "default-src 'none'",
  };
}
