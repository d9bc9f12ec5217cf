/**
 * Failed authentications, counted per (address, serial) in a table that cannot grow without bound.
 *
 * Only failures are counted and only failures are slowed: a correct token is never refused because
 * others failed, since serials can be guessed and a whole factory may share one address.
 */
import { minute } from './clock.ts'

export interface FailureLimits {
  /** Failures that are answered before the caller is told to wait; 10 by default. */
  readonly allowed?: number
  /** How long a failure counts, in milliseconds; 10 minutes by default. */
  readonly windowMs?: number
  /** Entries kept; the oldest gives way. 10 000 by default. */
  readonly capacity?: number
}

/**
 * Counts one more failure.
 *
 * @returns milliseconds until the caller may ask again, or undefined while it may
 */
export type CountFailure = (address: string, deviceSerial: string, at: Date) => number | undefined

export function createFailureTable(limits: FailureLimits = {}): CountFailure {
  const { allowed = 10, windowMs = 10 * minute, capacity = 10_000 } = limits
  const table = new Map<string, { failures: number; until: number }>()
  return (address, deviceSerial, at) => {
    const key = `${address} ${deviceSerial}`
    const now = at.getTime()
    let entry = table.get(key)
    if (!entry || entry.until <= now) {
      table.delete(key)
      if (table.size >= capacity) table.delete(table.keys().next().value as string)
      entry = { failures: 0, until: now + windowMs }
      table.set(key, entry)
    }
    entry.failures += 1
    return entry.failures > allowed ? entry.until - now : undefined
  }
}
