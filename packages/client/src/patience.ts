/**
 * How long one exchange may take: until its deadline, or until the caller gives up.
 *
 * `AbortSignal.any` would do, but each use stays with the caller's signal for as long as that lives
 * (measured on Node 22: 1.8 kB, for ever, in a loop that retries for years).
 */

export interface Patience {
  /** The caller's. */
  readonly signal?: AbortSignal | undefined
  /** Aborts when the time is up. */
  readonly deadline: AbortSignal
  /** The whole time, for messages. */
  readonly deadlineMs: number
}

/** Runs `work` with a signal that aborts when either does, with that one's reason. */
export async function within<T>(
  { signal, deadline }: Patience,
  work: (either: AbortSignal) => Promise<T>,
): Promise<T> {
  const stop = new AbortController()
  const onGivenUp = (): void => stop.abort(signal?.reason)
  const onDeadline = (): void => stop.abort(deadline.reason)
  if (signal?.aborted) onGivenUp()
  if (deadline.aborted) onDeadline()
  signal?.addEventListener('abort', onGivenUp)
  deadline.addEventListener('abort', onDeadline)
  try {
    return await work(stop.signal)
  } finally {
    signal?.removeEventListener('abort', onGivenUp)
    deadline.removeEventListener('abort', onDeadline)
  }
}
