/**
 * Sessions: one MQTT connection made with one credential. `connect` attempts once; the loop around
 * it is in `stay.ts`.
 */
import { carries, readCertificates } from './certificate.ts'
import type { Clock } from './clock.ts'
import type { Credential } from './credential.ts'
import { CertvendError } from './errors.ts'
import type { Outbox } from './outbox.ts'
import type { ProxyOptions } from './proxy.ts'

/** Delivery guarantee; IoT Core has no 2. */
export type Qos = 0 | 1

/** A message that arrived. */
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
   * In a session of `stayConnected` a QoS 1 message outlives the connection: the next session sends
   * it again. Elsewhere the session's end rejects. An abort stops the waiting, not the sending.
   *
   * @throws {CertvendError} `ERR_SESSION_LOST` when the session ended first, `ERR_REQUEST_REFUSED`
   *   when the server refused; or the signal's reason
   */
  publish(topic: string, payload: string | Uint8Array, options?: PublishOptions): Promise<void>
  /**
   * Subscribes and yields what arrives, in order, until the session ends or the loop is left.
   * A slow consumer slows the server: nothing is read ahead of a full queue. Leaving the last loop of
   * a filter unsubscribes from it, also in a session that is not clean; closing the session does not.
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

export interface SessionOptions extends ProxyOptions {
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
  /** What an earlier session left unacknowledged, and this one may; `stayConnected` hands it on. */
  readonly outbox?: Outbox
}

/** Opens one session; `mqtt.ts` is the default. */
export type Transport = (credential: Credential, options: SessionOptions) => Promise<Session>

/**
 * Opens one session, attempting once.
 *
 * @throws {CertvendError} `ERR_NETWORK`, `ERR_PROXY`, `ERR_TIMEOUT`, `ERR_CLOCK`, `ERR_SERVER_UNTRUSTED`,
 *   `ERR_CREDENTIAL_EXPIRED`, `ERR_CREDENTIAL_REFUSED`, `ERR_CERTIFICATE_MISMATCH`,
 *   `ERR_KEY_UNAVAILABLE`, `ERR_SESSION_REFUSED`; or the signal's reason
 */
export async function connect(
  credential: Credential,
  options: SessionOptions = {},
): Promise<Session> {
  options.signal?.throwIfAborted()
  const transport = options.transport ?? (await import('./mqtt.ts')).openSession
  return transport(credential, options)
}

/**
 * For transports: refuses, before anything is sent, what no server can accept.
 *
 * @throws {CertvendError} `ERR_CREDENTIAL_EXPIRED`, `ERR_CERTIFICATE_MISMATCH`
 */
export function judgeOwn({ notAfter, certificateChain, privateKey }: Credential, now: Date): void {
  if (notAfter < now)
    throw new CertvendError(
      'ERR_CREDENTIAL_EXPIRED',
      `the certificate expired on ${notAfter.toISOString()}; this device's clock says ${now.toISOString()}`,
    )
  const [endEntity] = readCertificates(certificateChain)
  if (!endEntity || !carries(endEntity, privateKey.publicKey))
    throw new CertvendError(
      'ERR_CERTIFICATE_MISMATCH',
      "the certificate of this credential is for another key than the credential's",
    )
}
