/**
 * The judge between a reply and the store: what was vended fits this device, its key, and now.
 *
 * Nothing of a refused reply is kept.
 */
import { certificateId, judgeChain, readCertificates } from './certificate.ts'
import type { Issued } from './credential.ts'
import type { Vended } from './dialects/dialect.ts'
import { CertvendError } from './errors.ts'
import { type PrivateKey, readKey, type StoredKey } from './key.ts'
import { parseTrustAnchors } from './trust.ts'
import { isThingName } from './wire.ts'

const mismatch = (message: string): CertvendError =>
  new CertvendError('ERR_CERTIFICATE_MISMATCH', message)

/** Runs a reader of the reply's content; what it cannot read is malformed. */
function reading<T>(what: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    throw new CertvendError('ERR_REPLY_MALFORMED', `${what}: ${(cause as Error).message}`, {
      cause,
    })
  }
}

/** The key that a vending machine made; a reply that cannot be read names none of it. */
export const servedKey = (pem: string): StoredKey =>
  reading('the private key cannot be read', () => readKey(pem))

/**
 * Judges what was vended for `key` and `deviceSerial`.
 *
 * @param expected `early`: a certificate that is not valid yet by this device's clock is kept, as it
 *   would not be had again.
 * @throws {CertvendError} `ERR_CERTIFICATE_MISMATCH`, `ERR_REPLY_MALFORMED`, `ERR_CLOCK`
 */
export function judgeVended(
  vended: Vended,
  expected: { deviceSerial: string; key: PrivateKey; now: Date; early?: 'kept' },
): Issued {
  const { deviceSerial, key, now, early } = expected
  if (vended.deviceSerial !== undefined && vended.deviceSerial !== deviceSerial)
    throw mismatch('the certificate is for another device serial')
  const chain = reading('the certificate chain cannot be read', () =>
    readCertificates(vended.certificateChain.join('\n')),
  )
  if (!isThingName(vended.thingName)) throw mismatch('the thing name is not a legal one')
  judgeChain(chain, { publicKey: key.publicKey, now, ...(early ? { early } : {}) })
  const id = certificateId(chain[0]!)
  if (vended.certificateId !== undefined && vended.certificateId !== id)
    throw mismatch('certificateId is not the SHA-256 of the certificate')
  const { host, port, alpn, trustAnchors } = vended.endpoint
  const anchors = reading("the MQTT server's trust anchors cannot be used", () =>
    parseTrustAnchors(trustAnchors),
  )
  return {
    deviceSerial,
    thingName: vended.thingName,
    certificateId: id,
    certificateChain: chain.map(String).join(''),
    endpoint: {
      host,
      port,
      ...(alpn === undefined ? {} : { alpn }),
      trustAnchors: anchors.certificates.map(String),
    },
    keyOrigin: vended.privateKey === undefined ? 'device' : 'server',
    issuedAt: now,
  }
}
