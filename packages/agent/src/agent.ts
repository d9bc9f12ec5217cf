/**
 * The daemon: gather facts, decide, act, wait, repeat.
 *
 * It never ends over anything remote. A refusal is logged and asked again slowly; being offline is
 * the normal case. What ends it is its signal, or at the start something wrong on this machine.
 */
import {
  type CertvendError,
  type Clock,
  type CredentialStore,
  enroll,
  isCertvendError,
  type Send,
  systemClock,
  type Transport,
  type VendingServer,
} from '@certvend/client'
import type { MqttSettings } from './config.ts'
import { type Connection, keepConnection } from './connection.ts'
import { type Renew, watchRenewal } from './due.ts'
import type { Enrollment } from './enrollment.ts'
import { cutShort, type Errands, openErrands } from './errands.ts'
import { isConfigurationError } from './failure.ts'
import { forget } from './forget.ts'
import { againAt, decide, type Facts, type FailedAttempt, failedAttempt } from './lifecycle.ts'
import { type Log, loggedFailure, loggedWait } from './log.ts'
import { renew } from './renewal.ts'
import { describeCredential } from './status.ts'
import { waitingSuccessor } from './succession.ts'

export interface AgentOptions {
  readonly store: CredentialStore
  /** What asking for a certificate takes, read anew each time; throws a configuration error. */
  readonly enrollment: (token?: string) => Enrollment
  /** As much of it as takes no claim. Default: that of `enrollment`. */
  readonly vendingServer?: () => VendingServer
  /** Whether it renews by itself, read anew each time. Default: `automatically`. */
  readonly renew?: () => Renew
  readonly signal: AbortSignal
  readonly log: Log
  readonly mqtt?: MqttSettings
  /** What people ask for while it runs. Default: nobody does. */
  readonly errands?: Errands
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

/**
 * Runs until `signal` aborts, holding the store's lock all the while. Resolves within two seconds of
 * the abort, whatever it was doing.
 *
 * @throws {CertvendError} `ERR_STORE_LOCKED`; `ERR_STORE_UNWRITABLE` when no credential is stored; or a
 *   configuration error when there is none and what asking takes cannot be used at the start.
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { store, signal, log, clock = systemClock, random = Math.random } = options
  const { errands = openErrands() } = options
  const over = new AbortController()
  const stop = (): void => {
    over.abort(signal.reason)
    errands.ring()
  }
  signal.addEventListener('abort', stop, { once: true })
  if (signal.aborted) stop()
  const { vendingServer = () => options.enrollment().server } = options
  const inHand = { ...options, vendingServer, clock, random, signal: over.signal }
  const ways = {
    get renew() {
      return options.renew?.() ?? 'automatically'
    },
    vendingServer,
  }
  const renewals = watchRenewal({ ...inHand, ways })
  const unasked: Log = (event) => {
    if (event.event !== 'renew.failed') log(event) // `renew.retry` says it
  }
  let connection: Connection | undefined
  try {
    let turn: Facts['turn'] = 'first'
    let failed: FailedAttempt | undefined
    let complaint = ''
    let waitedMs = 0
    let forgotten = false
    const connect = (first: 'successor' | 'in-use'): Connection =>
      keepConnection(store, { ...inHand, first, before: connection?.unproven(), onEnded: stop })
    const showSuccessor = async (): Promise<Connection> => {
      await connection?.leave()
      connection = connect('successor')
      return connection
    }
    const prove = async () => (await showSuccessor()).verdict
    while (!over.signal.aborted) {
      options.onTurn?.(waitedMs)
      waitedMs = 0
      const errand = errands.next()
      const claim = forgotten ? ({ state: 'ready' } as const) : readClaim(options)
      const unproven = connection?.unproven()
      const inUse = store.current()
      const renewal = inUse && connection && !options.once ? renewals.look(inUse) : undefined
      const decision = decide({
        now: clock.now(),
        turn,
        credential: inUse ? 'held' : 'none',
        claim: claim.state,
        connection: connection ? 'kept' : 'none',
        forgotten,
        ...(failed ? { failed } : {}),
        ...(errand ? { asked: errand.do } : {}),
        ...(waitingSuccessor(store) ? { successor: 'waiting' } : {}),
        ...(unproven ? { unproven } : {}),
        ...(renewal ? { renewal } : {}),
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
      const settle = (action: () => Promise<unknown>): Promise<void> =>
        errands.settle(() =>
          action().catch((error: unknown) => {
            throw over.signal.aborted ? cutShort() : error
          }),
        )
      switch (decision.do) {
        case 'enroll':
          if (errand?.do === 'enroll')
            await settle(async () => {
              forgotten = false
              if (!store.current()) {
                const decided = { ...inHand, again: errand.again ?? false }
                const attempted = await attempt(options.enrollment(errand.token), decided, failed)
                failed = attempted?.failed
                if (attempted) throw attempted.error
              }
              const stored = store.current()
              return stored && describeCredential(stored)
            })
          else if (claim.state === 'ready' && claim.enrollment)
            failed = (await attempt(claim.enrollment, inHand, failed))?.failed
          break
        case 'connect':
          connection = connect('successor')
          break
        case 'prove':
          await showSuccessor()
          break
        case 'renew':
          if (errand?.do === 'renew')
            await settle(async () => describeCredential(await renew(errand, { ...inHand, prove })))
          else if (inUse)
            await renew(
              { do: 'renew', by: 'credential' },
              { ...inHand, log: unasked, prove },
            ).catch((error: unknown) => {
              if (!over.signal.aborted) renewals.failed(inUse, error)
            })
          break
        case 'forget':
          await settle(async () => {
            const leaving = connection
            connection = undefined
            const done = await forget(store, {
              ...inHand,
              leave: () => leaving?.leave('forgotten'),
            })
            forgotten = true
            failed = undefined
            return done
          })
          break
        case 'wait': {
          waitedMs = Math.min(decision.forMs, options.turnEveryMs ?? decision.forMs)
          const bell = errands.bell() // one for all: composed signals of each turn would pile up
          await clock.wait(waitedMs, bell).catch((error) => {
            if (!bell.aborted) throw error
          })
          break
        }
        case 'stop':
          return
      }
    }
    await connection?.ended()
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
    // A disk gone read-only does not take a gateway offline that has its credential. But what is
    // another user's, who may be running, too, is not ours to go online with.
    const isDisk = isCertvendError(error, 'ERR_STORE_UNWRITABLE') && error.cause !== undefined
    if (!isDisk || !store.current()) throw error
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

/** What an attempt to enroll came to nothing by. */
interface Attempted {
  readonly failed?: FailedAttempt
  readonly error: CertvendError
}

/** One attempt to enroll; nothing when it succeeded. */
async function attempt(
  { server, claim }: Enrollment,
  options: AgentOptions & {
    readonly clock: Clock
    readonly random: () => number
    readonly again?: boolean
  },
  earlier: FailedAttempt | undefined,
): Promise<Attempted | undefined> {
  const { store, signal, log, clock, random } = options
  if (server.url.protocol === 'http:') log({ event: 'server.plain', host: server.url.host })
  try {
    await enroll(store, server, claim, {
      signal,
      clock,
      again: options.again ?? false,
      log: (event) => {
        if (event.event !== 'enroll.retry') log(event)
      },
      ...(options.deadlineMs === undefined ? {} : { deadlineMs: options.deadlineMs }),
      ...(options.send ? { send: options.send } : {}),
    })
    return undefined
  } catch (error) {
    if (signal.aborted) return { ...(earlier ? { failed: earlier } : {}), error: cutShort() }
    if (!isCertvendError(error)) throw error
    const at = clock.now()
    const failed = failedAttempt(error, { at, draw: random() }, earlier)
    const waitMs = againAt(failed).getTime() - at.getTime()
    log({ event: 'enroll.retry', ...loggedFailure(error), ...loggedWait(waitMs) })
    return { failed, error }
  }
}
