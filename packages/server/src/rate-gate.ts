/**
 * The rate gate: a place in the queue for every piece of work that spends a quota, and an honest
 * answer to whoever has to come back.
 *
 * A quota is a number of calls per second, and AWS IoT has one for each operation, per account and
 * region. Work names what it spends of each. It gets the earliest instant at which all of them have
 * room: its slot. A slot that is near is waited for; a slot that is far is *reserved* under the
 * caller's key, and the caller is told how long to stay away. Who comes back at its time goes
 * before any newcomer, so nobody starves and a herd asks twice per device and not a hundred times.
 * Who comes too early is told what is left of the same wait; who comes much too late has lost its
 * slot and gets another. Callers are never punctual to the millisecond, so those who come back in one
 * moment are set apart once more: a quota is not exceeded, whoever comes when.
 *
 * In memory, for one process; several processes on one account each take a share of its quotas. No
 * I/O, no timers: the clock is an argument.
 */
import { minute, second } from './clock.ts'

/** Calls per second, by operation. */
export type Rates = Readonly<Record<string, number>>
/** Calls that a piece of work makes, by operation. An operation without a rate is not limited. */
export type Costs = Readonly<Record<string, number>>

export type Turn =
  /** Go, after `waitMs` milliseconds (0: now). */
  | { readonly admitted: true; readonly waitMs: number }
  /** Come back in `retryAfterMs` milliseconds: a slot is reserved then. */
  | { readonly admitted: false; readonly retryAfterMs: number }

export interface RateGateOptions {
  readonly rates: Rates
  /** Longest wait inside one request, in milliseconds; 5 seconds by default. */
  readonly patienceMs?: number
  /** How late a reserved slot may be used, in milliseconds; one minute by default. */
  readonly graceMs?: number
  /** Slots that are remembered; 100 000 by default. Past that, callers are told to wait without one. */
  readonly capacity?: number
}

/** One quota or several, and the queue before them. */
export interface RateGate {
  /** Takes a slot for `key`'s work, or the one that was reserved for it. */
  ask(key: string, costs: Costs, now: Date): Turn
  /** Takes the next slot, however far it is, for work that can wait. @returns milliseconds until then */
  take(costs: Costs, now: Date): number
  /** AWS said that there is no room all the same: somebody else uses the quota. Holds it for a second. */
  throttled(operation: string, now: Date): void
  /** Slots that are reserved now. */
  readonly reserved: number
}

/** @throws RangeError if a rate is not above 0 */
export function createRateGate(options: RateGateOptions): RateGate {
  const { rates, patienceMs = 5 * second, graceMs = minute, capacity = 100_000 } = options
  for (const [operation, rate] of Object.entries(rates))
    if (!(rate > 0)) throw new RangeError(`the rate of ${operation} must be above 0`)
  /** When each quota has room for another slot, and for another start. */
  const booked = new Map<string, number>()
  const started = new Map<string, number>()
  /** Reserved slots by key, about in the order of their instants. */
  const slots = new Map<string, number>()

  const spent = (costs: Costs): readonly (readonly [operation: string, ms: number])[] =>
    Object.entries(costs)
      .filter(([operation, calls]) => calls > 0 && rates[operation] !== undefined)
      .map(([operation, calls]) => [operation, (calls * 1000) / rates[operation]!])

  const earliest = (room: ReadonlyMap<string, number>, costs: Costs, from: number): number =>
    Math.max(from, ...spent(costs).map(([operation]) => room.get(operation) ?? 0))

  function occupy(room: Map<string, number>, costs: Costs, instant: number): void {
    for (const [operation, ms] of spent(costs))
      room.set(operation, Math.max(room.get(operation) ?? 0, instant) + ms)
  }

  /** Slots are handed out in order, so those whose time is over stand in front. */
  function forget(now: number): void {
    for (const [key, slot] of slots) {
      if (slot + graceMs >= now) return
      slots.delete(key)
    }
  }

  return {
    ask(key, costs, at) {
      const now = at.getTime()
      forget(now)
      const reserved = slots.get(key)
      const slot = reserved ?? earliest(booked, costs, now)
      const start = earliest(started, costs, Math.max(slot, now))
      const isNear = start - now <= patienceMs
      if (reserved === undefined && (isNear || slots.size < capacity)) occupy(booked, costs, slot)
      slots.delete(key)
      if (isNear) {
        occupy(started, costs, start)
        return { admitted: true, waitMs: start - now }
      }
      if (slots.size < capacity) slots.set(key, start)
      return { admitted: false, retryAfterMs: start - now }
    },
    take(costs, at) {
      const slot = earliest(booked, costs, at.getTime())
      const start = earliest(started, costs, slot)
      occupy(booked, costs, slot)
      occupy(started, costs, start)
      return start - at.getTime()
    },
    throttled(operation, at) {
      for (const room of [booked, started])
        room.set(operation, Math.max(room.get(operation) ?? 0, at.getTime()) + second)
    },
    get reserved() {
      return slots.size
    },
  }
}
