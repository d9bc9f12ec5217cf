/**
 * The daemon: gather facts, decide, act, wait, repeat.
 *
 * It never ends over anything remote. A refusal is logged and asked again slowly; being offline is
 * the normal case. What ends it is its signal, or at the start something wrong on this machine.
 */
import {
  type Clock,
  type CredentialStore,
  enroll,
  isCertvendError,
  type Send,
  systemClock,
  type Transport,
} from '@certvend/client'
import type { MqttSettings } from './config.ts'
import type { Enrollment } from './enrollment.ts'
import { isConfigurationError } from './failure.ts'
import { againAt, decide, type Facts, type FailedAttempt } from './lifecycle.ts'
import { type Log, loggedFailure, loggedWait } from './log.ts'
import { keepOnline } from './online.ts'
import { destroyOwnCopy } from './token.ts'

export interface AgentOptions {
  readonly store: CredentialStore
  /** What asking for a certificate takes, read anew each time; throws a configuration error. */
  readonly enrollment: () => Enrollment
  readonly signal: AbortSignal
  readonly log: Log
  readonly mqtt?: MqttSettings
  /** Return after the first acknowledged publish. Default false: for ever. */
  readonly once?: boolean
  readonly clock?: Clock
  /** Uniform in [0, 1). Default `Math.random`. */
  readonly random?: () => number
  /** For one exchange with the vending server, in milliseconds. Default 30 000. */
  readonly deadlineMs?: number
  /** Called once the store's lock is ours. */
  readonly onHeld?: () => Promise<void>
  /** Called at each turn of the loop, with the time waited since the last, in milliseconds. */
  readonly onTurn?: (waitedMs: number) => void
  /** Longest time between two turns, in milliseconds. Default 5 min. */
  readonly turnEveryMs?: number
  readonly send?: Send
  readonly transport?: Transport
}

/** A session that cannot be closed in order is left behind after this, in milliseconds. */
const leaveWithinMs = 1200

/**
 * Runs until `signal` aborts, holding the store's lock all the while. Resolves within two seconds of
 * the abort, whatever it was doing.
 *
 * @throws {CertvendError} `ERR_STORE_LOCKED`; `ERR_STORE_UNWRITABLE` when no credential is stored; or a
 *   configuration error when there is none and what asking takes cannot be used at the start.
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { store, signal, log, clock = systemClock, random = Math.random } = options
  const over = new AbortController()
  const stop = (): void => over.abort(signal.reason)
  signal.addEventListener('abort', stop, { once: true })
  if (signal.aborted) stop()
  let keeping: Promise<void> | undefined
  try {
    let turn: Facts['turn'] = 'first'
    let failed: FailedAttempt | undefined
    let complaint = ''
    let waitedMs = 0
    while (!over.signal.aborted) {
      options.onTurn?.(waitedMs)
      waitedMs = 0
      const claim = readClaim(options)
      const decision = decide({
        now: clock.now(),
        turn,
        credential: store.current() ? 'held' : 'none',
        claim: claim.state,
        connection: keeping ? 'kept' : 'none',
        ...(failed ? { failed } : {}),
      })
      if (claim.state === 'unusable' && decision.do === 'stop') throw claim.error
      if (turn === 'first') {
        // Only now, so that a refusal leaves nothing behind; and the store may have changed meanwhile.
        hold(store, log)
        await options.onHeld?.()
        turn = 'later'
        continue
      }
      if (claim.state === 'unusable' && claim.error.message !== complaint)
        log({ event: 'claim.unusable', message: claim.error.message })
      complaint = claim.state === 'unusable' ? claim.error.message : ''
      switch (decision.do) {
        case 'enroll':
          if (claim.state === 'ready' && claim.enrollment)
            failed = await attempt(claim.enrollment, { ...options, signal: over.signal }, failed)
          break
        case 'connect':
          keeping = keepOnline(store, {
            signal: over.signal,
            log,
            clock,
            random,
            mqtt: options.mqtt ?? {},
            once: options.once ?? false,
            onProven: () => destroyOwnCopy(store.directory, log),
            ...(options.transport ? { transport: options.transport } : {}),
          })
          // However it ends, so does the loop; what it failed with is thrown below.
          keeping.then(stop, stop)
          break
        case 'wait':
          waitedMs = Math.min(decision.forMs, options.turnEveryMs ?? decision.forMs)
          await clock.wait(waitedMs, over.signal).catch((error) => {
            if (!over.signal.aborted) throw error
          })
          break
        case 'stop':
          return
      }
    }
    await within(leaveWithinMs, clock, keeping)
  } finally {
    stop()
    signal.removeEventListener('abort', stop)
    store.close()
  }
}

/** Takes the store's lock, and says what was found. */
function hold(store: CredentialStore, log: Log): void {
  try {
    store.lock()
  } catch (error) {
    // A disk gone read-only does not take a gateway offline that has its credential.
    if (!isCertvendError(error, 'ERR_STORE_UNWRITABLE') || !store.current()) throw error
    log({ event: 'store.unwritable', ...loggedFailure(error) })
  }
  for (const message of store.mended) log({ event: 'store.mended', message })
  const current = store.current()
  if (!current) return
  const { deviceSerial, thingName, certificateId, notAfter } = current
  log({ event: 'credential.found', deviceSerial, thingName, certificateId, notAfter })
}

type ClaimFact =
  | { readonly state: 'ready'; readonly enrollment?: Enrollment }
  | { readonly state: 'unusable'; readonly error: Error }

function readClaim({ store, enrollment }: AgentOptions): ClaimFact {
  if (store.current()) return { state: 'ready' }
  try {
    return { state: 'ready', enrollment: enrollment() }
  } catch (error) {
    if (!isConfigurationError(error)) throw error
    return { state: 'unusable', error }
  }
}

/** One attempt to enroll; what it came to nothing by, or nothing. */
async function attempt(
  { server, claim }: Enrollment,
  options: AgentOptions,
  earlier: FailedAttempt | undefined,
): Promise<FailedAttempt | undefined> {
  const { store, signal, log, clock = systemClock, random = Math.random } = options
  if (server.url.protocol === 'http:') log({ event: 'server.plain', host: server.url.host })
  try {
    await enroll(store, server, claim, {
      signal,
      clock,
      log: (event) => {
        if (event.event !== 'enroll.retry') log(event)
      },
      ...(options.deadlineMs === undefined ? {} : { deadlineMs: options.deadlineMs }),
      ...(options.send ? { send: options.send } : {}),
    })
    return undefined
  } catch (error) {
    if (signal.aborted) return earlier
    if (!isCertvendError(error)) throw error
    const at = clock.now()
    const failed: FailedAttempt = {
      remedy: error.remedy,
      at,
      inARow: (earlier?.inARow ?? 0) + 1,
      draw: random(),
      ...(error.retryAt ? { retryAt: error.retryAt } : {}),
    }
    const waitMs = againAt(failed).getTime() - at.getTime()
    log({ event: 'enroll.retry', ...loggedFailure(error), ...loggedWait(waitMs) })
    return failed
  }
}

/** Settles as `promise` does, or resolves when it takes longer than `ms`. */
async function within(ms: number, clock: Clock, promise?: Promise<void>): Promise<void> {
  const settled = new AbortController()
  const limit = clock.wait(ms, settled.signal).catch(() => {})
  try {
    await Promise.race([promise, limit])
  } finally {
    settled.abort()
  }
}
