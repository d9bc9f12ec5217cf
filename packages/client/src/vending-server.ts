/** The Certificate Vending Machine as a device sees it: where it is, and who may vouch for it. */

import { certvend } from './dialects/certvend.ts'
import type { Dialect } from './dialects/dialect.ts'
import { parseTrustAnchors, type TrustAnchors } from './trust.ts'

export interface VendingServer {
  readonly url: URL
  readonly pins: TrustAnchors
  readonly dialect: Dialect
}

/**
 * Names a vending server.
 *
 * @param url `https://` only; a path is kept as a prefix, without credentials, query or fragment.
 * @param pins PEM of the CAs that may vouch for it, usually one intermediate and its successor.
 * @param dialect how it speaks. Default: our own protocol.
 * @throws TypeError when the URL or a pin cannot be used.
 */
export function createVendingServer({
  url,
  pins,
  dialect = certvend,
}: {
  url: string | URL
  pins: string | readonly string[]
  dialect?: Dialect
}): VendingServer {
  const text = String(url)
  if (!URL.canParse(text)) throw new TypeError('the vending URL is not a URL')
  const parsed = new URL(text)
  if (parsed.protocol !== 'https:') throw new TypeError('the vending URL must start with https://')
  if (parsed.username || parsed.password || parsed.search || parsed.hash)
    throw new TypeError('the vending URL must not hold credentials, a query or a fragment')
  return { url: parsed, pins: parseTrustAnchors(pins), dialect }
}
