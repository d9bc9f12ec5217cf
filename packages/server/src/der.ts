/** The little of DER (X.690) that must be read without a parser: what exactly was signed, and by what. */

/**
 * The bytes that are signed: the first of the three elements of a certificate or certification request,
 * with its header. Undefined if `der` is not exactly SEQUENCE { SEQUENCE, SEQUENCE, BIT STRING }, which
 * the parser behind this does not insist on.
 */
export function signedPart(der: Buffer): Buffer | undefined {
  const outer = measure(der, 0)
  if (!outer || der[0] !== 0x30 || outer.end !== der.length) return undefined
  let at = outer.start
  let signed: Buffer | undefined
  for (const tag of [0x30, 0x30, 0x03]) {
    const element = measure(der, at)
    if (!element || der[at] !== tag || element.end > der.length) return undefined
    if (tag === 0x03 && der[element.start] !== 0) return undefined // a signature has whole octets
    signed ??= der.subarray(at, element.end)
    at = element.end
  }
  return at === der.length ? signed : undefined
}

/**
 * An ECDSA signature, SEQUENCE { INTEGER r, INTEGER s }, as r and s side by side in `octets` octets each:
 * the form that WebCrypto works with.
 *
 * @throws RangeError if it is not such a signature
 */
export function fixedWidth(signature: Buffer, octets = 32): Buffer {
  const outer = measure(signature, 0)
  let at = outer?.start ?? 0
  const halves = [0, 1].map(() => {
    const element = measure(signature, at)
    if (!element || signature[at] !== 0x02 || element.end > signature.length)
      throw new RangeError('not an ECDSA signature')
    at = element.end
    const digits = signature.subarray(element.start, element.end)
    const value = digits.subarray(Math.max(0, digits.length - octets))
    if (digits.subarray(0, -octets).some((octet) => octet !== 0))
      throw new RangeError('an ECDSA signature of another curve')
    return Buffer.concat([Buffer.alloc(octets - value.length), value])
  })
  return Buffer.concat(halves)
}

/** Where the content of the element at `offset` starts and ends (X.690 section 8.1.3). */
function measure(der: Buffer, offset: number): { start: number; end: number } | undefined {
  const first = der[offset + 1]
  if (first === undefined) return undefined
  if (first < 0x80) return { start: offset + 2, end: offset + 2 + first }
  const octets = first & 0x7f
  if (octets < 1 || octets > 3 || offset + 2 + octets > der.length) return undefined
  const start = offset + 2 + octets
  return { start, end: start + der.readUIntBE(offset + 2, octets) }
}
