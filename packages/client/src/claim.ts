/** A claim: what a device without a certificate has to show, a serial and a one-time token. */
import { isDeviceSerial, isToken } from './wire.ts'

export interface Claim {
  readonly deviceSerial: string
  /** The secret. A getter, and not enumerable: inspection, JSON and spreading leave it out. */
  readonly token: string
}

/**
 * Makes a claim.
 *
 * @param deviceSerial 1 to 64 letters, digits, `:`, `_`, `-`, `.`, starting with a letter or digit.
 * @param token 8 to 512 characters of RFC 6750's b64token; white space around it is dropped.
 * @throws TypeError when one is out of bounds; the message never holds the token.
 */
export function createClaim({
  deviceSerial,
  token,
}: {
  deviceSerial: string
  token: string
}): Claim {
  if (!isDeviceSerial(deviceSerial))
    throw new TypeError(
      'deviceSerial must be 1 to 64 letters, digits, ":", "_", "-" or ".", starting with a letter or digit',
    )
  const secret = typeof token === 'string' ? token.trim() : token
  if (!isToken(secret))
    throw new TypeError(
      'token must be 8 to 512 characters: letters, digits and -._~+/ with = only at the end',
    )
  return Object.freeze(
    Object.defineProperty({ deviceSerial }, 'token', {
      get: () => secret,
      enumerable: false,
    }) as Claim,
  )
}
