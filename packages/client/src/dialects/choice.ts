/** Which dialect a vending server speaks, and what that dialect has to be told beforehand. */
import { type Endpoint, isThingName } from '../wire.ts'

/** By the year, where one project changed its ways. `docs/dialects.md` tells them apart. */
export type DialectName =
  | 'certvend'
  | 'awslabs-2018'
  | 'awslabs-2020'
  | 'iot-atlas'
  | 'gateway-2021'
  | 'express-2017'

/** Every dialect; the first is our own. */
export const dialectNames: readonly DialectName[] = [
  'certvend',
  'awslabs-2018',
  'awslabs-2020',
  'iot-atlas',
  'gateway-2021',
  'express-2017',
]

/** How a vending machine speaks, with what it does not say itself. */
export interface DialectOptions {
  readonly name: DialectName
  /** The MQTT server, where the vending machine does not name it; where it does, this holds all the same. */
  readonly endpoint?: Endpoint
  /** The thing's name, where the vending machine does not give it. Default: the device serial. */
  readonly thingName?: string
  /** gateway-2021: what stands before the token in `Authorization`. Default `DeviceToken`. */
  readonly authorizationScheme?: string
}

const needEndpoint: readonly DialectName[] = [
  'awslabs-2018',
  'awslabs-2020',
  'gateway-2021',
  'express-2017',
]

/**
 * Judges a choice.
 *
 * @throws TypeError when the dialect is unknown, or is told too little or too much.
 */
export function chooseDialect(choice: DialectName | DialectOptions): DialectOptions {
  const options: DialectOptions = typeof choice === 'string' ? { name: choice } : choice
  const { name, endpoint, thingName, authorizationScheme } = options
  if (!dialectNames.includes(name))
    throw new TypeError(`the dialect must be one of ${dialectNames.join(', ')}`)
  if (name === 'certvend' && (endpoint ?? thingName) !== undefined)
    throw new TypeError('the dialect certvend is given endpoint and thingName by the server')
  if (name === 'iot-atlas' && thingName !== undefined)
    throw new TypeError('the dialect iot-atlas is given thingName by the server')
  if (endpoint === undefined && needEndpoint.includes(name))
    throw new TypeError(`the dialect ${name} does not name the MQTT server: give its endpoint`)
  if (thingName !== undefined && !isThingName(thingName))
    throw new TypeError('thingName must be 1 to 128 letters, digits, ":", "_" or "-"')
  if (authorizationScheme !== undefined) {
    if (name !== 'gateway-2021')
      throw new TypeError('authorizationScheme belongs to the dialect gateway-2021')
    // RFC 9110 section 5.6.2: a token.
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/.test(authorizationScheme))
      throw new TypeError('authorizationScheme must be one word')
  }
  return options
}
