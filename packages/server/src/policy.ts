/**
 * What a certification request must satisfy (PKCS#10,
 * [RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)). Judges only; no I/O.
 *
 * Keys: P-256, P-384, RSA 2048 to 4096 bits, Ed25519. The request is signed by the key it carries,
 * with SHA-256 or better, and its subject's one CN is the device serial. Nothing else in it is
 * honoured: the issuer takes the key and makes up the rest.
 */
import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'
import { signedPart } from './der.ts'
import * as x509 from './x509.ts'

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
  const signed = der && signedPart(der)
  if (!signed) return refuse('the certification request is not DER in PEM')
  let csr: x509.Pkcs10CertificateRequest
  let key: KeyObject
  try {
    csr = new x509.Pkcs10CertificateRequest(der)
    key = createPublicKey({
      key: Buffer.from(csr.publicKey.rawData),
      format: 'der',
      type: 'spki',
    })
  } catch {
    return refuse('the certification request is not PKCS#10 with a public key that is known here')
  }
  const weakness = judgeKey(key)
  if (weakness) return refuse(weakness)
  const hash = signatureHash(csr, key)
  if (hash === undefined)
    return refuse(
      'the certification request is not signed with SHA-256, SHA-384, SHA-512 or Ed25519',
    )
  if (!isSignedBy(key, hash, signed, Buffer.from(csr.signature)))
    return refuse('the certification request is not signed by the key it carries')
  const names = csr.subjectName.getField('CN')
  if (names.length !== 1 || names[0] !== deviceSerial)
    return refuse("the subject's one CN must be the device serial")
  if (asksToBeCa(csr)) return refuse('the certification request asks for a CA certificate')
  const publicKeyInfo = canonical(key)
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

/** The hash to verify with; null for Ed25519, undefined for what is not accepted. */
function signatureHash(
  csr: x509.Pkcs10CertificateRequest,
  key: KeyObject,
): string | null | undefined {
  const wanted = { ec: 'ECDSA', rsa: 'RSASSA-PKCS1-v1_5', ed25519: 'Ed25519' }
  try {
    const algorithm = csr.signatureAlgorithm as { name: string; hash?: { name: string } }
    if (algorithm.name !== wanted[key.asymmetricKeyType as keyof typeof wanted]) return undefined
    if (key.asymmetricKeyType === 'ed25519') return null
    const name = algorithm.hash?.name ?? ''
    return /^SHA-(256|384|512)$/.test(name) ? name.replace('-', '').toLowerCase() : undefined
  } catch {
    return undefined
  }
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

/** The same key in the same bytes however it was encoded: through JWK, which holds only its numbers. */
function canonical(key: KeyObject): Buffer {
  return createPublicKey({ key: key.export({ format: 'jwk' }), format: 'jwk' }).export({
    type: 'spki',
    format: 'der',
  })
}

function asksToBeCa(csr: x509.Pkcs10CertificateRequest): boolean {
  try {
    return csr.extensions.some(
      (extension) => extension instanceof x509.BasicConstraintsExtension && extension.ca,
    )
  } catch {
    return true // an extension that cannot be read is not waved through
  }
}

function decodePem(pem: string): Buffer | undefined {
  const match =
    /^-----BEGIN [A-Z ]+-----\r?\n([A-Za-z0-9+/=\r\n]+?)\r?\n-----END [A-Z ]+-----\s*$/.exec(pem)
  if (!match) return undefined
  const text = match[1]!.replaceAll(/[\r\n]/g, '')
  const der = Buffer.from(text, 'base64')
  return der.toString('base64') === text ? der : undefined
}
