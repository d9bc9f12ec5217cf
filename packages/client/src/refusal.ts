/**
 * What the end of an MQTT connection means: CONNACK's code first, then TLS, then the network.
 *
 * Node spells a TLS alert differently under TLS 1.2 and 1.3, and under 1.3 a refused client
 * certificate shows only after the handshake.
 */
import { earliestPlausible } from './clock.ts'
import type { Credential } from './credential.ts'
import { CertvendError, type ErrorCode } from './errors.ts'
import { isVerificationFailure } from './trust.ts'

export interface Circumstances {
  readonly place: string
  /** What vouches for the server, in messages. Default `trust anchor`. */
  readonly anchorsAre?: 'pin' | 'trust anchor'
  /** Whether the TLS handshake had been completed on our side. */
  readonly secured: boolean
  readonly now: Date
}

/** MQTT 3.1.1 section 3.2.2.3 and MQTT 5 section 3.2.2.2: codes that speak of who we are. */
const identityCodes = new Set([2, 4, 5, 133, 134, 135, 138, 140])
/** Codes that ask for patience. */
const busyCodes = new Set([3, 136, 137, 151, 159])

/** Why no session came about. */
export function refused(error: Error | undefined, circumstances: Circumstances): CertvendError {
  const { place, secured } = circumstances
  const code = (error as { code?: unknown } | undefined)?.code
  if (typeof code === 'number') {
    const message = `${place} refused the connection (CONNACK ${code})`
    if (busyCodes.has(code)) return new CertvendError('ERR_SERVER_BUSY', message, { cause: error })
    return new CertvendError('ERR_SESSION_REFUSED', message, {
      cause: error,
      ...(identityCodes.has(code) ? {} : { remedy: 'operator' as const }),
    })
  }
  const failure = socketFailure(error, circumstances)
  if (!secured || failure.code !== 'ERR_SESSION_LOST') return failure
  return new CertvendError(
    'ERR_SESSION_REFUSED',
    `${place} closed the connection before CONNACK`,
    error ? { cause: error } : {},
  )
}

/** How long a certificate may be pending, in milliseconds: JITR, JITP, policies on their way. */
const pendingMs = 5 * 60_000

/**
 * A door closed without a reason, seen in the light of what is known of the certificate: soon after
 * it was issued, or first shown, it may still be pending; later a person must look.
 *
 * @param refusedSince when this certificate, which never opened a session, was first refused: one
 *   made in a factory registers at its first connection, years after it was issued.
 */
export function maybePending(
  error: CertvendError,
  { issuedAt, thingName, certificateId }: Credential,
  { now, refusedSince }: { readonly now: Date; readonly refusedSince?: Date | undefined },
): CertvendError {
  if (error.code !== 'ERR_SESSION_REFUSED' || error.remedy !== 'retry') return error
  const recent = (since: Date | undefined): boolean =>
    since !== undefined && Math.abs(now.getTime() - since.getTime()) < pendingMs
  return recent(issuedAt) || recent(refusedSince)
    ? new CertvendError(
        'ERR_SESSION_REFUSED',
        `${error.message}; the new certificate may still be pending`,
        {
          cause: error,
          hint: 'wait: a certificate that registers at its first connection, and a policy just attached, take seconds to minutes',
        },
      )
    : new CertvendError('ERR_SESSION_REFUSED', error.message, {
        cause: error,
        remedy: 'operator',
        hint: `look at the certificate on the server's side (aws iot describe-certificate --certificate-id ${certificateId}): unknown there (another account or region, or its CA is not registered), INACTIVE or REVOKED, still PENDING_ACTIVATION (no activator, or its template lacks a field), no policy attached, or a policy that does not allow client id ${thingName}`,
      })
}

/** TLS alerts by which a server refuses the certificate that it was shown. */
const identityAlert =
  /ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED|DECRYPT_ERROR)/

/** Node's and OpenSSL's codes in `error`, of each address that was tried, each once. */
function codesOf(error: unknown): string[] {
  const all = error instanceof AggregateError ? error.errors : [error]
  const codes = all.map((one) => String((one as { code?: unknown } | null | undefined)?.code ?? ''))
  return [...new Set(codes.filter((code) => code !== ''))]
}

/** Why the connection ended, or did not come about, by the socket's error. */
export function socketFailure(
  error: Error | undefined,
  { place, anchorsAre = 'trust anchor', secured, now }: Circumstances,
): CertvendError {
  if (error instanceof CertvendError) return error
  const codes = codesOf(error)
  const code = codes[0] ?? ''
  const is = (ours: ErrorCode, message: string): CertvendError =>
    new CertvendError(ours, message, error ? { cause: error } : {})
  const because = codes.length > 0 ? ` (${codes.join(', ')})` : ''
  if (code === 'CERT_NOT_YET_VALID' || (now < earliestPlausible && code.startsWith('CERT_')))
    return is('ERR_CLOCK', `the certificate of ${place} is not valid yet by this device's clock`)
  if (identityAlert.test(code))
    return is('ERR_CREDENTIAL_REFUSED', `${place} refused this device's certificate${because}`)
  if (code === 'CERT_HAS_EXPIRED')
    return is(
      'ERR_SERVER_UNTRUSTED',
      `the certificate of ${place}, or its ${anchorsAre}, has expired${because}`,
    )
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID' && error)
    return is('ERR_SERVER_UNTRUSTED', error.message)
  if (isVerificationFailure(code))
    return is('ERR_SERVER_UNTRUSTED', `no ${anchorsAre} vouches for ${place}${because}`)
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return is('ERR_NETWORK', `cannot find the address of ${place}${because}`)
  if (!secured) return is('ERR_NETWORK', `cannot reach ${place}${because}`)
  return is('ERR_SESSION_LOST', `the connection to ${place} ended${because}`)
}
