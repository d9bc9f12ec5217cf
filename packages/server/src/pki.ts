/**
 * Makes CAs and server certificates (RFC 5280): the embedded server's own chain, and the lab's.
 *
 * ECDSA P-256 with SHA-256 throughout, unless a test asks for another key. No I/O and no clock.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  webcrypto,
} from 'node:crypto'
import { isIP } from 'node:net'
import { fixedWidth, signedPart } from './der.ts'
import * as x509 from './x509.ts'

/** A CA that can sign: its certificate (PEM) and its private key. */
export interface Authority {
  readonly certificate: string
  readonly privateKey: KeyObject
}

/** A private key that is somewhere else, such as in AWS KMS, and signs there. */
export interface KeyElsewhere {
  readonly asymmetricKeyType: 'ec' | 'rsa'
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKeyInfo: Buffer
  /** Signs with SHA-256. @returns ECDSA as DER (RFC 3279 section 2.2.3), RSA as PKCS#1 v1.5 */
  sign(data: Buffer): Promise<Buffer>
}

/** A CA that can sign, wherever its key is. */
export interface SigningAuthority {
  readonly certificate: string
  readonly privateKey: KeyObject | KeyElsewhere
}

/** A server's certificate chain (PEM, end entity first, without the root) and its private key. */
export interface ServerIdentity {
  readonly certificateChain: string
  readonly privateKey: KeyObject
}

export interface Validity {
  readonly notBefore: Date
  readonly notAfter: Date
}

export type KeyKind = 'P-256' | 'RSA-1024' | 'RSA-2048'

export function makeKey(kind: KeyKind = 'P-256'): KeyObject {
  const pair =
    kind === 'P-256'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : generateKeyPairSync('rsa', { modulusLength: kind === 'RSA-1024' ? 1024 : 2048 })
  // Through PKCS#8, so that a key just made and a key read from disk are the same kind of object.
  return createPrivateKey(pair.privateKey.export({ type: 'pkcs8', format: 'pem' }))
}

export const privateKeyPem = (key: KeyObject): string =>
  key.export({ type: 'pkcs8', format: 'pem' }).toString()

const isElsewhere = (key: KeyObject | KeyElsewhere): key is KeyElsewhere => 'publicKeyInfo' in key

const spki = (key: KeyObject | KeyElsewhere): Buffer =>
  isElsewhere(key)
    ? key.publicKeyInfo
    : createPublicKey(key).export({ type: 'spki', format: 'der' })

/**
 * A certificate's serial number: 135 random bits, positive, 17 octets, hex
 * ([RFC 5280 section 4.1.2.2](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.2) allows 20).
 */
export function randomCertificateSerial(): string {
  const octets = randomBytes(17)
  octets[0] = (octets[0]! & 0x7f) | 0x40
  return octets.toString('hex')
}

/** What every certificate made here needs; `extensions` come before the key identifiers. */
interface Draft extends Validity {
  readonly subject: string
  readonly publicKey: Buffer
  /** The signer; absent for self-signed, where `signingKey` must be the subject's own. */
  readonly issuer?: { readonly certificate: string }
  readonly signingKey: KeyObject | KeyElsewhere
  readonly certificateSerial?: string
  readonly extensions: readonly x509.Extension[]
}

/** Signs a draft. ECDSA and RSA keys sign with SHA-256. @returns PEM */
export async function sign(draft: Draft): Promise<string> {
  const issuer = draft.issuer && new x509.X509Certificate(draft.issuer.certificate)
  const subject = new x509.Name([{ CN: [draft.subject] }])
  const algorithm =
    draft.signingKey.asymmetricKeyType === 'rsa'
      ? { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
      : { name: 'ECDSA', namedCurve: 'P-256' }
  const publicKey = new x509.PublicKey(draft.publicKey)
  const content = {
    serialNumber: draft.certificateSerial ?? randomCertificateSerial(),
    subject,
    issuer: issuer?.subjectName ?? subject,
    notBefore: draft.notBefore,
    notAfter: draft.notAfter,
    publicKey,
    signingAlgorithm: { ...algorithm, hash: 'SHA-256' },
    extensions: [
      ...draft.extensions,
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer?.publicKey ?? publicKey),
    ],
  }
  const { signingKey: key } = draft
  if (isElsewhere(key)) {
    // Made once with an empty signature for the bytes that are to be signed, and once with theirs.
    const empty = await x509.X509CertificateGenerator.create({ ...content, signature: blank })
    const made = await key.sign(signedPart(Buffer.from(empty.rawData))!)
    const signature = key.asymmetricKeyType === 'rsa' ? made : fixedWidth(made)
    return pem(await x509.X509CertificateGenerator.create({ ...content, signature }))
  }
  const signingKey = await webcrypto.subtle.importKey(
    'pkcs8',
    key.export({ type: 'pkcs8', format: 'der' }),
    algorithm,
    false,
    ['sign'],
  )
  return pem(await x509.X509CertificateGenerator.create({ ...content, signingKey }))
}

