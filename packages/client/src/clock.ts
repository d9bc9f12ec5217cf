/**
 * The clock border: the only reader of the system clock and the only maker of timers.
 *
 * A wait is made of bounded steps, each compared with the clock again: a Node timer past 2^31-1 ms
 * fires at once, and a suspended gateway's timers stand still.
 */
import { setTimeout as timeout } from 'node:timers/promises'

/** The time, and waiting for it. */
export interface Clock {
  now(): Date
  /** Resolves after `ms`; rejects with the signal's reason on abort. */
  wait(ms: number, signal?: AbortSignal): Promise<void>
}

/** No honest clock shows a time before this: what follows was written later. */
export const earliestPlausible: Date = new Date('2026-11-01T00:00:00Z')

const longestStepMs = 60 * 60_000

/** This machine's clock; a wait may be of any length. */
export const systemClock: Clock = {
  now: () => new Date(),
  async wait(ms, signal) {
    const end = performance.now() + ms
    for (let left = ms; left > 0; left = end - performance.now()) {
      try {
        await timeout(Math.min(left, longestStepMs), undefined, signal ? { signal } : {})
      } catch (error) {
        signal?.throwIfAborted()
        throw error
      }
    }
    signal?.throwIfAborted()
  },
}

/** Milliseconds since this process began, by a clock that nobody sets; it stands still in a suspend. */
export const monotonicMs = (): number => performance.now()
