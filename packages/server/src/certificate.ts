/**
 * Certificates (X.509 version 3, [RFC 5280 section 4.1](https://www.rfc-editor.org/rfc/rfc5280#section-4.1)),
 * encoded and signed.
 *
 * Encoded here and not by a library, because this is what a vending machine does all day: whatever is the
 * same in all certificates of one issuer is prepared once. No I/O and no clock.
 */
import {
  createHash,
  createPublicKey,
  type KeyObject,
  randomBytes,
  sign,
  verify,
  X509Certificate,
} from 'node:crypto'
import { promisify } from 'node:util'
import { content, elements, sequence, tlv } from './der.ts'

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
  /** PEM. */
  readonly certificate: string
  readonly privateKey: KeyObject | KeyElsewhere
}

export interface Validity {
  readonly notBefore: Date
  readonly notAfter: Date
}

/** Whoever signs, with what stands in each of its certificates. */
export interface Signer {
  /** Its Name, DER. */
  readonly name: Buffer
  /** The extension authorityKeyIdentifier, DER. */
  readonly authorityKeyIdentifier: Buffer
  /** AlgorithmIdentifier, DER. */
  readonly algorithm: Buffer
  /** @returns what goes into the certificate's BIT STRING */
  sign(data: Buffer): Promise<Buffer>
}

/** As DER. */
interface Extension {
  readonly rawData: ArrayBuffer
}

export interface Draft extends Validity {
  /** The subject's one common name. */
  readonly subject: string
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKeyInfo: Buffer
  /** Hex; a random one by default. */
  readonly certificateSerial?: string
  /** The two key identifiers follow them. */
  readonly extensions: readonly Extension[]
}

const oid = {
  commonName: tlv(0x06, Buffer.from('550403', 'hex')), // 2.5.4.3
  subjectKeyIdentifier: tlv(0x06, Buffer.from('551d0e', 'hex')), // 2.5.29.14
  authorityKeyIdentifier: tlv(0x06, Buffer.from('551d23', 'hex')), // 2.5.29.35
}
const version3 = Buffer.from('a003020102', 'hex')
const wholeOctets = Buffer.from([0])

/** Both with SHA-256 (RFC 5758 section 3.2, RFC 4055 section 5). */
const algorithms: Readonly<Record<string, Buffer>> = {
  ec: sequence(tlv(0x06, Buffer.from('2a8648ce3d040302', 'hex'))), // 1.2.840.10045.4.3.2
  rsa: sequence(tlv(0x06, Buffer.from('2a864886f70d01010b', 'hex')), tlv(0x05)), // 1.2.840.113549.1.1.11
}

const isElsewhere = (key: KeyObject | KeyElsewhere): key is KeyElsewhere => 'publicKeyInfo' in key

export const publicKeyInfoOf = (key: KeyObject | KeyElsewhere): Buffer =>
  isElsewhere(key)
    ? key.publicKeyInfo
    : createPublicKey(key).export({ type: 'spki', format: 'der' })

/**
 * Prepares a CA. Its name and key identifier are taken as they stand in its certificate, octet for octet: who
 * verifies compares them (RFC 5280 sections 4.1.2.4 and 4.2.1.1).
 *
 * @throws RangeError if its key is neither EC nor RSA
 */
export function prepareSigner({ certificate, privateKey }: SigningAuthority): Signer {
  const [signed] = elements(new X509Certificate(certificate).raw)
  const fields = elements(signed!).filter(({ 0: tag }) => tag !== version3[0])
  const [, , , , subject, publicKeyInfo] = fields
  const extensions = fields.find(({ 0: tag }) => tag === 0xa3)
  const own = (extensions ? elements(content(extensions)) : []).find((extension) =>
    elements(extension)[0]!.equals(oid.subjectKeyIdentifier),
  )
  const held = own && content(content(elements(own).at(-1)!))
  return signer(subject!, held ?? keyIdentifier(publicKeyInfo!), privateKey)
}

/** Prepares a key to sign its own certificate, with the subject `commonName`. @throws as above */
export const prepareSelfSigner = (commonName: string, key: KeyObject | KeyElsewhere): Signer =>
  signer(name(commonName), keyIdentifier(publicKeyInfoOf(key)), key)