const pem = (certificate: x509.X509Certificate): string => `${certificate.toString('pem').trim()}\n`

/** Two integers of one, in 32 octets each. */
const blank: Buffer = Buffer.alloc(64, Buffer.from([...Array(31).fill(0), 1]))

export interface CaRequest extends Validity {
  readonly commonName: string
  /** Who signs; absent for a self-signed root. */
  readonly issuer?: SigningAuthority
  /** The CA's key; a new P-256 key by default. The same key and name make a cross-signed copy. */
  readonly privateKey?: KeyObject
  /** How many CAs may stand below this one; unlimited by default. */
  readonly pathLength?: number
  /** Extended key usages (OIDs) to restrict the CA to; none by default. */
  readonly extendedKeyUsage?: readonly string[]
}

/** Makes a CA (RFC 5280 section 4.2.1.9: basicConstraints critical, CA:TRUE). */
export async function makeCa(request: CaRequest): Promise<Authority> {
  const privateKey = request.privateKey ?? makeKey()
  return { certificate: await makeCaCertificate(request, privateKey), privateKey }
}

/** The same for a key that may be elsewhere. @returns PEM */
export const makeCaCertificate = (
  request: Omit<CaRequest, 'privateKey'>,
  privateKey: KeyObject | KeyElsewhere,
): Promise<string> =>
  sign({
    subject: request.commonName,
    publicKey: spki(privateKey),
    ...(request.issuer && { issuer: request.issuer }),
    signingKey: request.issuer?.privateKey ?? privateKey,
    notBefore: request.notBefore,
    notAfter: request.notAfter,
    extensions: [
      new x509.BasicConstraintsExtension(true, request.pathLength, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      ...(request.extendedKeyUsage
        ? [new x509.ExtendedKeyUsageExtension([...request.extendedKeyUsage])]
        : []),
    ],
  })

/** Extended key usages that a TLS peer looks for (RFC 5280 section 4.2.1.12). */
export const keyPurpose = {
  serverAuth: x509.ExtendedKeyUsage.serverAuth as string,
  clientAuth: x509.ExtendedKeyUsage.clientAuth as string,
} as const

export interface ServerRequest extends Validity {
  readonly issuer: Authority
  /** Host names and IP addresses for subjectAltName; none leaves the extension out. */
  readonly names: readonly string[]
  /** CN; the first name by default. */
  readonly commonName?: string
  readonly keyKind?: KeyKind
  /** `serverAuth` by default. */
  readonly extendedKeyUsage?: readonly string[]
  /** CA certificates (PEM) to send after the end entity; the issuer's own by default. */
  readonly sends?: readonly string[]
}

/** Makes a TLS server's certificate (RFC 9525: the names are in subjectAltName). */
export async function makeServer(request: ServerRequest): Promise<ServerIdentity> {
  const privateKey = makeKey(request.keyKind)
  const names = request.names.map((name) => ({
    type: isIP(name) ? ('ip' as const) : ('dns' as const),
    value: name,
  }))
  const certificate = await sign({
    subject: request.commonName ?? request.names[0] ?? 'server',
    publicKey: spki(privateKey),
    issuer: request.issuer,
    signingKey: request.issuer.privateKey,
    notBefore: request.notBefore,
    notAfter: request.notAfter,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        ...(request.extendedKeyUsage ?? [keyPurpose.serverAuth]),
      ]),
      ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
    ],
  })
  const sends = request.sends ?? [request.issuer.certificate]
  return { certificateChain: [certificate, ...sends].join(''), privateKey }
}
