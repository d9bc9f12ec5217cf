/**
 * The little of DER (X.690) that is read without a parser, because every octet counts: what exactly was signed, and
 * by what; and what it takes to write a certificate.
 */

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

/** The content of the element that `der` is. @throws RangeError if it is not one */
export function content(der: Buffer): Buffer {
  const { start, end } = whole(der, 0)
  return der.subarray(start, end)
}

/** The elements in the content of the element that `der` is, each with its header. @throws as above */
export function elements(der: Buffer): Buffer[] {
  const inner = content(der)
  const found: Buffer[] = []
  for (let at = 0; at < inner.length; ) {
    const { end } = whole(inner, at)
    found.push(inner.subarray(at, end))
    at = end
  }
  return found
}

/** An element of the parts together; at most 65 535 octets, and one octet for the tag. */
export function tlv(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const inner = Buffer.concat(parts)
  const { length: size } = inner
  if (size > 0xffff) throw new RangeError('too long to be encoded')
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff]
  return Buffer.concat([Buffer.from([tag, ...length]), inner])
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => tlv(0x30, ...parts)

function whole(der: Buffer, offset: number): { start: number; end: number } {
  const measured = measure(der, offset)
  if (!measured || measured.end > der.length) throw new RangeError('not DER')
  return measured
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
