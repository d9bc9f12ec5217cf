/**
 * Re-enrollment: another key and certificate for a device that shows the one it has, by mutual TLS.
 *
 * The successor waits in the store until it has opened a session (`promote`); the credential in use
 * stays in use. Asking again is safe: the same key gets the same certificate.
 */
import { keepAppointment, rememberAppointment } from './appointment.ts'
import { systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { createCertificationRequest } from './csr.ts'
import { type EnrollOptions, exchangeLimits } from './enroll.ts'
import { CertvendError, isCertvendError } from './errors.ts'
import { judgeVended } from './issued.ts'
import { isPkcs11Key } from './key.ts'
import type { Send } from './send.ts'
import type { CredentialStore } from './store.ts'
import { describeServer, type VendingServer } from './vending-server.ts'
import { judgeReply } from './verdict.ts'
import { mediaTypes, parseEnrollReply, parseRetired, paths, resolve } from './wire.ts'

/** What a person does where showing a certificate does not help. */
const byClaim = 'have the device re-armed, then: certvend enroll --again with the new token'

/**
 * Makes one attempt, and leaves what it gains pending.
 *
 * @throws {CertvendError} `ERR_CREDENTIAL_REFUSED` when the server does not take the certificate in
 *   use, `ERR_CREDENTIAL_EXPIRED`, `ERR_REQUEST_REFUSED` where it renews nothing, `ERR_KEY_UNAVAILABLE`
 *   for a key in a token, and those of `enroll`
 * @throws TypeError when there is no credential in use, or a successor already waits
 * @see RFC 7030 section 4.2.2
 */
export async function reenroll(
  store: CredentialStore,
  server: VendingServer,
  options: EnrollOptions = {},
): Promise<Credential> {
  const { clock = systemClock, log = () => {}, signal } = options
  signal?.throwIfAborted()
  const inUse = store.current()
  if (!inUse) throw new TypeError('the store holds no credential; call ensureCredential first')
  const send = await channelAs(inUse, server, options)
  const before = store.pending()
  const pending = store.begin(options.key ?? options.keyAlgorithm)
  if (pending.generation !== before?.generation)
    log({ event: 'enroll.key', generation: pending.generation })
  keepAppointment(pending.request, server, clock.now())
  const { deviceSerial } = inUse
  const csr = await createCertificationRequest(pending.privateKey, deviceSerial)
  const { host } = server.url
  log({ event: 'enroll.request', host })
  try {
    const response = await send(
      post(resolve(server.url, paths.reenroll), JSON.stringify({ deviceSerial, csr })),
      exchangeLimits(options),
    )
    const reply = judgeReply(response, parseEnrollReply, { host, now: clock.now() })
    const issued = judgeVended(reply, { deviceSerial, key: pending.privateKey, now: clock.now() })
    const credential = store.issue({ ...issued, vendedBy: describeServer(server) })
    log({ event: 'enroll.done', thingName: issued.thingName, certificateId: issued.certificateId })
    return credential
  } catch (error) {
    if (isCertvendError(error, 'ERR_KEY_REFUSED')) store.discard()
    rememberAppointment(store, server, { error, earlier: pending.request, now: clock.now() })
    throw hinted(error)
  }
}

/**
 * Tells the vending machine that `credential` is given up: its certificate opens no session from then
 * on. Repeating it changes nothing.
 *
 * @throws {CertvendError} as {@link reenroll}
 */
export async function retire(
  credential: Credential,
  server: VendingServer,
  options: EnrollOptions = {},
): Promise<void> {
  const send = await channelAs(credential, server, options)
  const { deviceSerial } = credential
  const response = await send(
    post(resolve(server.url, paths.retire), JSON.stringify({ deviceSerial })),
    exchangeLimits(options),
  )
  const now = (options.clock ?? systemClock).now()
  judgeReply(response, parseRetired, { host: server.url.host, now })
}

/**
 * Why `credential` cannot be shown to `server` to be renewed, as far as that can be told without asking;
 * nothing where it may be: `ERR_REQUEST_REFUSED` in another dialect than ours,
 * `ERR_CREDENTIAL_EXPIRED`, `ERR_KEY_UNAVAILABLE` for a key in a token.
 */
export function renewalObstacle(
  { privateKey, notAfter }: Pick<Credential, 'privateKey' | 'notAfter'>,
  server: VendingServer,
  now: Date,
): CertvendError | undefined {
  if (server.dialect.name !== 'certvend')
    return new CertvendError(
      'ERR_REQUEST_REFUSED',
      `a vending machine of the dialect ${server.dialect.name} knows claims only`,
      { hint: byClaim },
    )
  if (notAfter < now)
    return new CertvendError(
      'ERR_CREDENTIAL_EXPIRED',
      `the certificate expired on ${notAfter.toISOString()}; this device's clock says ${now.toISOString()}`,
    )
  if (isPkcs11Key(privateKey))
    return new CertvendError(
      'ERR_KEY_UNAVAILABLE',
      "the private key lies in a token, from which Node's TLS cannot use it",
      { hint: byClaim },
    )
  return undefined
}

async function channelAs(
  credential: Credential,
  server: VendingServer,
  options: EnrollOptions,
): Promise<Send> {
  const { send, clock = systemClock } = options
  const obstacle = renewalObstacle(credential, server, clock.now())
  // Whoever brings a channel of its own may be able to show what Node's TLS cannot.
  if (obstacle && !(send && obstacle.code === 'ERR_KEY_UNAVAILABLE')) throw obstacle
  if (send) return send
  const { certificateChain, privateKey } = credential
  const identity = { certificateChain, privateKey: privateKey.toPem() }
  return (await import('./https.ts')).createSend(server.pins, clock, { ...options, identity })
}

const post = (url: URL, body: string) => ({
  method: 'POST' as const,
  url,
  headers: {
    accept: `${mediaTypes.json}, ${mediaTypes.problem}`,
    'content-type': mediaTypes.json,
  },
  body,
})

/** A refusal of the vending server's, with the way that is left. */
function hinted(error: unknown): unknown {
  const isRefusal = isCertvendError(error) && /^ERR_(REQUEST|CREDENTIAL)_REFUSED$/.test(error.code)
  return isRefusal
    ? new CertvendError(error.code, error.message, { cause: error, hint: byClaim })
    : error
}
