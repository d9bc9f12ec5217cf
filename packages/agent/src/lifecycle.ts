/**
 * Facts → one decision. Pure: what is remembered of earlier turns is among the facts, and so is the
 * clock. `agent.ts` gathers, acts, and asks again at least every {@link lookAgainMs}.
 */
import type { CertvendError, Remedy } from '@certvend/client'

/** An attempt to enroll, or to renew, that came to nothing. */
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

/** All that a decision is made of. */
/** @param earlier the one before it, if that was of the same thing */
export const failedAttempt = (
  { remedy, retryAt }: CertvendError,
  { at, draw }: Pick<FailedAttempt, 'at' | 'draw'>,
  earlier?: FailedAttempt,
): FailedAttempt => ({
  remedy,
  at,
  inARow: (earlier?.inARow ?? 0) + 1,
  draw,
  ...(retryAt ? { retryAt } : {}),
})

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
  /** Whether another certificate is here already and has yet to open a session. */
  readonly successor?: 'waiting'
  /** A successor that opened no session, while the credential in use does. */
  readonly unproven?: Unproven
  /** Absent where the agent does not renew by itself. */
  readonly renewal?: Renewal
}

/** Of the credential in use. */
export interface Renewal {
  readonly due: Date
  /** When the certificate ends. */
  readonly ends: Date
  /** The last attempt that nobody asked for. */
  readonly failed?: FailedAttempt
}

export interface Unproven {
  readonly at: Date
  /** How often in a row. */
  readonly times: number
}

/** What the agent does next. */
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

/** What these facts call for: the whole policy of the agent. */
export function decide(facts: Facts): Decision {
  const { now, failed, asked, unproven } = facts
  if (asked) return { do: asked }
  if (facts.credential === 'held') {
    if (facts.connection === 'none') return { do: 'connect' }
    const leftMs = facts.renewal
      ? renewAt(facts.renewal, now).getTime() - now.getTime()
      : lookAgainMs
    if (unproven && (now >= proveAgainAt(unproven) || now < unproven.at))
      return { do: leftMs <= 0 && unproven.times >= patientProofs ? 'renew' : 'prove' }
    if (facts.successor) return { do: 'wait', forMs: lookAgainMs }
    return leftMs <= 0 ? { do: 'renew' } : { do: 'wait', forMs: Math.min(leftMs, lookAgainMs) }
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

/**
 * After so many proofs that failed, some three days, a successor that is refused gives way to another: the
 * certificate in use does not last for ever.
 */
const patientProofs = 8

function renewAt({ due, ends, failed }: Renewal, now: Date): Date {
  if (!failed || now < failed.at) return due // or the clock was set back
  const again = renewAgainAt(failed, ends)
  return again > due ? again : due
}

const minuteMs = 60_000
const hourMs = 60 * minuteMs

/**
 * When to ask for a successor again: after 1 to 2 min, doubling to 1 to 2 h; after a refusal 3 to 6 h,
 * doubling to half a day to a day. More often when the end is near, and never twice within a minute.
 */
export function renewAgainAt(failed: FailedAttempt, ends: Date): Date {
  const { remedy, at, inARow, draw } = failed
  const [firstMs, longestMs] =
    remedy === 'retry' ? [minuteMs, hourMs] : ([3 * hourMs, 12 * hourMs] as const)
  const leftMs = ends.getTime() - at.getTime()
  const slowMs = Math.min(longestMs, firstMs * 2 ** Math.min(inARow - 1, 30))
  const waitMs = Math.max(minuteMs, leftMs > 0 ? Math.min(slowMs, leftMs / 8) : slowMs) * (1 + draw)
  return new Date(Math.max(at.getTime() + minuteMs, nextAt(failed, waitMs)))
}

/** Upper bounds of the waits, in milliseconds. */
const firstWaitMs = 1000
const longestWaitMs = 5 * 60_000
/** Where a person must act: rarely enough to be no burden, often enough that mending shows soon. */
const slowWaitMs = 5 * 60_000

/**
 * When to ask again: full jitter, from 1 s doubling to 5 min; 5 to 10 min where only a person can
 * help. A refusal may still be a captive portal, a restored backup or a wrong clock, so asking never ends.
 */
export function againAt(failed: FailedAttempt): Date {
  const { remedy, inARow, draw } = failed
  const doubled = Math.min(longestWaitMs, firstWaitMs * 2 ** Math.min(inARow - 1, 30))
  return new Date(nextAt(failed, remedy === 'retry' ? draw * doubled : slowWaitMs * (1 + draw)))
}

/** After `waitMs`, unless the server has named a moment. */
function nextAt({ remedy, at, retryAt }: FailedAttempt, waitMs: number): number {
  const own = at.getTime() + waitMs
  if (!retryAt || retryAt <= at) return own
  // The server has planned for that moment; a little jitter keeps apart those told the same.
  const asked = retryAt.getTime() + Math.min(waitMs, 1000)
  return remedy === 'retry' ? asked : Math.max(own, asked)
}
