/**
 * Whom this device believes: pins for the vending server, anchors for the MQTT server.
 *
 * The only maker of TLS options. The pinned CA is OpenSSL's one trust anchor (a partial chain, so
 * that an intermediate can be pinned without its root), therefore the pin lies on the *verified*
 * path; the chain that a server *sent* is never walked (CVE-2016-2402). Nothing here, and no
 * environment variable, turns verification off.
 */
import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { type ConnectionOptions, createSecureContext, type PeerCertificate } from 'node:tls'
import { notAfter, readCertificates } from './certificate.ts'

/** One or more CA certificates that may vouch for a server, and nothing else may. */
export interface TrustAnchors {
  readonly certificates: readonly X509Certificate[]
  /** The same, as PEM. */
  readonly pem: string
}

/**
 * Reads trust anchors (pins) from PEM; more than one is the normal case (current and next).
 *
 * @throws TypeError when there is none, one cannot be read, is not a CA, or has an RSA key under
 *   2048 bits. Empty text must never reach `tls`, which would fall back to the public roots.
 */
export function parseTrustAnchors(pem: string | readonly string[]): TrustAnchors {
  const certificates = readCertificates(typeof pem === 'string' ? pem : pem.join('\n'))
  for (const certificate of certificates) {
    const name = certificate.subject.replaceAll('\n', ', ')
    if (!certificate.ca)
      throw new TypeError(`"${name}" is not a CA certificate; pin the CA that issued it`)
    if (isWeak(certificate)) throw new TypeError(`"${name}" has an RSA key under 2048 bits`)
  }
  return { certificates, pem: certificates.map(String).join('') }
}

/** The latest moment at which any of `anchors` is still valid. */
export function anchorsExpire(anchors: TrustAnchors): Date {
  return new Date(Math.max(...anchors.certificates.map((one) => notAfter(one).getTime())))
}

const isWeak = (certificate: X509Certificate): boolean =>
  certificate.publicKey.asymmetricKeyType === 'rsa' &&
  (certificate.publicKey.asymmetricKeyDetails?.modulusLength ?? 0) < 2048

/**
 * The name check of RFC 9525, stricter than Node's: the name must be in subjectAltName (never the
 * common name), wildcards only as a whole first label, RSA keys of 2048 bits or more.
 */
function checkServerIdentity(host: string, peer: PeerCertificate): Error | undefined {
  const certificate = new X509Certificate(peer.raw)
  const refuse = (reason: string): Error =>
    Object.assign(new Error(reason), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  if (isWeak(certificate)) return refuse('the server certificate has an RSA key under 2048 bits')
  const named =
    isIP(host) > 0
      ? certificate.checkIP(host)
      : certificate.checkHost(host, { subject: 'never', partialWildcards: false })
  return named
    ? undefined
    : refuse(
        `the server certificate is not for ${host} (subjectAltName: ${certificate.subjectAltName ?? 'none'})`,
      )
}

/**
 * Whether Node's `code` says that verification failed. OpenSSL's rarer reasons (name constraints, a
 * weak signature, an unknown critical extension) all arrive as `UNSPECIFIED`.
 */
export const isVerificationFailure = (code: string): boolean =>
  /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|CRL_|ERROR_IN_|INVALID_|PATH_LENGTH|HOSTNAME_|ERR_TLS_CERT_|UNSPECIFIED$)/.test(
    code,
  )

/** What the device shows of itself, PEM. */
export interface Identity {
  readonly certificateChain: string
  readonly privateKey: string
}

/** What `tls.connect` takes. */
export type TlsOptions = Pick<
  ConnectionOptions,
  | 'ca'
  | 'allowPartialTrustChain'
  | 'minVersion'
  | 'secureContext'
  | 'rejectUnauthorized'
  | 'checkServerIdentity'
  | 'servername'
>

/**
 * TLS options for one server and nothing weaker: verification on whatever the environment says, no
 * resumed session that would skip the name check.
 *
 * @param host the name that must be in the certificate, also sent as SNI unless it is an address.
 * @param identity what the device shows of itself (PEM), for mutual TLS.
 */
export function tlsOptions(anchors: TrustAnchors, host: string, identity?: Identity): TlsOptions {
  const name = host.replace(/^\[|\]$/g, '')
  const server = { ca: anchors.pem, allowPartialTrustChain: true, minVersion: 'TLSv1.2' } as const
  return {
    ...(identity
      ? {
          // A ready context: a key that does not fit throws here, not in a timer, and no PEM is kept.
          secureContext: createSecureContext({
            ...server,
            cert: identity.certificateChain,
            key: identity.privateKey,
          }),
        }
      : server),
    rejectUnauthorized: true,
    checkServerIdentity: (_, peer) => checkServerIdentity(name, peer),
    ...(isIP(name) > 0 ? {} : { servername: name }),
  }
}
