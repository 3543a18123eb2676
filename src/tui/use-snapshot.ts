import { useRef, useSyncExternalStore } from 'react';

/** Something that can be read and watched. */
export type Source<T> = Readonly<{ get(): T; subscribe(listener: () => void): () => void }>;

/**
 * A selected part of a source. The component renders again only when the part differs by `same`, whatever else changed
 * in the source.
 */
export function useSnapshot<T, S>(
  source: Source<T>,
  select: (value: T) => S,
  same: (a: S, b: S) => boolean = Object.is,
): S {
  const last = useRef<{ value: S } | null>(null);
  return useSyncExternalStore(source.subscribe, () => {
    const next = select(source.get());
    if (last.current !== null && same(last.current.value, next)) return last.current.value;
    last.current = { value: next };
    return next;
  });
}
