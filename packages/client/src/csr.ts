/**
 * Certification requests (PKCS#10, RFC 2986), with the least DER that they need.
 *
 * The subject is one common name; the server decides everything else. The signature is proof of
 * possession of the key, made through the {@link PrivateKey} border so that a token can make it.
 */
import type { KeyObject } from 'node:crypto'
import type { Digest, PrivateKey } from './key.ts'

function tlv(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  const size = body.length
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff]
  return Buffer.concat([Buffer.from([tag, ...length]), body])
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => tlv(0x30, ...parts)
const objectIdentifier = (hex: string): Buffer => tlv(0x06, Buffer.from(hex, 'hex'))

const commonName = objectIdentifier('550403') // 2.5.4.3
const version1 = Buffer.from([0x02, 0x01, 0x00])
const noAttributes = Buffer.from([0xa0, 0x00])
const none = Buffer.from([0x05, 0x00])

/** AlgorithmIdentifier (RFC 5280 section 4.1.1.2) and hash for each kind of key. */
function signatureAlgorithm(publicKey: KeyObject): { identifier: Buffer; digest: Digest } {
  const curve = publicKey.asymmetricKeyDetails?.namedCurve
  switch (publicKey.asymmetricKeyType) {
    case 'rsa': // sha256WithRSAEncryption 1.2.840.113549.1.1.11
      return {
        identifier: sequence(objectIdentifier('2a864886f70d01010b'), none),
        digest: 'sha256',
      }
    case 'ed25519': // 1.3.101.112, no parameters (RFC 8410)
      return { identifier: sequence(objectIdentifier('2b6570')), digest: null }
    case 'ec':
      if (curve === 'prime256v1')
        // ecdsa-with-SHA256 1.2.840.10045.4.3.2
        return { identifier: sequence(objectIdentifier('2a8648ce3d040302')), digest: 'sha256' }
      if (curve === 'secp384r1')
        // ecdsa-with-SHA384 1.2.840.10045.4.3.3
        return { identifier: sequence(objectIdentifier('2a8648ce3d040303')), digest: 'sha384' }
  }
  throw new TypeError('the key must be P-256, P-384, RSA or Ed25519')
}

/**
 * Makes a PEM certification request with subject `CN=<subject>`.
 *
 * @param subject 1 to 64 characters (RFC 5280 ub-common-name), encoded as UTF8String.
 * @throws TypeError for a key of another kind, RangeError for a subject out of bounds.
 * @see RFC 2986 section 4
 */
export async function createCertificationRequest(
  key: PrivateKey,
  subject: string,
): Promise<string> {
  if (subject.length < 1 || subject.length > 64)
    throw new RangeError('the subject must have 1 to 64 characters')
  const { identifier, digest } = signatureAlgorithm(key.publicKey)
  const name = sequence(tlv(0x31, sequence(commonName, tlv(0x0c, Buffer.from(subject)))))
  const publicKeyInfo = key.publicKey.export({ type: 'spki', format: 'der' })
  const info = sequence(version1, name, publicKeyInfo, noAttributes)
  const signature = await key.sign(info, digest)
  const request = sequence(info, identifier, tlv(0x03, Buffer.from([0]), signature))
  const lines = request.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n`
}
