/** The Certificate Vending Machine as a device sees it: where it is, and who may vouch for it. */
import { parseTrustAnchors, type TrustAnchors } from './trust.ts'

export interface VendingServer {
  readonly url: URL
  readonly pins: TrustAnchors
}

/**
 * Names a vending server.
 *
 * @param url `https://` only; a path is kept as a prefix, without credentials, query or fragment.
 * @param pins PEM of the CAs that may vouch for it, usually one intermediate and its successor.
 * @throws TypeError when the URL or a pin cannot be used.
 */
export function createVendingServer({
  url,
  pins,
}: {
  url: string | URL
  pins: string | readonly string[]
}): VendingServer {
  const text = String(url)
  if (!URL.canParse(text)) throw new TypeError('the vending URL is not a URL')
  const parsed = new URL(text)
  if (parsed.protocol !== 'https:') throw new TypeError('the vending URL must start with https://')
  if (parsed.username || parsed.password || parsed.search || parsed.hash)
    throw new TypeError('the vending URL must not hold credentials, a query or a fragment')
  return { url: parsed, pins: parseTrustAnchors(pins) }
}

/** The URL of one of our paths below the server's URL. */
export function resolve(server: VendingServer, path: string): URL {
  return new URL(server.url.pathname.replace(/\/+$/, '') + path, server.url)
}
