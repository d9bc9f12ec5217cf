/**
 * An issuer with a CA of its own: a self-signed P-256 root in one file, made on first use.
 *
 * Its own root, because a Node TLS server that must admit these certificates trusts roots only: it
 * ignores `allowPartialTrustChain`.
 */
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import {
  certificatePem,
  prepareSigner,
  type SigningAuthority,
  signCertificate,
} from '../certificate.ts'
import { type Clock, day, later, minute } from '../clock.ts'
import { type Authority, keyPurpose, makeCa, privateKeyPem } from '../pki.ts'
import type { Issued } from '../registry/registry.ts'
import { ensurePrivateDirectory, readOrCreate, replaceFile } from '../safe-file.ts'
import * as x509 from '../x509.ts'
import type { Issuer } from './issuer.ts'

export interface LocalIssuerOptions {
  /** How long a device certificate lasts, in milliseconds; 365 days by default. */
  readonly validityMs?: number
}

/** Devices' clocks may be behind by this much, in milliseconds. */
const backdatingMs: number = 5 * minute

/**
 * Issues from `ca`.
 *
 * @throws RangeError if the validity is less than one minute, or the CA's key is neither EC nor RSA
 */
export function createLocalIssuer(ca: SigningAuthority, options: LocalIssuerOptions = {}): Issuer {
  const validityMs = options.validityMs ?? 365 * day
  if (!(validityMs >= minute)) throw new RangeError('a certificate must last at least one minute')
  const caEnd = Date.parse(new X509Certificate(ca.certificate).validTo)
  const signer = prepareSigner(ca)
  const extensions = [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension([keyPurpose.clientAuth]),
  ]
  return {
    async issue(request, device, reservation): Promise<Issued> {
      const notBefore = later(wholeSecond(reservation.reservedAt), -backdatingMs)
      const wanted = later(wholeSecond(reservation.reservedAt), validityMs)
      const notAfter = new Date(Math.min(wanted.getTime(), caEnd))
      const certificate = await signCertificate(signer, {
        subject: device.deviceSerial,
        publicKeyInfo: request.publicKeyInfo,
        certificateSerial: reservation.certificateSerial,
        notBefore,
        notAfter,
        extensions,
      })
      return {
        certificateId: certificateId(certificate),
        certificateChain: [certificatePem(certificate)],
        notBefore,
        notAfter,
      }
    },
    caCertificates: async () => [ca.certificate],
  }
}

/** SHA-256 of a certificate's DER, lower-case hex: what AWS IoT calls its certificateId. A text is PEM. */
export const certificateId = (certificate: string | Buffer): string =>
  createHash('sha256')
    .update(typeof certificate === 'string' ? new X509Certificate(certificate).raw : certificate)
    .digest('hex')

/** X.509 time has no fractions (RFC 5280 section 4.1.2.5). */
const wholeSecond = (instant: Date): Date => new Date(Math.floor(instant.getTime() / 1000) * 1000)

/** Makes a device CA: self-signed, 25 years, no CA below it. */
export const makeDeviceCa = (clock: Clock): Promise<Authority> =>
  makeCa({
    commonName: 'Certvend device CA',
    pathLength: 0,
    notBefore: later(clock.now(), -backdatingMs),
    notAfter: later(clock.now(), 25 * 365 * day),
  })

/**
 * The device CA kept in `directory`, made if it is not there: `device-ca.key.pem` (0600; key and
 * certificate in one file, so that one is never there without the other) and `device-ca.pem`, the
 * certificate to give away.
 */
export async function openDeviceCa(directory: string, clock: Clock): Promise<Authority> {
  await ensurePrivateDirectory(directory)
  const kept = await readOrCreate(join(directory, 'device-ca.key.pem'), async () =>
    formatAuthority(await makeDeviceCa(clock)),
  )
  const ca = parseAuthority(kept)
  await replaceFile(join(directory, 'device-ca.pem'), ca.certificate, 0o644)
  return ca
}

/** Key and certificate of a CA as one text. */
export const formatAuthority = (authority: Authority): string =>
  privateKeyPem(authority.privateKey) + authority.certificate

/** @throws Error if the text does not hold a key and its certificate */
export function parseAuthority(text: string): Authority {
  const start = text.indexOf('-----BEGIN CERTIFICATE-----')
  const privateKey = createPrivateKey(text.slice(0, Math.max(start, 0)))
  const certificate = text.slice(start)
  if (!new X509Certificate(certificate).checkPrivateKey(privateKey))
    throw new Error('the private key does not belong to the certificate')
  return { certificate, privateKey }
}
