/** A clock that a wait moves: nothing sleeps, and every wait is on record. */
import type { Clock } from '@certvend/client'

export interface MovedClock extends Clock {
  /** Lengths of the waits so far, in milliseconds. */
  readonly waits: readonly number[]
  set(now: Date): void
}

/** @param onWait told before each wait passes; it may abort what waits, or move the clock. */
export function movedClock(start: Date, onWait: (ms: number) => void = () => {}): MovedClock {
  let now = start
  const waits: number[] = []
  return {
    waits,
    now: () => now,
    set(moved) {
      now = moved
    },
    async wait(ms, signal) {
      signal?.throwIfAborted()
      waits.push(ms)
      now = new Date(now.getTime() + ms)
      onWait(ms)
      await new Promise((resolve) => setImmediate(resolve))
      signal?.throwIfAborted()
    },
  }
}
