/** A clock whose waits end at once and move it on by as much. */
import type { Clock } from '@certvend/client'

export function instantClock(start: Date = new Date()): Clock {
  let now = start.getTime()
  return {
    now: () => new Date(now),
    async wait(ms, signal) {
      now += ms
      await new Promise(setImmediate)
      signal?.throwIfAborted()
    },
  }
}
