/**
 * The journal: what went wrong, since when, what was so before, and what else happened then.
 *
 * Read off the log, kept as episodes: one from the first failure to the next success. While nothing
 * fails nothing is written; what is written when something does is bounded by `journal-file.ts`.
 * An episode has the fields below and no other, so a secret has no field to travel in.
 */
import type { Clock } from '@certvend/client'
import { ownAddresses } from './addresses.ts'
import type { Journal } from './journal-file.ts'
import type { Log, LogEvent, LoggedFailure } from './log.ts'
import { duration } from './wording.ts'

/** Something that happened when an episode began, and may be why. */
export interface Coincidence {
  readonly what: 'clock' | 'network' | 'version' | 'start'
  /** A clause: "the clock jumped by 2 h". */
  readonly words: string
}

/** Instants are ISO 8601, by this device's clock as it was. */
export interface Episode {
  readonly began: string
  /** Of the latest failure. */
  readonly last: string
  /** When it worked again; absent while it does not. */
  readonly ended?: string
  readonly attempts: number
  /** Of the latest failure. */
  readonly code: string
  readonly remedy: string
  readonly message: string
  readonly hint: string
  /** The codes of earlier failures of this episode, where they differ. */
  readonly before: readonly string[]
  /** From when to when it had worked, where this agent has seen it. */
  readonly worked?: { readonly since: string; readonly until: string }
  /** Of the agent. */
  readonly version: string
  readonly coincidences: readonly Coincidence[]
}

export interface Recorder {
  /** To be given every event. */
  readonly log: Log
  /** To be called now and then while nothing happens: how a jump of the clock is dated. */
  look(): void
  episodes(): readonly Episode[]
}

export interface RecorderOptions {
  readonly clock: Clock
  /** In milliseconds, from whenever; never set. */
  readonly monotonicMs: () => number
  readonly version: string
  readonly installedAt: Date
  /** When the credential in use was issued: a version that came before it is none that was upgraded to. */
  readonly issuedAt?: Date
  /** When the machine started. */
  readonly bootedAt: Date
  readonly addresses?: () => readonly string[] | undefined
}

/** A smaller difference between the clocks is drift, in milliseconds. */
const jumpMs = 30_000
/** What happened within this time before a failure may be its reason, in milliseconds. */
const recentMs = 15 * 60_000
const recentInstallMs = 24 * 3600_000
const mostCodes = 8

/** @param journal where episodes are kept; `journal-file.ts` */
export function openRecorder(journal: Journal, options: RecorderOptions): Recorder {
  const { clock, monotonicMs, version, installedAt, issuedAt, bootedAt } = options
  const { addresses = ownAddresses } = options
  const started = clock.now()
  let offsetMs = started.getTime() - monotonicMs()
  let jump: { byMs: number; monotonic: number } | undefined
  let worked: { since: string; until?: string } | undefined
  let addressesThen: readonly string[] | undefined
  let open: Episode | undefined
  let written = false
  let connected = false

  function look(): void {
    const monotonic = monotonicMs()
    const offset = clock.now().getTime() - monotonic
    if (Math.abs(offset - offsetMs) >= jumpMs) jump = { byMs: offset - offsetMs, monotonic }
    offsetMs = offset
  }

  function coincidences(now: Date): Coincidence[] {
    const all: Coincidence[] = []
    if (jump && monotonicMs() - jump.monotonic < recentMs)
      all.push({
        what: 'clock',
        words: `the clock jumped ${jump.byMs < 0 ? 'back' : 'ahead'} by ${duration(Math.abs(jump.byMs))}, or the machine slept`,
      })
    const addressesNow = addresses()
    if (addressesThen && addressesNow && String(addressesThen) !== String(addressesNow))
      all.push({
        what: 'network',
        words: `the network changed from ${list(addressesThen)} to ${list(addressesNow)}`,
      })
    const sinceInstall = now.getTime() - installedAt.getTime()
    const upgraded = issuedAt !== undefined && issuedAt < installedAt && installedAt <= started
    if (upgraded && sinceInstall >= 0 && sinceInstall < recentInstallMs)
      all.push({
        what: 'version',
        words: `version ${version} was installed ${duration(sinceInstall)} before`,
      })
    if (!worked) {
      const sinceBoot = started.getTime() - bootedAt.getTime()
      const what = sinceBoot >= 0 && sinceBoot < recentMs ? 'machine' : 'agent'
      all.push({ what: 'start', words: `the ${what} had just started` })
    }
    return all
  }

  function failed({ code, remedy, message, hint }: LoggedFailure): void {
    const at = clock.now()
    const another = open !== undefined && open.code !== code
    const latest = { last: at.toISOString(), code, remedy, message, hint }
    if (!open) {
      const until = worked?.until ?? at.toISOString()
      open = {
        began: at.toISOString(),
        ...latest,
        attempts: 1,
        before: [],
        ...(worked ? { worked: { since: worked.since, until } } : {}),
        version,
        coincidences: coincidences(at),
      }
      written = false
      // What passes at the next attempt is not worth a write; what waits for a person is.
      if (remedy === 'retry') {
        journal.hold(open)
        return
      }
    } else {
      const before = another ? [...new Set([...open.before, open.code])] : open.before
      open = { ...open, ...latest, attempts: open.attempts + 1, before: before.slice(-mostCodes) }
    }
    written = journal.put(open, { urgent: another || !written }) || written
  }

  function succeeded(): void {
    worked = { since: clock.now().toISOString() }
    addressesThen = addresses()
    if (!open) return
    const over = { ...open, ended: clock.now().toISOString() }
    if (written) journal.put(over, { urgent: true })
    else journal.hold(over)
    open = undefined
    written = false
  }

  function take(event: LogEvent): void {
    switch (event.event) {
      case 'session.open':
        connected = true
        succeeded()
        break
      case 'session.closed':
        connected = false
        break
      case 'session.lost':
        connected = false
        if (worked) worked.until ??= clock.now().toISOString()
        failed(event)
        break
      case 'session.retry':
        failed(event)
        break
      // Another certificate may be asked for while the present one is online; that is no outage.
      case 'enroll.retry':
      case 'store.unwritable':
        if (!connected) failed(event)
        break
      case 'claim.unusable':
        if (connected) break
        failed({
          code: 'ERR_CONFIGURATION',
          remedy: 'operator',
          message: event.message,
          hint: 'certvend config check says more',
        })
        break
      case 'agent.stop':
        if (open && !written) journal.put(open, { urgent: true })
        break
      default:
    }
  }

  return {
    look,
    log(event) {
      look()
      take(event)
    },
    episodes: () => journal.episodes(),
  }
}

const list = (addresses: readonly string[]): string => addresses.join(', ') || 'no address'
