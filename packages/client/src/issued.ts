/**
 * The judge between a reply and the store: what was vended fits this device, its key, and now.
 *
 * Nothing of a refused reply is kept.
 */
import { certificateId, judgeChain, readCertificates } from './certificate.ts'
import type { Issued } from './credential.ts'
import type { Vended } from './dialects/dialect.ts'
import { CertvendError } from './errors.ts'
import type { PrivateKey } from './key.ts'
import { parseTrustAnchors } from './trust.ts'

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

/**
 * Judges what was vended for `key` and `deviceSerial`.
 *
 * @throws {CertvendError} `ERR_CERTIFICATE_MISMATCH`, `ERR_REPLY_MALFORMED`, `ERR_CLOCK`
 */
export function judgeVended(
  vended: Vended,
  expected: { deviceSerial: string; key: PrivateKey; now: Date },
): Issued {
  const { deviceSerial, key, now } = expected
  if (vended.deviceSerial !== undefined && vended.deviceSerial !== deviceSerial)
    throw mismatch('the certificate is for another device serial')
  const chain = reading('the certificate chain cannot be read', () =>
    readCertificates(vended.certificateChain.join('\n')),
  )
  judgeChain(chain, { publicKey: key.publicKey, now })
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
    keyOrigin: 'device',
    issuedAt: now,
  }
}