function signer(ownName: Buffer, identifier: Buffer, key: KeyObject | KeyElsewhere): Signer {
  const algorithm = algorithms[key.asymmetricKeyType ?? '']
  if (!algorithm) throw new RangeError("a CA's key must be EC or RSA")
  return {
    name: ownName,
    // keyIdentifier [0] IMPLICIT
    authorityKeyIdentifier: extension(oid.authorityKeyIdentifier, sequence(tlv(0x80, identifier))),
    algorithm,
    sign: isElsewhere(key) ? signElsewhere(key) : signHere(key),
  }
}

const inThreadPool = promisify(sign)

/** ECDSA takes less time than handing it to a thread. */
const signHere =
  (key: KeyObject): Signer['sign'] =>
  async (data) =>
    key.asymmetricKeyType === 'ec' ? sign('sha256', data, key) : inThreadPool('sha256', data, key)

/** What comes from elsewhere is looked at before it is given to anybody. */
function signElsewhere(key: KeyElsewhere): Signer['sign'] {
  const publicKey = createPublicKey({ key: key.publicKeyInfo, format: 'der', type: 'spki' })
  return async (data) => {
    const signature = await key.sign(data)
    if (!verify('sha256', data, publicKey, signature))
      throw new Error('the CA key has answered with something that is not its signature')
    return signature
  }
}

/** Signs a certificate. @returns DER */
export async function signCertificate(by: Signer, draft: Draft): Promise<Buffer> {
  const { publicKeyInfo, certificateSerial = randomCertificateSerial() } = draft
  const signed = sequence(
    version3,
    positiveInteger(Buffer.from(certificateSerial, 'hex')),
    by.algorithm,
    by.name,
    sequence(time(draft.notBefore), time(draft.notAfter)),
    name(draft.subject),
    publicKeyInfo,
    tlv(
      0xa3,
      sequence(
        ...draft.extensions.map(({ rawData }) => new Uint8Array(rawData)),
        extension(oid.subjectKeyIdentifier, tlv(0x04, keyIdentifier(publicKeyInfo))),
        by.authorityKeyIdentifier,
      ),
    ),
  )
  return sequence(signed, by.algorithm, tlv(0x03, wholeOctets, await by.sign(signed)))
}

export function certificatePem(der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}

/**
 * A certificate's serial number: 135 random bits, positive, 17 octets, hex
 * ([RFC 5280 section 4.1.2.2](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.2) allows 20).
 */
export function randomCertificateSerial(): string {
  const octets = randomBytes(17)
  octets[0] = (octets[0]! & 0x7f) | 0x40
  return octets.toString('hex')
}

/** In as few octets as there can be (X.690 section 8.3.2). */
function positiveInteger(octets: Buffer): Buffer {
  const digits = octets.subarray(octets.findIndex((octet) => octet !== 0))
  return tlv(0x02, digits[0]! > 0x7f ? wholeOctets : Buffer.alloc(0), digits)
}

/** One common name: PrintableString where it can be one, else UTF8String (RFC 5280 section 4.1.2.4). */
function name(commonName: string): Buffer {
  const tag = /^[A-Za-z0-9 '()+,./:=?-]*$/.test(commonName) ? 0x13 : 0x0c
  return sequence(tlv(0x31, sequence(oid.commonName, tlv(tag, Buffer.from(commonName)))))
}

/** UTCTime until 2049, GeneralizedTime from 2050 on, both without fractions (RFC 5280 section 4.1.2.5). */
function time(instant: Date): Buffer {
  const digits = instant.toISOString().replaceAll(/[-:T]|\.\d+/g, '')
  if (digits.length !== 15) throw new RangeError('a certificate lasts until the year 9999 at most')
  return instant.getUTCFullYear() < 2050
    ? tlv(0x17, Buffer.from(digits.slice(2)))
    : tlv(0x18, Buffer.from(digits))
}

/** SHA-1 of the key's bits (RFC 5280 section 4.2.1.2, method 1): a name, not a protection. */
const keyIdentifier = (publicKeyInfo: Buffer): Buffer =>
  createHash('sha1')
    .update(content(elements(publicKeyInfo)[1]!).subarray(1))
    .digest()

/** One that is not critical. */
const extension = (type: Buffer, value: Buffer): Buffer => sequence(type, tlv(0x04, value))
