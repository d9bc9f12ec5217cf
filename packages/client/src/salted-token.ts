/**
 * Tokens that are made of a secret which a whole product shares, its salt, and the device's serial:
 * what the devices of AWS IoT Atlas send. The salt itself never leaves the device.
 *
 * Two formulas are in the field, under one README. Both come out as 64 lower-case hex digits.
 */
import { createHash, createHmac } from 'node:crypto'

/**
 * - `sha256`: SHA-256 of `salt//serial`, as the Atlas says.
 * - `hmac-sha256`: HMAC-SHA256 with the salt as key and the serial as message, as its CDK packaging does.
 */
export type TokenFormula = 'sha256' | 'hmac-sha256'

/** Every {@link TokenFormula}. */
export const tokenFormulas: readonly TokenFormula[] = ['sha256', 'hmac-sha256']

/** @throws RangeError for another formula; TypeError for an empty salt */
export function saltedToken(
  formula: TokenFormula,
  { salt, deviceSerial }: { readonly salt: string; readonly deviceSerial: string },
): string {
  if (salt === '') throw new TypeError('the salt is empty')
  switch (formula) {
    case 'sha256':
      return createHash('sha256').update(`${salt}//${deviceSerial}`).digest('hex')
    case 'hmac-sha256':
      return createHmac('sha256', salt).update(deviceSerial).digest('hex')
    default:
      throw new RangeError(`the token formula must be one of ${tokenFormulas.join(', ')}`)
  }
}
