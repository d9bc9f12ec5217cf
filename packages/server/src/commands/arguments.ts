/** How the words of a command line are judged. */
import { isDeviceSerial, isThingName } from '@certvend/client/wire'
import { InvalidArgumentError } from 'commander'
import { type LegacyRoute, legacyNames, readRoute } from '../legacy/routes.ts'

export function wholeNumber(text: string): number {
  if (!/^[1-9][0-9]{0,8}$/.test(text)) throw new InvalidArgumentError('not a whole number above 0.')
  return Number(text)
}

export function port(text: string): number {
  const value = Number(text)
  if (!/^[0-9]{1,5}$/.test(text) || value > 65535)
    throw new InvalidArgumentError('not a port between 0 and 65535.')
  return value
}

export function hostName(text: string): string {
  if (!/^[A-Za-z0-9.:-]{1,253}$/.test(text))
    throw new InvalidArgumentError('not a host name or an IP address.')
  return text
}

export function alpnProtocol(text: string): string {
  if (/^[\x21-\x7e]{1,64}$/.test(text)) return text
  throw new InvalidArgumentError('an ALPN protocol has 1 to 64 printable characters, no spaces.')
}

/** The serial itself is not repeated: it may be 10 000 characters or hold control characters. */
export function deviceSerial(text: string): string {
  if (isDeviceSerial(text)) return text
  throw new InvalidArgumentError(
    'a device serial has 1 to 64 letters, digits or any of : . _ - and starts with a letter or digit.',
  )
}

export function certificateId(text: string): string {
  if (/^[0-9a-f]{64}$/.test(text)) return text
  throw new InvalidArgumentError('a certificate id has 64 digits of 0 to 9 and a to f.')
}

export function thingName(text: string): string {
  if (isThingName(text)) return text
  throw new InvalidArgumentError('a thing name has 1 to 128 letters, digits or any of : _ -')
}

export function thingNameFormat(text: string): string {
  if (text.includes('%DEVICE_UID%') && isThingName(text.replaceAll('%DEVICE_UID%', '0')))
    return text
  throw new InvalidArgumentError('a format of thing names has %DEVICE_UID% in it.')
}

export function fleetName(text: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text)) return text
  throw new InvalidArgumentError(
    'a fleet has 1 to 64 letters, digits or any of . _ - and starts with a letter or digit.',
  )
}

/** AWS IoT's rule for policy names. */
export function policyName(text: string): string {
  if (/^[\w+=,.@-]{1,128}$/.test(text)) return text
  throw new InvalidArgumentError(
    'a policy name has 1 to 128 letters, digits or any of + = , . @ _ -',
  )
}

/** AWS IoT's rules for attributes: name 1 to 128, value up to 800 characters. */
export function attribute(
  text: string,
  given: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const [, name, value] =
    /^([a-zA-Z0-9_.,@/:#=-]{1,128}?)=([a-zA-Z0-9_.,@/:#=[\]-]{0,800})$/.exec(text) ?? []
  if (name === undefined || value === undefined)
    throw new InvalidArgumentError('an attribute is NAME=VALUE, without spaces.')
  return { ...given, [name]: value }
}

/** `NAME` or `NAME=/PREFIX`. */
export function legacyRoute(text: string, given: readonly LegacyRoute[]): readonly LegacyRoute[] {
  const route = readRoute(text)
  if (!route)
    throw new InvalidArgumentError(
      `not an old dialect, optionally with =/PREFIX: ${legacyNames.join(', ')}.`,
    )
  return [...given, route]
}
