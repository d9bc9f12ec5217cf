/** Keeps sessions open, one after another, says so, and takes leave when told to stop. */
import {
  type CertvendError,
  type Clock,
  type CredentialStore,
  isCertvendError,
  type Session,
  stayConnected,
  type Transport,
} from '@certvend/client'
import type { MqttSettings } from './config.ts'
import { beat } from './heartbeat.ts'
import { type Log, loggedFailure, loggedWait } from './log.ts'
import { type Presence, presenceOf } from './presence.ts'
import { watchSuccession } from './succession.ts'

export interface OnlineOptions {
  readonly signal: AbortSignal
  readonly log: Log
  readonly clock: Clock
  readonly random: () => number
  readonly mqtt: MqttSettings
  /** Return after the first acknowledged publish, or the first session where nothing is published. */
  readonly once: boolean
  /** Told of each session that opens: the credential is good. */
  readonly onProven?: () => void
  /** Whose turn it is at first, where a successor waits for its proof. Default: the successor's. */
  readonly first?: 'successor' | 'in-use'
  /** Told what became of a successor's turn. */
  readonly onVerdict?: (failure: CertvendError | undefined) => void
  /** Asked when leaving: whether this credential is given up for good. */
  readonly isForgotten?: () => boolean
  readonly transport?: Transport
}

/** For the farewell to be acknowledged, in milliseconds. */
const farewellMs = 500

/**
 * Resolves when the signal aborted, or, with `once`, when done. Rejects only over a defect.
 *
 * @param store must hold a credential.
 */
export async function keepOnline(store: CredentialStore, options: OnlineOptions): Promise<void> {
  const { signal, log, clock, random, mqtt, once, transport } = options
  const { first = 'successor', onVerdict } = options
  const succession = watchSuccession(store, { first, log, ...(onVerdict ? { onVerdict } : {}) })
  const presence = presenceOf(succession.current()?.thingName ?? '', mqtt)
  // Aborting this closes a session at once; `signal` itself must leave time for a farewell.
  const inner = new AbortController()
  let session: Session | undefined
  const onStop = (): void => {
    if (!session) inner.abort(signal.reason)
  }
  signal.addEventListener('abort', onStop, { once: true })
  if (signal.aborted) onStop()
  try {
    const sessions = stayConnected(succession, {
      signal: inner.signal,
      clock,
      random,
      ...(mqtt.keepAliveSeconds === undefined ? {} : { keepAliveSeconds: mqtt.keepAliveSeconds }),
      ...(presence ? { will: presence.will } : {}),
      ...(transport ? { transport } : {}),
      onRetry({ error, waitMs }) {
        const event = session ? 'session.lost' : 'session.retry'
        if (!session) succession.failed(error)
        session = undefined
        log({ event, ...loggedFailure(error), ...loggedWait(waitMs) })
        if (signal.aborted) onStop()
      },
    })
    let announcing: Promise<boolean> | undefined
    for await (const opened of sessions) {
      session = opened
      succession.opened()
      const { host, port } = store.current()?.endpoint ?? { host: '', port: 0 }
      log({ event: 'session.open', thingName: opened.thingName, host, port })
      options.onProven?.()
      // One that is still on its way is sent again by the new session, and says the same.
      announcing ??= announce(opened, presence, options).finally(() => {
        announcing = undefined
      })
      const over = new AbortController()
      const ended = opened.ended.then(() => {
        over.abort()
        return false
      })
      const beating = beat(opened, store.current(), {
        mqtt,
        clock,
        log,
        stateDirectory: store.directory,
        signal: over.signal,
      }).then(() => ended) // a defect of it is seen
      const enough = Promise.race([
        ended,
        beating,
        once ? announcing : announcing.then(() => ended),
      ])
      const done = await unlessAborted(enough, signal)
      if (done === false) continue
      await takeLeave(opened, presence, options)
      break
    }
    if (session) log({ event: 'session.closed' })
  } finally {
    signal.removeEventListener('abort', onStop)
  }
}

/** Resolves true when the server has acknowledged, or nothing is to be said; false when that is over. */
async function announce(
  session: Session,
  presence: Presence | undefined,
  { log, clock }: OnlineOptions,
): Promise<boolean> {
  if (!presence) return true
  const { topic, retain } = presence
  try {
    await session.publish(topic, presence.online(clock.now()), { retain })
    log({ event: 'publish.acknowledged', topic })
    return true
  } catch (error) {
    if (!isCertvendError(error)) throw error
    // A session that ended speaks for itself.
    if (error.code === 'ERR_REQUEST_REFUSED')
      log({ event: 'publish.refused', topic, ...loggedFailure(error) })
    await session.ended
    return false
  }
}

/** A clean DISCONNECT suppresses the will, so we say ourselves that we go; briefly, or not at all. */
async function takeLeave(
  session: Session,
  presence: Presence | undefined,
  { clock, isForgotten }: OnlineOptions,
): Promise<void> {
  if (!presence) return
  const given = new AbortController()
  const enough = new AbortController()
  clock.wait(farewellMs, given.signal).then(
    () => enough.abort(),
    () => {},
  )
  const { topic, offline, forgotten, retain } = presence
  const words = isForgotten?.() ? forgotten : offline
  await session.publish(topic, words, { retain, signal: enough.signal }).catch(() => {})
  given.abort()
}

/** Settles as `promise` does, or with nothing when the signal aborts first. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => resolve(undefined)
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}
