/** The Certificate Vending Machine as a device sees it: where it is, how it speaks, who may vouch for it. */

import { createHash } from 'node:crypto'
import { certificateId } from './certificate.ts'
import { chooseDialect, type DialectName, type DialectOptions } from './dialects/choice.ts'
import { parseTrustAnchors, type TrustAnchors } from './trust.ts'

/** Who is asked for a certificate, who vouches for it, and how it speaks. */
export interface VendingServer {
  readonly url: URL
  /** Empty only where {@link url} is `http://`, which nobody can vouch for. */
  readonly pins: TrustAnchors
  readonly dialect: DialectOptions
}

const nobody: TrustAnchors = { certificates: [], pem: '' }

/**
 * Names a vending server.
 *
 * @param url `https://` only; a path is kept as a prefix, without credentials, query or fragment. The
 *   dialect express-2017 may be `http://`: then whoever is on the way can read the token and the
 *   private key, and put others in their place.
 * @param pins PEM of the CAs that may vouch for it, usually one intermediate and its successor. None
 *   with `http://`.
 * @param dialect how it speaks. Default: our own protocol.
 * @throws TypeError when the URL, a pin or the dialect cannot be used.
 */
export function createVendingServer({
  url,
  pins,
  dialect = 'certvend',
}: {
  url: string | URL
  pins?: string | readonly string[]
  dialect?: DialectName | DialectOptions
}): VendingServer {
  const chosen = chooseDialect(dialect)
  const text = String(url)
  if (!URL.canParse(text)) throw new TypeError('the vending URL is not a URL')
  const parsed = new URL(text)
  const plain = parsed.protocol === 'http:' && chosen.name === 'express-2017'
  if (!plain && parsed.protocol !== 'https:')
    throw new TypeError('the vending URL must start with https://')
  if (parsed.username || parsed.password || parsed.search || parsed.hash)
    throw new TypeError('the vending URL must not hold credentials, a query or a fragment')
  if (plain && pins !== undefined && pins.length > 0)
    throw new TypeError(
      'no pin can vouch for an http:// URL: write https://, or leave the pins out',
    )
  return { url: parsed, pins: plain ? nobody : parseTrustAnchors(pins ?? ''), dialect: chosen }
}

/** SHA-256 of the URL, hex: what is remembered of a request, and of nothing else. */
export const urlHash = ({ url }: VendingServer): string =>
  createHash('sha256').update(url.href).digest('hex')

/** What a later renewal needs to know about where a credential came from. */
export interface VendedBy {
  readonly url: string
  readonly dialect: string
  /** SHA-256 of each pinned CA's DER, hex; empty where it was plain HTTP. */
  readonly pins: readonly string[]
}

export const describeServer = ({ url, dialect, pins }: VendingServer): VendedBy => ({
  url: url.href,
  dialect: dialect.name,
  pins: pins.certificates.map(certificateId),
})
