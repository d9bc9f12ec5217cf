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
import { refusalError } from './dialects/dialect.ts'
import { loadDialect } from './dialects/load.ts'
import { CertvendError, isCertvendError } from './errors.ts'
import { judgeVended, servedKey } from './issued.ts'
import { isPkcs11Key, type KeyAlgorithm, type Pkcs11Key } from './key.ts'
import type { ProxyOptions } from './proxy.ts'
import { type Backoff, retrying } from './retry.ts'
import type { Send, SendLimits, SendResponse } from './send.ts'
import type { CredentialStore } from './store.ts'
import { type Asking, permit, recordRefusal, recordSending, spent } from './unrepeatable.ts'
import { describeServer, type VendingServer } from './vending-server.ts'
import { judgeReply } from './verdict.ts'
import {
  type CaCertificates,
  isThingName,
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
  /**
   * A person has decided to ask in a dialect that must not be asked twice: the credential that is
   * held no longer works, or the vending machine was reset after a lost answer. Default false.
   */
  readonly again?: boolean
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

/** Of one exchange with a vending machine. */
export const exchangeLimits = ({ signal, deadlineMs = 30_000 }: EnrollOptions): SendLimits => ({
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
 * @throws {CertvendError} any code but the session's. In our own dialect nothing is lost by asking
 *   again; in the others the remedy is `operator` where something may be.
 * @throws TypeError when the claim, or a key in a token, does not go with the server's dialect
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
  const dialect = await loadDialect(server.dialect)
  const { deviceSerial } = claim
  const elsewhere = dialect.keyOrigin === 'server'
  if (elsewhere) refuseUnusable(server, claim, options)
  const asking: Asking = { store, server, dialect, deviceSerial, again: options.again ?? false }
  permit(asking, clock.now())
  const before = store.pending()
  // Also where the key will be made elsewhere: this one is the device's own, for a later renewal.
  const pending = store.begin(elsewhere ? 'P-256' : (options.key ?? options.keyAlgorithm))
  if (pending.generation !== before?.generation)
    log({ event: 'enroll.key', generation: pending.generation })
  permit(asking, clock.now()) // once more, now that nobody else writes
  keepAppointment(pending.request, server, clock.now())
  const csr = elsewhere ? '' : await createCertificationRequest(pending.privateKey, deviceSerial)
  const request = dialect.request({ url: server.url, claim, csr })
  const send = await channel(server, options)
  log({ event: 'enroll.request', host: server.url.host })
  try {
    const response = await send(request, {
      ...exchangeLimits(options),
      beforeSend: () => recordSending(asking, clock.now()),
    })
    const credential = take(response, { ...asking, claim, now: clock.now() })
    const { thingName, certificateId } = credential
    log({ event: 'enroll.done', thingName, certificateId })
    return credential
  } catch (error) {
    // Nothing is lost by it: the server will never issue for this key, whatever the claim.
    if (isCertvendError(error, 'ERR_KEY_REFUSED')) {
      store.discard()
      if (isPkcs11Key(pending.privateKey)) throw onlyOperatorMakes(error)
    }
    rememberAppointment(store, server, { error, earlier: requestOf(store), now: clock.now() })
    throw isCertvendError(error) ? spent(asking, error) : error
  }
}

const requestOf = (store: CredentialStore) => {
  const pending = store.pending()
  return pending?.state === 'requested' ? pending.request : undefined
}

/** What would be found out only once the one answer was used up. */
function refuseUnusable(server: VendingServer, claim: Claim, { key }: EnrollOptions): void {
  const { name, thingName } = server.dialect
  if (key) throw new TypeError(`in the dialect ${name} the vending machine makes the key`)
  if (name !== 'iot-atlas' && !isThingName(thingName ?? claim.deviceSerial))
    throw new TypeError('the device serial is not a legal thing name: give thingName')
}

/** Judges a response, and stores what it holds. */
function take(
  response: SendResponse,
  { claim, now, ...asking }: Asking & { claim: Claim; now: Date },
): Credential {
  const { store, server, dialect } = asking
  const { deviceSerial } = claim
  const reading = { host: server.url.host, now, deviceSerial, secret: claim.token }
  const refusal = dialect.recognise(response)
  if (refusal) {
    recordRefusal(asking, refusal)
    throw refusalError(refusal, response, reading)
  }
  const vended = dialect.read(response, reading)
  const pending = store.pending()
  if (pending?.state !== 'requested') throw new TypeError('the store was written to meanwhile')
  const served = vended.privateKey === undefined ? undefined : servedKey(vended.privateKey)
  const issued = judgeVended(vended, {
    deviceSerial,
    key: served ?? pending.privateKey,
    now,
    // What is not to be had again is kept; who looks at its dates later finds the clock at fault.
    ...(dialect.repeat === 'safe' ? {} : { early: 'kept' }),
  })
  const credential = { ...issued, vendedBy: describeServer(server) }
  if (!served) return store.issue(credential)
  try {
    return store.issue(credential, served)
  } catch (error) {
    if (!isCertvendError(error, 'ERR_STORE_UNWRITABLE')) throw error
    return store.issue(credential, served) // once more: there is no other answer
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
  if (server.dialect.name !== 'certvend')
    throw new TypeError(`the dialect ${server.dialect.name} has no CA certificates to give`)
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
