/**
 * What a certification request must satisfy (PKCS#10,
 * [RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)). Judges only; no I/O.
 *
 * Keys: P-256, P-384, RSA 2048 to 4096 bits, Ed25519. The request is signed by the key it carries,
 * with SHA-256 or better, and its subject's one CN is the device serial. Nothing else in it is
 * honoured: the issuer takes the key and makes up the rest.
 */
import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'
import { type CertificationRequest, readCertificationRequest } from './certification-request.ts'

/** A request that was judged good, reduced to what an issuer may use. */
export interface JudgedRequest {
  /** As it came, for issuers that forward it. */
  readonly pem: string
  /** SubjectPublicKeyInfo, DER, in its canonical encoding. */
  readonly publicKeyInfo: Buffer
  /** SHA-256 of `publicKeyInfo`, hex: the key's name in the registry. */
  readonly publicKey: string
}

export type Judgement =
  | { readonly ok: true; readonly request: JudgedRequest }
  | { readonly ok: false; readonly reason: string }

const refuse = (reason: string): Judgement => ({ ok: false, reason })

/**
 * Judges a request for the device `deviceSerial`.
 *
 * @param pem one PEM block `CERTIFICATE REQUEST`
 * @returns the request, or one sentence that says what is wrong with it
 */
export function judgeRequest(pem: string, deviceSerial: string): Judgement {
  const der = decodePem(pem)
  if (!der) return refuse('the certification request is not DER in PEM')
  let csr: CertificationRequest
  let key: KeyObject
  try {
    csr = readCertificationRequest(der)
    key = createPublicKey({ key: csr.publicKeyInfo, format: 'der', type: 'spki' })
  } catch {
    return refuse('the certification request is not PKCS#10 with a public key that is known here')
  }
  const weakness = judgeKey(key)
  if (weakness) return refuse(weakness)
  const [keyType, hash] = signatures[csr.algorithm] ?? []
  if (hash === undefined || keyType !== key.asymmetricKeyType)
    return refuse(
      'the certification request is not signed with SHA-256, SHA-384, SHA-512 or Ed25519',
    )
  if (!isSignedBy(key, hash, csr.signed, csr.signature))
    return refuse('the certification request is not signed by the key it carries')
  const { commonNames: names } = csr
  if (names.length !== 1 || names[0] !== deviceSerial)
    return refuse("the subject's one CN must be the device serial")
  if (csr.asksToBeCa) return refuse('the certification request asks for a CA certificate')
  const publicKeyInfo = canonical(csr.publicKeyInfo, key)
  const publicKey = createHash('sha256').update(publicKeyInfo).digest('hex')
  return { ok: true, request: { pem, publicKeyInfo, publicKey } }
}

function judgeKey(key: KeyObject): string | undefined {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (type === 'ed25519') return undefined
  if (type === 'ec') {
    const isKnown = details?.namedCurve === 'prime256v1' || details?.namedCurve === 'secp384r1'
    return isKnown ? undefined : 'the key is on another curve than P-256 or P-384'
  }
  if (type !== 'rsa') return 'the key is neither P-256, P-384, RSA nor Ed25519'
  const bits = details?.modulusLength ?? 0
  if (bits < 2048 || bits > 4096) return 'the RSA key is not between 2048 and 4096 bits long'
  return details?.publicExponent === 65537n ? undefined : 'the RSA exponent is not 65537'
}

/** Kind of key and hash by the algorithm's object identifier; Ed25519 has no hash of its own. */
const signatures: Readonly<Record<string, readonly [string, string | null]>> = {
  '2a8648ce3d040302': ['ec', 'sha256'], // 1.2.840.10045.4.3.2 (RFC 5758)
  '2a8648ce3d040303': ['ec', 'sha384'],
  '2a8648ce3d040304': ['ec', 'sha512'],
  '2a864886f70d01010b': ['rsa', 'sha256'], // 1.2.840.113549.1.1.11 (RFC 4055)
  '2a864886f70d01010c': ['rsa', 'sha384'],
  '2a864886f70d01010d': ['rsa', 'sha512'],
  '2b6570': ['ed25519', null], // 1.3.101.112 (RFC 8410)
}

function isSignedBy(
  key: KeyObject,
  hash: string | null,
  signed: Buffer,
  signature: Buffer,
): boolean {
  try {
    return verify(hash, signed, key, signature)
  } catch {
    return false
  }
}

/** What stands before the octets of a key that can be written in this one way only, and how many follow. */
const plain = [
  ['3059301306072a8648ce3d020106082a8648ce3d03010703420004', 64], // P-256, both coordinates
  ['3076301006072a8648ce3d020106052b8104002203620004', 96], // P-384
  ['302a300506032b6570032100', 32], // Ed25519
] as const

/** The same key in the same bytes however it was encoded: through JWK, which holds only its numbers. */
function canonical(publicKeyInfo: Buffer, key: KeyObject): Buffer {
  const isPlain = plain.some(
    ([prefix, rest]) =>
      publicKeyInfo.length === prefix.length / 2 + rest &&
      publicKeyInfo.toString('hex', 0, prefix.length / 2) === prefix,
  )
  if (isPlain) return publicKeyInfo
  return createPublicKey({ key: key.export({ format: 'jwk' }), format: 'jwk' }).export({
    type: 'spki',
    format: 'der',
  })
}

function decodePem(pem: string): Buffer | undefined {
  const match =
    /^-----BEGIN [A-Z ]+-----\r?\n([A-Za-z0-9+/=\r\n]+?)\r?\n-----END [A-Z ]+-----\s*$/.exec(pem)
  if (!match) return undefined
  const text = match[1]!.replaceAll(/[\r\n]/g, '')
  const der = Buffer.from(text, 'base64')
  return der.toString('base64') === text ? der : undefined
}
