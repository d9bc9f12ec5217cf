/**
 * Enrollment: from a claim to a stored credential.
 *
 * Key first, certificate second: the key is durable before anything is sent, so a lost reply is
 * asked for again with the same key, and the server answers the same request with the same
 * certificate. What comes back is judged before it is stored; nothing of a refused reply is kept.
 */
import { keepAppointment, rememberAppointment } from './appointment.ts'
import type { Claim } from './claim.ts'
import { type Clock, systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { createCertificationRequest } from './csr.ts'
import { CertvendError, isCertvendError } from './errors.ts'
import { judgeVended } from './issued.ts'
import { isPkcs11Key, type KeyAlgorithm, type Pkcs11Key } from './key.ts'
import type { ProxyOptions } from './proxy.ts'
import { type Backoff, retrying } from './retry.ts'
import type { Send } from './send.ts'
import type { CredentialStore } from './store.ts'
import type { VendingServer } from './vending-server.ts'
import { judgeReply } from './verdict.ts'
import {
  type CaCertificates,
  limits,
  mediaTypes,
  parseCaCertificates,
  paths,
  resolve,
} from './wire.ts'

/** What happens on the way, for logs and progress; holds no secret. */
export type EnrollEvent =
  | { readonly event: 'enroll.key'; readonly generation: number }
  | { readonly event: 'enroll.request'; readonly host: string }
  | { readonly event: 'enroll.retry'; readonly error: CertvendError; readonly waitMs: number }
  | { readonly event: 'enroll.done'; readonly thingName: string; readonly certificateId: string }

export interface EnrollOptions extends ProxyOptions {
  readonly signal?: AbortSignal
  /** Kind of key to make, if none is pending yet. Default P-256. */
  readonly keyAlgorithm?: KeyAlgorithm
  /** A key in a token, by `openPkcs11Key`, instead of one to make. */
  readonly key?: Pkcs11Key
  /** For one exchange, in milliseconds. Default 30 000. */
  readonly deadlineMs?: number
  readonly clock?: Clock
  /** Default: HTTPS over undici, pinned to the server's pins, loaded when first used. */
  readonly send?: Send
  readonly log?: (event: EnrollEvent) => void
}

const ignore = (): void => {}

async function channel(server: VendingServer, options: EnrollOptions): Promise<Send> {
  const { send, clock = systemClock } = options
  return send ?? (await import('./https.ts')).createSend(server.pins, clock, options)
}

const exchangeLimits = ({ signal, deadlineMs = 30_000 }: EnrollOptions) => ({
  deadlineMs,
  replyBytes: limits.replyBytes,
  ...(signal ? { signal } : {}),
})

/**
 * Makes one attempt to enroll and stores what it gains.
 *
 * A pending key is used again; otherwise one is made and made durable first. The first credential
 * of a store becomes current; a successor is left pending until it has proven itself. A key that the
 * server refuses as such is dropped.
 *
 * @throws {CertvendError} any code but the session's; nothing is lost by asking again.
 * @see RFC 7030 section 4.2
 */
export async function enroll(
  store: CredentialStore,
  server: VendingServer,
  claim: Claim,
  options: EnrollOptions = {},
): Promise<Credential> {
  const { clock = systemClock, log = ignore, signal } = options
  signal?.throwIfAborted()
  const before = store.pending()
  const pending = store.begin(options.key ?? options.keyAlgorithm)
  if (pending.generation !== before?.generation)
    log({ event: 'enroll.key', generation: pending.generation })
  keepAppointment(pending.request, server, clock.now())
  const csr = await createCertificationRequest(pending.privateKey, claim.deviceSerial)
  const send = await channel(server, options)
  log({ event: 'enroll.request', host: server.url.host })
  try {
    const response = await send(
      server.dialect.request({ url: server.url, claim, csr }),
      exchangeLimits(options),
    )
    const vended = server.dialect.read(response, {
      host: server.url.host,
      now: clock.now(),
      secret: claim.token,
    })
    const issued = judgeVended(vended, {
      deviceSerial: claim.deviceSerial,
      key: pending.privateKey,
      now: clock.now(),
    })
    const credential = store.issue(issued)
    log({ event: 'enroll.done', thingName: issued.thingName, certificateId: issued.certificateId })
    return credential
  } catch (error) {
    // Nothing is lost by it: the server will never issue for this key, whatever the claim.
    if (isCertvendError(error, 'ERR_KEY_REFUSED')) {
      store.discard()
      if (isPkcs11Key(pending.privateKey)) throw onlyOperatorMakes(error)
    }
    rememberAppointment(store, server, { error, earlier: pending.request, now: clock.now() })
    throw error
  }
}

/** Elsewhere the next attempt makes another key. */
const onlyOperatorMakes = (cause: CertvendError): CertvendError =>
  new CertvendError('ERR_KEY_REFUSED', cause.message, {
    cause,
    remedy: 'operator',
    hint: 'make another key in the token and enroll with that one',
  })

export interface EnsureOptions extends EnrollOptions {
  /** Waits between attempts: full jitter. Default 1 s doubling to 5 min. */
  readonly backoff?: Backoff
  /** Uniform in [0, 1). Default `Math.random`. */
  readonly random?: () => number
}

/**
 * The stored credential; on first boot enrolls for it, asking for as long as asking may help.
 *
 * With a credential in the store this only reads: no request, no write, no transport loaded.
 *
 * @throws {CertvendError} with remedy `operator` or `enroll`; or the signal's reason.
 */
export async function ensureCredential(
  store: CredentialStore,
  server: VendingServer,
  claim: Claim,
  options: EnsureOptions = {},
): Promise<Credential> {
  const { log = ignore } = options
  const stored = store.current()
  if (stored) return stored
  store.lock()
  const meanwhile = store.current() // another process may have enrolled before we had the lock
  if (meanwhile) return meanwhile
  return retrying(() => enroll(store, server, claim, options), {
    ...options,
    onRetry: ({ error, waitMs }) => log({ event: 'enroll.retry', error, waitMs }),
  })
}

/**
 * The device CA's certificate and the MQTT server's anchors. They are anchors, never pins.
 *
 * @throws {CertvendError} as {@link enroll}.
 * @see RFC 7030 section 4.1
 */
export async function fetchCaCertificates(
  server: VendingServer,
  options: EnrollOptions = {},
): Promise<CaCertificates> {
  const send = await channel(server, options)
  const response = await send(
    {
      method: 'GET',
      url: resolve(server.url, paths.cacerts),
      headers: { accept: mediaTypes.json },
    },
    exchangeLimits(options),
  )
  return judgeReply(response, parseCaCertificates, {
    host: server.url.host,
    now: (options.clock ?? systemClock).now(),
  })
}
