/**
 * Reads certification requests (PKCS#10, [RFC 2986 section 4](https://www.rfc-editor.org/rfc/rfc2986#section-4)),
 * as far as they are judged. What is not DER of that form, or has anything before or behind it, is not read.
 */
import { content, elements, members } from './der.ts'

export interface CertificationRequest {
  /** The part that is signed, with its header. */
  readonly signed: Buffer
  /** What it is signed with: the content of the object identifier, hex. */
  readonly algorithm: string
  readonly signature: Buffer
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKeyInfo: Buffer
  /** Every common name in the subject. */
  readonly commonNames: readonly string[]
  /** Whether it asks for basicConstraints with cA. */
  readonly asksToBeCa: boolean
}

const tag = { integer: 0x02, bitString: 0x03, type: 0x06, sequence: 0x30, set: 0x31 }

const oid = {
  commonName: '550403', // 2.5.4.3
  extensionRequest: '2a864886f70d01090e', // 1.2.840.113549.1.9.14
  basicConstraints: '551d13', // 2.5.29.19
}

/** @throws RangeError if it cannot be read */
export function readCertificationRequest(der: Buffer): CertificationRequest {
  const [signed, algorithm, bits] = members(der, [tag.sequence, tag.sequence, tag.bitString])
  const [version, subject, publicKeyInfo, attributes] = elements(signed)
  if (
    der[0] !== tag.sequence ||
    version?.[0] !== tag.integer ||
    subject?.[0] !== tag.sequence ||
    !publicKeyInfo
  )
    throw new RangeError('not a certification request')
  return {
    signed,
    algorithm: typeOf(algorithm),
    signature: wholeOctets(bits),
    publicKeyInfo,
    commonNames: commonNames(subject),
    // Not every encoder writes the attributes when there are none.
    asksToBeCa: attributes !== undefined && asksToBeCa(attributes),
  }
}

/** The object identifier that an element begins with: its content, hex. */
function typeOf(der: Buffer): string {
  const [type] = elements(der)
  if (type?.[0] !== tag.type) throw new RangeError('no object identifier')
  return content(type).toString('hex')
}

function wholeOctets(bits: Buffer): Buffer {
  const [unused, octets] = [content(bits)[0], content(bits).subarray(1)]
  if (unused !== 0) throw new RangeError('bits beside whole octets')
  return octets
}

function commonNames(subject: Buffer): string[] {
  const attributes = elements(subject).flatMap((relative) => elements(relative))
  return attributes
    .filter((attribute) => typeOf(attribute) === oid.commonName)
    .map((attribute) => text(elements(attribute)[1]))
}

/** A DirectoryString (RFC 5280 section 4.1.2.4), or IA5String; another kind is no text at all. */
function text(value: Buffer | undefined): string {
  if (!value) throw new RangeError('a name without a value')
  const octets = content(value)
  switch (value[0]) {
    case 0x0c: // UTF8String
      return octets.toString('utf8')
    case 0x13: // PrintableString
    case 0x14: // TeletexString
    case 0x16: // IA5String
      return octets.toString('latin1')
    case 0x1e: // BMPString
      return Buffer.from(octets).swap16().toString('utf16le')
    default:
      return ''
  }
}

/** In whichever of the attributes; one that cannot be read is not waved through. */
const asksToBeCa = (attributes: Buffer): boolean =>
  elements(attributes)
    .filter((attribute) => typeOf(attribute) === oid.extensionRequest)
    .flatMap((attribute) => elements(members(attribute, [tag.type, tag.set])[1]))
    .flatMap((extensions) => elements(extensions))
    .filter((extension) => typeOf(extension) === oid.basicConstraints)
    .some((extension) => isCa(elements(extension).at(-1)!))

/** BasicConstraints ::= SEQUENCE { cA BOOLEAN DEFAULT FALSE, … } in an OCTET STRING. */
function isCa(value: Buffer): boolean {
  const [first] = elements(content(value))
  return first?.[0] === 0x01 && content(first)[0] !== 0
}
