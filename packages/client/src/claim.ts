/** A claim: what a device without a certificate has to show, a serial and a one-time token. */
import type { DialectName } from './dialects/choice.ts'
import { isDeviceSerial, isToken } from './wire.ts'

/** What a device shows once to get a certificate: its serial, and the token that goes with it. */
export interface Claim {
  readonly deviceSerial: string
  /** The secret. A getter, and not enumerable: inspection, JSON and spreading leave it out. */
  readonly token: string
}

/** What the old vending machines take: people have burned in six digits, and serials. */
const isOldToken = (value: unknown): value is string =>
  typeof value === 'string' && /^[\x21-\x7e]{1,512}$/.test(value)

/**
 * Makes a claim.
 *
 * @param deviceSerial 1 to 64 letters, digits, `:`, `_`, `-`, `.`, starting with a letter or digit.
 * @param token 8 to 512 characters of RFC 6750's b64token; white space around it is dropped.
 * @param dialect the one it is for: with the old ones a token is 1 to 512 visible ASCII characters.
 * @throws TypeError when one is out of bounds; the message never holds the token.
 */
export function createClaim({
  deviceSerial,
  token,
  dialect = 'certvend',
}: {
  deviceSerial: string
  token: string
  dialect?: DialectName
}): Claim {
  if (!isDeviceSerial(deviceSerial))
    throw new TypeError(
      'deviceSerial must be 1 to 64 letters, digits, ":", "_", "-" or ".", starting with a letter or digit',
    )
  const secret = typeof token === 'string' ? token.trim() : token
  if (dialect !== 'certvend') {
    if (!isOldToken(secret))
      throw new TypeError('token must be 1 to 512 visible ASCII characters without spaces')
  } else if (!isToken(secret))
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
