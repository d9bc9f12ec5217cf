/**
 * Enrollment: from a claim to a stored credential.
 *
 * Key first, certificate second: the key is durable before anything is sent, so a lost reply is
 * asked for again with the same key, and the server answers the same request with the same
 * certificate. What comes back is judged before it is stored; nothing of a refused reply is kept.
 */
import { createHash } from 'node:crypto'
import { certificateId, judgeChain, readCertificates } from './certificate.ts'
import type { Claim } from './claim.ts'
import { type Clock, systemClock } from './clock.ts'
import type { Credential, Issued, RequestRecord } from './credential.ts'
import { createCertificationRequest } from './csr.ts'
import { CertvendError } from './errors.ts'
import type { KeyAlgorithm } from './key.ts'
import { type Backoff, retrying } from './retry.ts'
import type { Send, SendRequest } from './send.ts'
import type { CredentialStore } from './store.ts'
import { parseTrustAnchors } from './trust.ts'
import { resolve, type VendingServer } from './vending-server.ts'
import { judgeReply } from './verdict.ts'
import {
  type CaCertificates,
  type EnrollReply,
  limits,
  mediaTypes,
  parseCaCertificates,
  parseEnrollReply,
  paths,
} from './wire.ts'

/** What happens on the way, for logs and progress; holds no secret. */
export type EnrollEvent =
  | { readonly event: 'enroll.key'; readonly generation: number }
  | { readonly event: 'enroll.request'; readonly host: string }
  | { readonly event: 'enroll.retry'; readonly error: CertvendError; readonly waitMs: number }
  | { readonly event: 'enroll.done'; readonly thingName: string; readonly certificateId: string }

export interface EnrollOptions {
  readonly signal?: AbortSignal
  /** Kind of key to make, if none is pending yet. Default P-256. */
  readonly keyAlgorithm?: KeyAlgorithm
  /** For one exchange, in milliseconds. Default 30 000. */
  readonly deadlineMs?: number
  readonly clock?: Clock
  /** Default: HTTPS over undici, pinned to the server's pins, loaded when first used. */
  readonly send?: Send
  readonly log?: (event: EnrollEvent) => void
}

const ignore = (): void => {}

async function channel(server: VendingServer, { send, clock }: EnrollOptions): Promise<Send> {
  return send ?? (await import('./https.ts')).createSend(server.pins, clock ?? systemClock)
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
 * of a store becomes current; a successor is left pending until it has proven itself.
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
  const pending = store.begin(options.keyAlgorithm)
  if (pending.generation !== before?.generation)
    log({ event: 'enroll.key', generation: pending.generation })
  keepAppointment(pending.request, clock.now())
  const csr = await createCertificationRequest(pending.privateKey, claim.deviceSerial)
  const send = await channel(server, options)
  log({ event: 'enroll.request', host: server.url.host })
  try {
    const response = await send(enrollRequest(server, claim, csr), exchangeLimits(options))
    const reply = judgeReply(response, parseEnrollReply, {
      host: server.url.host,
      now: clock.now(),
      secret: claim.token,
    })
    const issued = judgeIssued(reply, claim, pending.privateKey, clock.now())
    const credential = store.issue(issued)
    log({ event: 'enroll.done', thingName: issued.thingName, certificateId: issued.certificateId })
    return credential
  } catch (error) {
    rememberAppointment(store, pending.request, server, error, clock.now())
    throw error
  }
}

const enrollRequest = (server: VendingServer, claim: Claim, csr: string): SendRequest => ({
  method: 'POST',
  url: resolve(server, paths.enroll),
  headers: {
    accept: `${mediaTypes.json}, ${mediaTypes.problem}`,
    authorization: `Bearer ${claim.token}`,
    'content-type': mediaTypes.json,
  },
  body: JSON.stringify({ deviceSerial: claim.deviceSerial, csr }),
})

/** An agreed moment an hour or more away is kept across restarts; nearer ones are not worth a write. */
const worthWritingMs = 60 * 60_000

function rememberAppointment(
  store: CredentialStore,
  earlier: RequestRecord | undefined,
  server: VendingServer,
  error: unknown,
  now: Date,
): void {
  if (!(error instanceof CertvendError) || !error.retryAt) return
  if (error.retryAt.getTime() - now.getTime() < worthWritingMs) return
  store.recordRequest({
    dialect: 'certvend',
    urlHash: createHash('sha256').update(server.url.href).digest('hex'),
    sentAt: now,
    attempts: (earlier?.attempts ?? 0) + 1,
    notBefore: error.retryAt,
  })
}

function keepAppointment(request: RequestRecord | undefined, now: Date): void {
  const { sentAt, notBefore } = request ?? {}
  // A clock that shows a time before the request was sent says nothing about the appointment.
  if (!sentAt || !notBefore || now < sentAt || now >= notBefore) return
  throw new CertvendError(
    'ERR_SERVER_BUSY',
    `the vending server asked not to be asked before ${notBefore.toISOString()}`,
    { retryAt: notBefore },
  )
}

/** The certificate fits our key and device, now. */
function judgeIssued(
  reply: EnrollReply,
  { deviceSerial }: Claim,
  { publicKey }: Credential['privateKey'],
  now: Date,
): Issued {
  const mismatch = (message: string): CertvendError =>
    new CertvendError('ERR_CERTIFICATE_MISMATCH', message)
  const malformed = (message: string, cause: unknown): CertvendError =>
    new CertvendError('ERR_REPLY_MALFORMED', message, { cause })
  if (reply.deviceSerial !== deviceSerial)
    throw mismatch('the certificate is for another device serial')
  let chain: ReturnType<typeof readCertificates>
  try {
    chain = readCertificates(reply.certificateChain.join(''))
  } catch (cause) {
    throw malformed(`the certificate chain cannot be read: ${(cause as Error).message}`, cause)
  }
  judgeChain(chain, { publicKey, now })
  if (!chain[0] || certificateId(chain[0]) !== reply.certificateId)
    throw mismatch('certificateId is not the SHA-256 of the certificate')
  try {
    parseTrustAnchors(reply.endpoint.trustAnchors)
  } catch (cause) {
    throw malformed(
      `a trust anchor of the MQTT server cannot be used: ${(cause as Error).message}`,
      cause,
    )
  }
  return {
    deviceSerial,
    thingName: reply.thingName,
    certificateId: reply.certificateId,
    certificateChain: chain.map(String).join(''),
    endpoint: {
      host: reply.endpoint.host,
      port: reply.endpoint.port,
      ...(reply.endpoint.alpn === undefined ? {} : { alpn: reply.endpoint.alpn }),
      trustAnchors: reply.endpoint.trustAnchors,
    },
    keyOrigin: 'device',
    issuedAt: now,
  }
}

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
    { method: 'GET', url: resolve(server, paths.cacerts), headers: { accept: mediaTypes.json } },
    exchangeLimits(options),
  )
  return judgeReply(response, parseCaCertificates, {
    host: server.url.host,
    now: (options.clock ?? systemClock).now(),
  })
}
