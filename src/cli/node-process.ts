/**
 * What the build puts in place of `node:process`. Importing that module makes Node read every property of `process`, which
 * opens stdin and loads much that a client command never uses; the global is the same object without that price.
 */
export default globalThis.process;
export const env = globalThis.process.env;
export const cwd = (): string => globalThis.process.cwd();
