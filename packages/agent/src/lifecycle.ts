/**
 * Facts → one decision. Pure: what is remembered of earlier turns is among the facts, and so is the
 * clock. `agent.ts` gathers, acts, and asks again at least every {@link lookAgainMs}.
 */
import type { Remedy } from '@certvend/client'

/** An attempt to enroll that came to nothing. */
export interface FailedAttempt {
  readonly remedy: Remedy
  readonly at: Date
  /** How many have failed in a row, this one included. */
  readonly inARow: number
  /** The server's word on when to come back. */
  readonly retryAt?: Date
  /** Uniform in [0, 1), drawn once, so that looking again does not move the moment. */
  readonly draw: number
}

export interface Facts {
  readonly now: Date
  /** Whether anything was done since the start. */
  readonly turn: 'first' | 'later'
  readonly credential: 'none' | 'held'
  /** Whether URL, pins, serial and token are at hand; not looked at while a credential is held. */
  readonly claim: 'ready' | 'unusable'
  /** Whether sessions are being kept open in the background. */
  readonly connection: 'none' | 'kept'
  readonly failed?: FailedAttempt
  /** What somebody asks for, at the terminal. */
  readonly asked?: 'enroll' | 'renew' | 'forget'
  /** Whether everything was removed as somebody asked, and nobody has asked for anything since. */
  readonly forgotten?: boolean
  /** A successor that opened no session, while the credential in use does. */
  readonly unproven?: Unproven
}

export interface Unproven {
  readonly at: Date
  /** How often in a row. */
  readonly times: number
}

export type Decision =
  | { readonly do: 'enroll' }
  | { readonly do: 'connect' }
  /** Get a successor, prove it, use it. */
  | { readonly do: 'renew' }
  /** Let the successor that waits try to open a session once more. */
  | { readonly do: 'prove' }
  | { readonly do: 'forget' }
  /** In milliseconds, at most {@link lookAgainMs}. */
  | { readonly do: 'wait'; readonly forMs: number }
  /** Only at the start, and only over what is wrong on this machine. */
  | { readonly do: 'stop' }

/** Longest time between two looks at the facts, in milliseconds. */
export const lookAgainMs: number = 5 * 60_000

export function decide(facts: Facts): Decision {
  const { now, failed, asked, unproven } = facts
  if (asked) return { do: asked }
  if (facts.credential === 'held') {
    if (facts.connection === 'none') return { do: 'connect' }
    return unproven && (now >= proveAgainAt(unproven) || now < unproven.at)
      ? { do: 'prove' }
      : { do: 'wait', forMs: lookAgainMs }
  }
  if (facts.forgotten) return { do: 'wait', forMs: lookAgainMs }
  if (facts.claim === 'unusable')
    return facts.turn === 'first' ? { do: 'stop' } : { do: 'wait', forMs: lookAgainMs }
  const leftMs = failed ? againAt(failed).getTime() - now.getTime() : 0
  // A clock that was set back must not turn a minute into years.
  const clockWentBack = failed !== undefined && now < failed.at
  return leftMs <= 0 || clockWentBack
    ? { do: 'enroll' }
    : { do: 'wait', forMs: Math.min(leftMs, lookAgainMs) }
}

/** Each proof costs the session in use: after an hour, twice as long each time, and daily from then on. */
const proveAgainAt = ({ at, times }: Unproven): Date =>
  new Date(at.getTime() + Math.min(24, 2 ** Math.min(times - 1, 5)) * 60 * 60_000)

/** Upper bounds of the waits, in milliseconds. */
const firstWaitMs = 1000
const longestWaitMs = 5 * 60_000
/** Where a person must act: rarely enough to be no burden, often enough that mending shows soon. */
const slowWaitMs = 5 * 60_000

/**
 * When to ask again: full jitter, from 1 s doubling to 5 min; 5 to 10 min where only a person can
 * help. A refusal may still be a captive portal, a restored backup or a wrong clock, so asking never ends.
 */
export function againAt({ remedy, at, inARow, retryAt, draw }: FailedAttempt): Date {
  const doubled = Math.min(longestWaitMs, firstWaitMs * 2 ** Math.min(inARow - 1, 30))
  const waitMs = remedy === 'retry' ? draw * doubled : slowWaitMs * (1 + draw)
  const own = at.getTime() + waitMs
  if (!retryAt || retryAt <= at) return new Date(own)
  // The server has planned for that moment; a little jitter keeps apart those told the same.
  const asked = retryAt.getTime() + Math.min(waitMs, 1000)
  return new Date(remedy === 'retry' ? asked : Math.max(own, asked))
}
