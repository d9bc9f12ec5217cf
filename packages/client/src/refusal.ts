/**
 * What the end of an MQTT connection means: CONNACK's code first, then TLS, then the network.
 *
 * Node spells a TLS alert differently under TLS 1.2 and 1.3, and under 1.3 a refused client
 * certificate shows only after the handshake.
 */
import { earliestPlausible } from './clock.ts'
import type { Credential } from './credential.ts'
import { CertvendError } from './errors.ts'
import { isVerificationFailure } from './trust.ts'

interface Circumstances {
  readonly place: string
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

/** How long a fresh certificate may be pending, in milliseconds: JITR, JITP, policies on their way. */
const pendingMs = 5 * 60_000

/**
 * A door closed without a reason, seen in the light of the certificate's age: soon after it was
 * issued it may still be pending, later a person must look.
 */
export function maybePending(
  error: CertvendError,
  { issuedAt, thingName }: Credential,
  now: Date,
): CertvendError {
  if (error.code !== 'ERR_SESSION_REFUSED' || error.remedy !== 'retry') return error
  const fresh = Math.abs(now.getTime() - issuedAt.getTime()) < pendingMs
  return fresh
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
        hint: `look at the certificate on the server's side: unknown there (another account or region), INACTIVE or REVOKED, still PENDING_ACTIVATION (no activator), no policy attached, or a policy that does not allow client id ${thingName}`,
      })
}

/** Why the connection ended, by the socket's error. */
export function socketFailure(
  error: Error | undefined,
  { place, secured, now }: Circumstances,
): CertvendError {
  if (error instanceof CertvendError) return error
  const first = error instanceof AggregateError ? error.errors[0] : error
  const code = String((first as { code?: unknown } | undefined)?.code ?? '')
  const is = (
    ours:
      | 'ERR_CLOCK'
      | 'ERR_SERVER_UNTRUSTED'
      | 'ERR_CREDENTIAL_REFUSED'
      | 'ERR_NETWORK'
      | 'ERR_SESSION_LOST',
    message: string,
  ): CertvendError => new CertvendError(ours, message, error ? { cause: error } : {})
  if (code === 'CERT_NOT_YET_VALID' || (now < earliestPlausible && code.startsWith('CERT_')))
    return is('ERR_CLOCK', `the certificate of ${place} is not valid yet by this device's clock`)
  if (
    /ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED|DECRYPT_ERROR)/.test(
      code,
    )
  )
    return is('ERR_CREDENTIAL_REFUSED', `${place} refused this device's certificate (${code})`)
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return is('ERR_SERVER_UNTRUSTED', (first as Error).message)
  if (isVerificationFailure(code))
    return is('ERR_SERVER_UNTRUSTED', `no trust anchor vouches for ${place} (${code})`)
  if (!secured)
    return is('ERR_NETWORK', `cannot open a connection to ${place}${code ? ` (${code})` : ''}`)
  return is('ERR_SESSION_LOST', `the connection to ${place} ended${code ? ` (${code})` : ''}`)
}
