/** The little of DER (X.690) that certificates and certification requests are made of. */

/** The bit of a tag that says so (X.690 section 8.1.2.5). */
const constructed = 0x20

/** The content of the one element that `der` is. @throws RangeError if it is not one, or more */
export function content(der: Buffer): Buffer {
  const { start, end } = measure(der, 0)
  if (end !== der.length) throw new RangeError('not one element of DER')
  return der.subarray(start)
}

/** The elements in it, each with its header. @throws RangeError as above, or if it holds anything else */
export function elements(der: Buffer): Buffer[] {
  const inner = content(der)
  if ((der[0]! & constructed) === 0) throw new RangeError('DER that holds no elements')
  const found: Buffer[] = []
  for (let at = 0; at < inner.length; ) {
    const { end } = measure(inner, at)
    found.push(inner.subarray(at, end))
    at = end
  }
  return found
}

/** The elements in it, which must have these tags. @throws RangeError as above, or if they have not */
export function members<const T extends readonly number[]>(
  der: Buffer,
  tags: T,
): { [K in keyof T]: Buffer } {
  const found = elements(der)
  const fits = found.length === tags.length && found.every(([tag], index) => tag === tags[index])
  if (!fits) throw new RangeError('other elements of DER than expected')
  return found as { [K in keyof T]: Buffer }
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

/**
 * Where the content of the element at `offset` starts and ends (X.690 section 8.1.3).
 *
 * @throws RangeError if it is cut off, or of a tag or a length that nobody needs or DER does not have
 */
function measure(der: Buffer, offset: number): { start: number; end: number } {
  const first = der[offset + 1] ?? 0x80
  const octets = first < 0x80 ? 0 : first & 0x7f
  const start = offset + 2 + octets
  const isLongTag = (der[offset]! & 0x1f) === 0x1f
  if (isLongTag || first === 0x80 || octets > 3 || start > der.length)
    throw new RangeError('not DER')
  const end = start + (octets === 0 ? first : der.readUIntBE(offset + 2, octets))
  if (end > der.length) throw new RangeError('DER that is cut off')
  return { start, end }
}
