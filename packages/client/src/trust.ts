/**
 * Whom this device believes: pins for the vending server, anchors for the MQTT server.
 *
 * The only maker of TLS options. The pinned CA is OpenSSL's one trust anchor (a partial chain, so
 * that an intermediate can be pinned without its root), therefore the pin lies on the *verified*
 * path; the chain that a server *sent* never makes us believe anything (CVE-2016-2402). Nothing here,
 * and no environment variable, turns verification off. `docs/trust.md` says what was tried.
 */
import { constants, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import {
  type ConnectionOptions,
  createSecureContext,
  type DetailedPeerCertificate,
  type PeerCertificate,
  rootCertificates,
} from 'node:tls'
import { certificateId, notAfter, readCertificates } from './certificate.ts'
import { excludesName } from './name-constraints.ts'

/** One or more CA certificates that may vouch for a server, and nothing else may. */
export interface TrustAnchors {
  readonly certificates: readonly X509Certificate[]
  /** The same, as PEM. */
  readonly pem: string
}

/**
 * Reads trust anchors (pins) from PEM; more than one is the normal case (current and next).
 *
 * @throws TypeError when there is none, one cannot be read, has no subject, is not a CA, or has a weak
 *   key. Empty text must never reach `tls`, which would fall back to the public roots.
 */
export function parseTrustAnchors(pem: string | readonly string[]): TrustAnchors {
  const certificates = readCertificates(typeof pem === 'string' ? pem : pem.join('\n'))
  for (const certificate of certificates) {
    // Before Node 26 an empty name is undefined, whatever the types say.
    const name = (certificate.subject ?? '').replaceAll('\n', ', ')
    if (!name)
      throw new TypeError(
        'a certificate without a subject names no CA (RFC 5280 section 4.1.2.6); pin the CA that issued it',
      )
    if (!certificate.ca)
      throw new TypeError(`"${name}" is not a CA certificate; pin the CA that issued it`)
    const weakness = weaknessOf(certificate)
    if (weakness) throw new TypeError(`"${name}" has ${weakness}`)
  }
  return { certificates, pem: certificates.map(String).join('') }
}

/** SHA-256 of the DER, as https://www.amazontrust.com/repository/ has it: Amazon Root CA 1 and 3. */
const amazonRoots = [
  '8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e',
  '18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4',
]

/**
 * Who vouches for AWS IoT Core: Amazon Root CA 1 (RSA) and 3 (ECC), recognised by fingerprint in
 * Node's own list, so that nothing is downloaded. Amazon holds 2 and 4 in reserve.
 *
 * @throws TypeError when this Node carries neither.
 */
export function amazonTrustAnchors(): TrustAnchors {
  return parseTrustAnchors(
    rootCertificates.filter((pem) => amazonRoots.includes(certificateId(new X509Certificate(pem)))),
  )
}

/** The latest moment at which any of `anchors` is still valid. */
export function anchorsExpire(anchors: TrustAnchors): Date {
  return new Date(Math.max(...anchors.certificates.map((one) => notAfter(one).getTime())))
}

/** What is wrong with the kind of key in `certificate`, or nothing. */
function weaknessOf({ publicKey }: X509Certificate): string | undefined {
  const { modulusLength = 0, namedCurve = '' } = publicKey.asymmetricKeyDetails ?? {}
  switch (publicKey.asymmetricKeyType) {
    case 'rsa':
    case 'rsa-pss':
      return modulusLength < 2048 ? 'an RSA key under 2048 bits' : undefined
    case 'ec': // prime192v1, secp384r1, brainpoolP256r1: the first number is the size
      return Number(/\d{3}/.exec(namedCurve)?.[0] ?? 0) < 256
        ? `a key on the elliptic curve ${namedCurve || 'of its own'}, which is too small`
        : undefined
    case 'ed25519':
    case 'ed448':
      return undefined
    default:
      return `a key of the kind ${publicKey.asymmetricKeyType}`
  }
}

/**
 * Whether a path leads from `peer` to an anchor on which every CA may vouch for `host`.
 *
 * OpenSSL compares an excluded `a.example.com` with a wildcard as text, so that a CA which must not
 * speak for that host could, by `*.example.com` (Go had the same as CVE-2025-61727). The chain is
 * walked as it was sent, but by signatures that we check; the walk can only refuse more.
 */
function isAllowed(host: string, peer: DetailedPeerCertificate, anchors: TrustAnchors): boolean {
  const seen = new Set<string>()
  for (let at = peer; at?.raw && !seen.has(at.fingerprint256); at = at.issuerCertificate) {
    seen.add(at.fingerprint256)
    const certificate = new X509Certificate(at.raw)
    if (excludesName(certificate, host)) return false
    const vouching = anchors.certificates.filter(
      (anchor) =>
        anchor.raw.equals(certificate.raw) ||
        (certificate.checkIssued(anchor) && certificate.verify(anchor.publicKey)),
    )
    if (vouching.length > 0) return vouching.some((anchor) => !excludesName(anchor, host))
    const issuer = at.issuerCertificate?.raw && new X509Certificate(at.issuerCertificate.raw)
    if (!issuer || !certificate.verify(issuer.publicKey)) return false
  }
  return false
}

/**
 * The name check of RFC 9525, stricter than Node's: the name must be in subjectAltName (never the
 * common name), wildcards only as a whole first label and not for a host that a CA above is excluded
 * from, no weak key.
 */
function checkServerIdentity(
  host: string,
  peer: PeerCertificate,
  anchors?: TrustAnchors,
): Error | undefined {
  const refuse = (reason: string): Error =>
    Object.assign(new Error(reason), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' })
  // What throws here is an uncaught exception.
  if (!peer.raw) return refuse('the server showed no certificate')
  const certificate = new X509Certificate(peer.raw)
  const weakness = weaknessOf(certificate)
  if (weakness) return refuse(`the server certificate has ${weakness}`)
  const named = (wildcards: boolean): string | undefined =>
    isIP(host) > 0
      ? certificate.checkIP(host)
      : certificate.checkHost(host, { subject: 'never', wildcards, partialWildcards: false })
  if (!named(true))
    return refuse(
      `the server certificate is not for ${host} (subjectAltName: ${certificate.subjectAltName ?? 'none'})`,
    )
  // Node hands over the detailed form, whatever its type says.
  if (anchors && !named(false) && !isAllowed(host, peer as DetailedPeerCertificate, anchors))
    return refuse(
      `the server certificate is for ${host} by a wildcard, but a CA above it may not speak for that name`,
    )
  return undefined
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
  | 'ciphers'
  | 'minVersion'
  | 'secureContext'
  | 'rejectUnauthorized'
  | 'checkServerIdentity'
  | 'servername'
>

/**
 * Named here, because `--tls-cipher-list` in NODE_OPTIONS and OPENSSL_CONF would otherwise say how weak
 * a signature, a key above the server's and a cipher may be: MD5, RSA-512 and none at all. Node 20 and
 * 22 have level 1 of themselves, which lets a CA of RSA-1024 stand between the server and the pin.
 *
 * @see https://docs.openssl.org/3.0/man3/SSL_CTX_set_security_level/
 */
const strength = {
  minVersion: 'TLSv1.2',
  ciphers: `${constants.defaultCoreCipherList}:@SECLEVEL=2`,
} as const

/**
 * TLS options for one server and nothing weaker: verification on whatever the environment says, no
 * resumed session that would skip the name check.
 *
 * @param host the name that must be in the certificate, also sent as SNI unless it is an address.
 * @param identity what the device shows of itself (PEM), for mutual TLS.
 */
export function tlsOptions(anchors: TrustAnchors, host: string, identity?: Identity): TlsOptions {
  if (anchors.certificates.length === 0) throw new TypeError('nobody to trust was named')
  const name = host.replace(/^\[|\]$/g, '')
  const server = { ca: anchors.pem, allowPartialTrustChain: true, ...strength }
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
    checkServerIdentity: (_, peer) => checkServerIdentity(name, peer, anchors),
    ...(isIP(name) > 0 ? {} : { servername: name }),
  }
}

/**
 * TLS options for the hop to an `https://` proxy, which is verified like any server. It carries the
 * proxy's credentials; what goes through it is protected by the TLS inside.
 *
 * @param anchors default: the CAs that Node trusts, `NODE_EXTRA_CA_CERTS` among them.
 */
export function proxyTlsOptions(host: string, anchors?: TrustAnchors): TlsOptions {
  if (anchors) return tlsOptions(anchors, host)
  return {
    ...strength,
    rejectUnauthorized: true,
    checkServerIdentity: (_, peer) => checkServerIdentity(host, peer),
    ...(isIP(host) > 0 ? {} : { servername: host }),
  }
}
