/** The clock border: the only reader of the system clock. Everywhere else a clock is an argument. */

/** Where the present comes from. */
export interface Clock {
  /** The present instant. */
  now(): Date
}

export const systemClock: Clock = { now: () => new Date() }

/** Milliseconds in the units that policies are written in. */
export const second = 1_000
export const minute: number = 60 * second
export const hour: number = 60 * minute
export const day: number = 24 * hour

/** The instant `durationMs` after (or, when negative, before) `instant`. */
export const later = (instant: Date, durationMs: number): Date =>
  new Date(instant.getTime() + durationMs)
