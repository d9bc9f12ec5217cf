/**
 * The host names that a CA certificate may not speak for: excludedSubtrees of name constraints
 * (RFC 5280 section 4.2.1.10). With the least DER that it needs; no I/O.
 */
import type { X509Certificate } from 'node:crypto'

/** id-ce-nameConstraints 2.5.29.30, as it stands in DER. */
const nameConstraints = Buffer.from('0603551d1e', 'hex')

const tags = { octetString: 0x04, sequence: 0x30, excluded: 0xa1, dnsName: 0x82 }

/** The elements of a DER text, one level deep. */
function* elements(der: Buffer): Generator<{ tag: number; value: Buffer }> {
  for (let at = 0; at < der.length; ) {
    const tag = der.readUInt8(at)
    let length = der.readUInt8(at + 1)
    at += 2
    if (length >= 0x80) {
      const octets = length & 0x7f
      length = der.readUIntBE(at, octets)
      at += octets
    }
    yield { tag, value: der.subarray(at, at + length) }
    at += length
  }
}

function* inside(
  parents: Iterable<{ tag: number; value: Buffer }>,
  tag: number,
): Generator<{ tag: number; value: Buffer }> {
  for (const parent of parents) if (parent.tag === tag) yield* elements(parent.value)
}

/** What follows each place where the extension's identifier stands; what is no extension yields nothing. */
function* extensions({ raw }: X509Certificate): Generator<{ tag: number; value: Buffer }> {
  for (let at = raw.indexOf(nameConstraints); at >= 0; at = raw.indexOf(nameConstraints, at + 1))
    for (const element of elements(raw.subarray(at + nameConstraints.length))) {
      // `critical` may stand between the identifier and the value.
      if (element.tag === tags.octetString) yield element
      if (element.tag !== 0x01) break
    }
}

/** Whether `certificate` may not vouch for `host`; nor may one whose constraints cannot be read. */
export function excludesName(certificate: X509Certificate, host: string): boolean {
  const name = `.${host.toLowerCase()}`
  try {
    const constraints = inside(extensions(certificate), tags.octetString)
    const subtrees = inside(inside(constraints, tags.sequence), tags.excluded)
    for (const { tag, value } of inside(subtrees, tags.sequence)) {
      const excluded = value.toString('latin1').toLowerCase().replace(/^\./, '')
      if (tag === tags.dnsName && (excluded === '' || name.endsWith(`.${excluded}`))) return true
    }
    return false
  } catch {
    return true
  }
}
