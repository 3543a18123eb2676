import type { ProviderName } from '../core/domain.ts';
import { ProviderError } from '../providers/provider.ts';
import { AppError } from './app.ts';

/** One shape for whatever a provider call threw: a stable code and one line for people, free of secrets. */
export type Failure = Readonly<{ code: string; message: string; retryAfterMs: number | null }>;

/** Anything but a provider's failure or a timeout is a bug and is thrown on. */
export function failureOf(error: unknown): Failure {
  if (error instanceof ProviderError) {
    return { code: error.code, message: error.message, retryAfterMs: error.retryAfterMs };
  }
  if (error instanceof Error && (error.name === 'AbortError' || error.name === 'TimeoutError')) {
    return { code: 'timeout', message: 'no answer in time', retryAfterMs: null };
  }
  throw error;
}

/** The one place where a provider's failure becomes a refusal of the app. */
export function appErrorOf(provider: ProviderName, error: unknown): AppError {
  const failure = failureOf(error);
  const code =
    failure.code === 'timeout' ? 'provider_timeout' : failure.code === 'not_found' ? 'not_found' : 'provider_failed';
  return new AppError(code, `${provider}: ${failure.message}`, { cause: error });
}
