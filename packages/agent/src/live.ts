/**
 * What the daemon is doing now, read off its own log: every event passes through here, so that
 * systemd's status line, `certvend status` and the log cannot disagree.
 */
import type { Clock } from '@certvend/client'
import type { Log, LogEvent, LoggedFailure } from './log.ts'
import { version } from './version.ts'
import { clockTime, day } from './wording.ts'

/** Instants are ISO 8601. */
export interface LiveDocument {
  /** Of the running agent, which an upgrade does not change until it is restarted. */
  readonly version: string
  readonly connection:
    | 'starting'
    | 'enrolling'
    | 'connecting'
    | 'online'
    | 'waiting'
    | 'stopped'
    /** Everything was removed, as somebody asked; nobody is asked for anything. */
    | 'forgotten'
  /** Since when it is online, or is not. */
  readonly since: string
  /** When it will be tried again; only while waiting. */
  readonly nextAt?: string
  /** What is wrong; only while waiting. */
  readonly problem?: LoggedFailure
  /** Renewals that nobody asked for and that came to nothing, in a row; absent while there are none. */
  readonly renewal?: {
    readonly failedInARow: number
    readonly nextAt: string
    readonly problem: LoggedFailure
  }
  /** Sessions opened since the start. */
  readonly sessions: number
  /** Publishes acknowledged since the start: none, with sessions that end, and it is the policy. */
  readonly acknowledged: number
  /** Attempts that came to nothing, in a row. */
  readonly failedInARow: number
}

export interface Live {
  /** To be given every event. */
  readonly log: Log
  document(): LiveDocument
  /** One line for `systemctl status`. */
  inWords(): string
  /** Whether it is known how things stand: online, or knowingly not. */
  settled(): boolean
  /** Tells of time that the loop has waited, in milliseconds. */
  waited(ms: number): void
  /** Whether, with a credential and not online, nothing was heard for longer than any wait lasts. */
  stuck(): boolean
}

/** Three times the longest wait, in milliseconds. */
const stuckAfterMs = 15 * 60_000

/** @param onChange told after each event that changed what {@link Live.inWords} says */
export function watchLive(clock: Clock, onChange: () => void = () => {}): Live {
  let state: LiveDocument = {
    version,
    connection: 'starting',
    since: clock.now().toISOString(),
    sessions: 0,
    acknowledged: 0,
    failedInARow: 0,
  }
  let who = ''
  let validUntil = ''
  let silentMs = 0
  // Without a credential the loop itself waits and asks: that it turns is proof enough.
  let kept = false

  const turn = (
    connection: LiveDocument['connection'],
    more: Partial<LiveDocument> = {},
  ): LiveDocument => {
    const { sessions, acknowledged, failedInARow, renewal } = state
    const known = { version, sessions, acknowledged, failedInARow, ...(renewal && { renewal }) }
    const now = clock.now().toISOString()
    const changed = (connection === 'online') !== (state.connection === 'online')
    const since = changed || connection === 'stopped' ? now : state.since
    return { ...known, connection, since, ...more }
  }

  const renewed = (): LiveDocument => {
    const { renewal: _, ...rest } = state
    return rest
  }

  function take(event: LogEvent): LiveDocument {
    switch (event.event) {
      case 'credential.found':
        validUntil = day(event.notAfter)
        who = event.thingName
        kept = true
        return turn('connecting')
      case 'enroll.request':
        return kept ? state : turn('enrolling')
      case 'enroll.done':
        if (kept) return renewed() // a successor: it is told once it has proven itself
        who = event.thingName
        kept = true
        return turn('connecting', { failedInARow: 0 })
      case 'renew.proven':
        who = event.thingName
        validUntil = day(event.notAfter)
        return state
      case 'renew.retry': {
        const { code, remedy, message, hint, waitMs } = event
        const renewal = {
          failedInARow: (state.renewal?.failedInARow ?? 0) + 1,
          nextAt: new Date(clock.now().getTime() + waitMs).toISOString(),
          problem: { code, remedy, message, hint },
        }
        return { ...state, renewal }
      }
      case 'forget.done':
        state = renewed()
        who = ''
        validUntil = ''
        kept = false
        return turn('forgotten')
      case 'session.open':
        who = event.thingName
        return turn('online', { sessions: state.sessions + 1, failedInARow: 0 })
      case 'session.lost':
      case 'session.retry':
      case 'enroll.retry': {
        const { code, remedy, message, hint, waitMs } = event
        return turn('waiting', {
          nextAt: new Date(clock.now().getTime() + waitMs).toISOString(),
          problem: { code, remedy, message, hint },
          failedInARow: state.failedInARow + 1,
        })
      }
      case 'publish.acknowledged':
        return { ...state, acknowledged: state.acknowledged + 1 }
      case 'claim.unusable':
        return turn('waiting', {
          problem: {
            code: 'ERR_CONFIGURATION',
            remedy: 'operator',
            message: event.message,
            hint: 'certvend config check says more',
          },
        })
      case 'session.closed':
      case 'agent.stop':
        return turn('stopped')
      default:
        return state
    }
  }

  function inWords(): string {
    const { connection, since, nextAt, problem } = state
    switch (connection) {
      case 'starting':
        return 'starting'
      case 'enrolling':
        return 'asking for a certificate'
      case 'connecting':
        return `connecting as ${who}`
      case 'online':
        return `online as ${who} since ${clockTime(since)}${validUntil ? `; certificate valid until ${validUntil}` : ''}`
      case 'waiting': {
        const acting = problem?.remedy === 'operator' ? `; a person must act: ${problem.hint}` : ''
        const again = nextAt ? `; next try at ${clockTime(nextAt)}` : ''
        return `not online: ${problem?.message} (${problem?.code})${again}${acting}`
      }
      case 'stopped':
        return 'stopped'
      case 'forgotten':
        return 'everything was removed, as somebody asked; certvend enroll, or a restart, starts anew'
    }
  }

  return {
    log(event) {
      silentMs = 0
      const before = inWords()
      state = take(event)
      if (inWords() !== before) onChange()
    },
    document: () => state,
    inWords,
    settled: () => /^(online|waiting|forgotten)$/.test(state.connection),
    waited(ms) {
      silentMs += ms
    },
    stuck: () => kept && state.connection !== 'online' && silentMs > stuckAfterMs,
  }
}
