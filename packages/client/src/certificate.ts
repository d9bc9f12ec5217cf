/**
 * Read and judge certificates (RFC 5280), and when one is to be renewed. No I/O and no clock of its own.
 *
 * A chain is end entity first; a lone end entity is normal. Whether an issuer is trusted is not
 * asked here: the device shows this chain, it does not rely on it.
 */
import { createHash, type KeyObject, X509Certificate } from 'node:crypto'
import { CertvendError } from './errors.ts'

/** How far this device's clock may lag behind the issuer's, in milliseconds. */
const clockSkewMs: number = 5 * 60_000

/**
 * Splits a PEM text into its certificates.
 *
 * @throws TypeError when there is none, or one cannot be read.
 */
export function readCertificates(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new TypeError('no PEM certificate found')
  return blocks.map((block, index) => {
    try {
      const certificate = new X509Certificate(block)
      // OpenSSL looks no further than the frame: a key or a date that is none shows only when asked for.
      notBefore(certificate).toISOString()
      notAfter(certificate).toISOString()
      return certificate.publicKey && certificate
    } catch (cause) {
      throw new TypeError(`certificate ${index + 1} cannot be read`, { cause })
    }
  })
}

/** SHA-256 of the DER, lower-case hex: what AWS IoT calls certificateId. */
export const certificateId = (certificate: X509Certificate): string =>
  certificate.fingerprint256.replaceAll(':', '').toLowerCase()

export const notBefore = (certificate: X509Certificate): Date => new Date(certificate.validFrom)
export const notAfter = (certificate: X509Certificate): Date => new Date(certificate.validTo)

const spki = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' })

/** Whether `certificate` carries `publicKey`, compared as SubjectPublicKeyInfo. */
export const carries = (certificate: X509Certificate, publicKey: KeyObject): boolean =>
  spki(certificate.publicKey).equals(spki(publicKey))

const day = (date: Date): string => date.toISOString().replace('.000Z', 'Z')

/**
 * Judges a chain just received for `publicKey`: it carries our key, is not a CA, is valid now, and
 * each further certificate issued the one before it.
 *
 * @throws {CertvendError} `ERR_CERTIFICATE_MISMATCH`, or `ERR_CLOCK` when it is not valid yet.
 */
export function judgeChain(
  chain: readonly X509Certificate[],
  expected: { publicKey: KeyObject; now: Date; early?: 'kept' },
): void {
  const mismatch = (message: string): never => {
    throw new CertvendError('ERR_CERTIFICATE_MISMATCH', message)
  }
  const endEntity = chain[0] ?? mismatch('the reply holds no certificate')
  if (!carries(endEntity, expected.publicKey)) mismatch('the certificate is for another key')
  if (endEntity.ca) mismatch('the certificate is a CA certificate (CA:TRUE)')
  chain.slice(1).forEach((issuer, index) => {
    const subject = chain[index] as X509Certificate
    if (!subject.checkIssued(issuer) || !subject.verify(issuer.publicKey))
      mismatch(`certificate ${index + 2} of the chain did not issue the one before it`)
  })
  const now = expected.now.getTime()
  if (expected.early !== 'kept' && now + clockSkewMs < notBefore(endEntity).getTime())
    throw new CertvendError(
      'ERR_CLOCK',
      `the certificate is valid from ${day(notBefore(endEntity))}, but this device's clock says ${day(expected.now)}`,
    )
  if (now > notAfter(endEntity).getTime())
    mismatch(
      `the certificate expired on ${day(notAfter(endEntity))}; this device's clock says ${day(expected.now)}`,
    )
}

/** What {@link renewalDue} is told of a credential. */
export interface Lifetime {
  readonly certificateId: string
  readonly notBefore: Date
  readonly notAfter: Date
  /** By this device's clock, which may have been wrong. */
  readonly issuedAt: Date
}

/** No certificate is so short-lived that it is renewed sooner after its issue, in milliseconds. */
const soonestMs = 60_000

/**
 * When a credential should be renewed: after two thirds of the life that it had when it was issued,
 * and up to a twelfth of it later, so that a fleet that was enrolled in one hour does not return in one.
 *
 * A function of the certificate alone: no restart moves the moment, and nothing is to be stored.
 */
export function renewalDue({ certificateId, notBefore, notAfter, issuedAt }: Lifetime): Date {
  // Issuers date certificates back; of one that lasts for minutes that may be the greater part.
  const isPlausible = notBefore <= issuedAt && issuedAt < notAfter
  const start = (isPlausible ? issuedAt : notBefore).getTime()
  const lifeMs = notAfter.getTime() - start
  const spread = createHash('sha256').update(certificateId).digest().readUInt32BE() / 2 ** 32
  return new Date(start + Math.max(soonestMs, Math.round(lifeMs * (2 / 3 + spread / 12))))
}
