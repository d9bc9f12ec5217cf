/**
 * Sessions: one MQTT connection made with one credential, and the loop that keeps one open.
 *
 * `connect` attempts once. `stayConnected` owns the back-off: spread after losing an established
 * session, so that a fleet does not return in one second, then full jitter doubling to a cap.
 */
import { type Clock, systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { CertvendError } from './errors.ts'
import { type Backoff, fullJitter } from './retry.ts'

/** Delivery guarantee; IoT Core has no 2. */
export type Qos = 0 | 1

export interface Message {
  readonly topic: string
  readonly payload: Uint8Array
  readonly qos: Qos
  readonly retain: boolean
}

export interface PublishOptions {
  /** Default 1: settles when the server acknowledged. */
  readonly qos?: Qos
  readonly retain?: boolean
  readonly signal?: AbortSignal
}

/** How a session came to its end. */
export type SessionEnd =
  /** `close` was called, or the signal aborted. */
  | { readonly reason: 'closed' }
  /** The server or the network ended it; MQTT 5 servers may have said why. */
  | { readonly reason: 'lost'; readonly error: CertvendError }

/** One MQTT connection. Nothing of it reconnects. */
export interface Session {
  readonly thingName: string
  /** Whether the server still held this client's subscriptions and messages. */
  readonly sessionPresent: boolean
  /**
   * Resolves when the server has acknowledged (QoS 1) or the bytes are handed over (QoS 0).
   *
   * @throws {CertvendError} `ERR_SESSION_LOST` when the session ended first, `ERR_REQUEST_REFUSED`
   *   when the server refused; or the signal's reason
   */
  publish(topic: string, payload: string | Uint8Array, options?: PublishOptions): Promise<void>
  /**
   * Subscribes and yields what arrives, in order, until the session ends or the loop is left.
   * A slow consumer slows the server: nothing is read ahead of a full queue.
   */
  subscribe(filter: string, options?: { readonly qos?: Qos }): Promise<AsyncIterable<Message>>
  /** Resolves once, whatever the end. */
  readonly ended: Promise<SessionEnd>
  /** Says DISCONNECT, so that no will is published, and closes. */
  close(): Promise<void>
}

/** What the server publishes for us when we vanish (MQTT 3.1.1 section 3.1.2.5). */
export interface Will {
  readonly topic: string
  readonly payload: string
  readonly qos?: Qos
  readonly retain?: boolean
}

export interface SessionOptions {
  readonly signal?: AbortSignal
  /** From opening the socket to CONNACK, in milliseconds. Default 30 000. */
  readonly deadlineMs?: number
  /** In seconds, 30 to 1200 on IoT Core. Default 60. */
  readonly keepAliveSeconds?: number
  /** Forget the server's side of earlier sessions. Default true. */
  readonly clean?: boolean
  readonly will?: Will
  /** Default `3.1.1`, which every broker speaks. */
  readonly protocol?: '3.1.1' | '5'
  readonly clock?: Clock
  /** Default: MQTT.js, loaded when first used. */
  readonly transport?: Transport
}

/** Opens one session; `mqtt.ts` is the default. */
export type Transport = (credential: Credential, options: SessionOptions) => Promise<Session>

/**
 * Opens one session, attempting once.
 *
 * @throws {CertvendError} `ERR_NETWORK`, `ERR_TIMEOUT`, `ERR_CLOCK`, `ERR_SERVER_UNTRUSTED`,
 *   `ERR_CREDENTIAL_EXPIRED`, `ERR_CREDENTIAL_REFUSED`, `ERR_SESSION_REFUSED`; or the signal's reason
 */
export async function connect(
  credential: Credential,
  options: SessionOptions = {},
): Promise<Session> {
  options.signal?.throwIfAborted()
  const transport = options.transport ?? (await import('./mqtt.ts')).openSession
  return transport(credential, options)
}

export interface StayOptions extends SessionOptions {
  /** Waits between failed attempts. Default 1 s doubling to 5 min. */
  readonly backoff?: Backoff
  /** Upper bound of the first wait after losing an established session, in milliseconds. Default 15 000. */
  readonly spreadMs?: number
  /** Uniform in [0, 1). Default `Math.random`. */
  readonly random?: () => number
  /** Told before each wait. */
  readonly onRetry?: (retry: { error: CertvendError; waitMs: number }) => void
}

/** A connection that lasted this long, in milliseconds, proves that the door is open again. */
const lastedMs = 60_000

/**
 * Sessions one after another, for ever: yields each as it opens, and opens the next when it ended.
 * Leaving the loop closes the session in hand; so does the signal, which then ends the loop.
 *
 * Nothing is given up, whatever the error: it is told to `onRetry`, and asked again more slowly.
 *
 * @param source a store, read anew before each attempt, or one credential.
 */
export async function* stayConnected(
  source: { current(): Credential | undefined } | Credential,
  options: StayOptions = {},
): AsyncGenerator<Session, void, void> {
  const { clock = systemClock, random = Math.random, signal, spreadMs = 15_000 } = options
  const backoff = options.backoff ?? { baseMs: 1000, capMs: 5 * 60_000 }
  let failures = 0
  while (!signal?.aborted) {
    let failure: CertvendError
    let waitMs: number
    try {
      const session = await connect(credentialOf(source), options)
      const opened = clock.now().getTime()
      let end: SessionEnd
      try {
        yield session
        end = await session.ended
      } finally {
        await session.close()
      }
      if (end.reason === 'closed') return
      failure = end.error
      const lasted = clock.now().getTime() - opened >= lastedMs
      // One that is thrown out at once, again and again, is not established: keep doubling.
      failures = lasted ? 0 : failures + 1
      waitMs = Math.max(random() * spreadMs, lasted ? 0 : fullJitter(failures, backoff, random))
    } catch (error) {
      if (signal?.aborted) return
      if (!(error instanceof CertvendError)) throw error
      failure = error
      waitMs = fullJitter(failures++, backoff, random)
    }
    options.onRetry?.({ error: failure, waitMs })
    await clock.wait(waitMs, signal).catch((error) => {
      if (!signal?.aborted) throw error
    })
  }
}

function credentialOf(source: { current(): Credential | undefined } | Credential): Credential {
  const credential = 'current' in source ? source.current() : source
  if (!credential) throw new TypeError('the store holds no credential; call ensureCredential first')
  return credential
}
