/** How often each old dialect is still asked, and a word in the log about it, once an hour. */
import { type Clock, hour } from '../clock.ts'
import type { Log } from '../log.ts'
import type { LegacyName } from './dialect.ts'

/** Requests since the start. */
export interface LegacyCounts {
  readonly accepted: number
  readonly refused: number
}

export interface Counting {
  add(name: LegacyName, outcome: keyof LegacyCounts): void
  all(): ReadonlyMap<LegacyName, LegacyCounts>
}

/** How often the log says of a dialect that it is on its way out, in milliseconds. */
const noticeMs = hour

export function createCounts({
  clock,
  log,
}: {
  readonly clock: Clock
  readonly log: Log
}): Counting {
  const counts = new Map<LegacyName, { accepted: number; refused: number }>()
  const noticed = new Map<LegacyName, number>()
  return {
    all: () => counts,
    add(name, outcome) {
      const counted = counts.get(name) ?? { accepted: 0, refused: 0 }
      counted[outcome] += 1
      counts.set(name, counted)
      const now = clock.now().getTime()
      if (now - (noticed.get(name) ?? Number.NEGATIVE_INFINITY) < noticeMs) return
      noticed.set(name, now)
      log({
        level: 'warning',
        event: 'deprecated',
        operation: name,
        reason: 'devices still ask in this old way, in which the private key crosses the wire',
        ...counted,
      })
    },
  }
}
