/**
 * When to ask again: full jitter, and `Retry-After` (RFC 9110 section 10.2.3) as law.
 *
 * Nothing here gives up: a device that stops asking is lost, one that slows down is not.
 */
import { type Clock, systemClock } from './clock.ts'
import { CertvendError } from './errors.ts'

/** Full jitter: each wait is drawn from 0 to a bound that doubles from `baseMs` to `capMs`. */
export interface Backoff {
  /** Upper bound of the first wait, in milliseconds. */
  readonly baseMs: number
  /** Upper bound of every wait, in milliseconds. */
  readonly capMs: number
}

/** A wait drawn uniformly from 0 to min(cap, base × 2^attempt), in milliseconds; attempt from 0. */
export function fullJitter(attempt: number, backoff: Backoff, random: () => number): number {
  return random() * Math.min(backoff.capMs, backoff.baseMs * 2 ** Math.min(attempt, 30))
}

const longestRetryAfterMs = 24 * 60 * 60_000

/** An HTTP-date (RFC 9110 section 5.6.7); `Date.parse` alone finds a year in almost any text. */
const httpDate = /^(Mon|Tues?|Wed(nes)?|Thu(rs)?|Fri|Sat(ur)?|Sun)(day)?, .* GMT$/

/** Reads a `Retry-After` header, seconds or HTTP-date, as an instant not before `now` and at most a day later. */
export function parseRetryAfter(value: string | undefined, now: Date): Date | undefined {
  if (value === undefined) return undefined
  const text = value.trim()
  const at = /^\d{1,10}$/.test(text)
    ? now.getTime() + Number(text) * 1000
    : httpDate.test(text)
      ? Date.parse(text)
      : Number.NaN
  if (Number.isNaN(at)) return undefined
  const start = now.getTime()
  return new Date(Math.min(Math.max(at, start), start + longestRetryAfterMs))
}

export interface RetryOptions {
  /** Default: 1 s to 5 min. */
  readonly backoff?: Backoff
  readonly signal?: AbortSignal
  readonly clock?: Clock
  /** Uniform in [0, 1). Default `Math.random`. */
  readonly random?: () => number
  /** Told before each wait. */
  readonly onRetry?: (retry: { error: CertvendError; attempt: number; waitMs: number }) => void
}

/**
 * Repeats `attempt` while it fails with remedy `retry`; any other error is thrown at once.
 *
 * @throws what `attempt` threw, or the signal's reason.
 */
export async function retrying<T>(
  attempt: () => Promise<T>,
  options: RetryOptions = {},
): Promise<T> {
  const { backoff = { baseMs: 1000, capMs: 5 * 60_000 }, clock = systemClock, signal } = options
  for (let count = 0; ; count++) {
    signal?.throwIfAborted()
    try {
      return await attempt()
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof CertvendError) || error.remedy !== 'retry') throw error
      const jitter = fullJitter(count, backoff, options.random ?? Math.random)
      const asked = error.retryAt ? error.retryAt.getTime() - clock.now().getTime() : 0
      // A server that names a moment has planned for it; a little jitter on top keeps apart those told the same.
      const waitMs = asked > 0 ? asked + Math.min(jitter, 1000) : jitter
      options.onRetry?.({ error, attempt: count + 1, waitMs })
      await clock.wait(waitMs, signal)
    }
  }
}
