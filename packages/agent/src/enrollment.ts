/**
 * What asking for a certificate takes, read from its files: the vending server with its pins, and
 * the claim. Judged here, so that every mistake is named before anything is made or sent.
 */
import {
  type Claim,
  createClaim,
  createVendingServer,
  type DialectName,
  parseTrustAnchors,
  type VendingServer,
} from '@certvend/client'
import type { Sourced } from './config.ts'
import { readDialect, readSaltedToken } from './dialect.ts'
import type { Ways } from './due.ts'
import { configurationError } from './failure.ts'
import { readPlainFile } from './plain-file.ts'
import { readSerial } from './serial.ts'
import type { Settings } from './settings.ts'
import { findToken, readToken } from './token.ts'

/** Whom to ask for a certificate, and with what. */
export interface Enrollment {
  readonly server: VendingServer
  readonly claim: Claim
}

/**
 * Reads and judges everything anew, as a person may just have mended it.
 *
 * @param givenToken instead of the one in a file
 * @throws a configuration error that names the flag, key or file
 */
export function readEnrollment(
  settings: Settings,
  environment: NodeJS.ProcessEnv = process.env,
  givenToken?: string,
): Enrollment {
  const dialect = readDialect(settings.dialect)
  const server = readVendingServer(settings)
  const serial = readSerial(settings.serial, { environment })
  const token =
    givenToken ??
    readSaltedToken(settings.dialect, serial.value, environment) ??
    readConfiguredToken(settings, dialect.name, environment)
  if (token === undefined)
    throw missing(settings, 'token', '--token-file FILE', 'token_file = "FILE"')
  return {
    server,
    claim: judged(givenToken === undefined ? serial.from : 'the token given', () =>
      createClaim({ deviceSerial: serial.value, token, dialect: dialect.name }),
    ),
  }
}

/** As {@link readEnrollment}, for what takes no claim. */
export function readVendingServer(settings: Settings): VendingServer {
  const { url, pins } = settings
  if (!url) throw missing(settings, 'vending server', '--server URL', 'url = "https://…"')
  const dialect = readDialect(settings.dialect)
  const plain = dialect.name === 'express-2017' && url.value.startsWith('http:')
  if (pins.length === 0 && !plain) throw missing(settings, 'pin', '--pin FILE', 'pins = "FILE"')
  const pem = pins.map(readPin)
  return judged(url.from, () => createVendingServer({ url: url.value, pins: pem, dialect }))
}

/** How a certificate is renewed on this gateway. */
export const waysOf = (settings: Settings): Ways => ({
  renew: settings.renew,
  vendingServer: () => readVendingServer(settings),
})

function readConfiguredToken(
  { tokenFile, stateDirectory }: Settings,
  dialect: DialectName,
  environment: NodeJS.ProcessEnv,
): string | undefined {
  const file = tokenFile ?? findToken(stateDirectory, environment)
  return file && readToken(file, environment, dialect)
}

function missing({ configFile }: Settings, what: string, option: string, key: string): Error {
  const where = configFile ?? '/etc/certvend/agent.toml'
  return configurationError(`no ${what}`, `name it: ${option}, or ${key} in ${where}`)
}

function judged<T>(from: string, judge: () => T): T {
  try {
    return judge()
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw configurationError(`${from}: ${error.message.replace(/^deviceSerial /, 'the serial ')}`)
  }
}

const pinHint =
  'a pin is the CA certificate, in PEM, that issued the vending server its certificate'

/**
 * The text of a pin file, which holds CA certificates and nothing else.
 *
 * @throws a configuration error
 */
export function readPin(pin: Sourced): string {
  const { text } = readPlainFile('the pin file', pin)
  const refuse = (why: string): Error =>
    configurationError(`${pin.from}: the pin file ${pin.value} ${why}`, pinHint)
  if (text.trim() === '') throw refuse('is empty')
  try {
    parseTrustAnchors(text)
    return text
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw refuse(`cannot be used: ${error.message}`)
  }
}

/** What has to be said before a dialect is spoken that knows no TLS. */
export const plainHttp = ({ host }: URL): [message: string, hint: string] => [
  `${host} is asked over plain HTTP: whoever is on the way can read the token and the private key, and can put others in their place`,
  'use it only on a network that nobody else is on, put TLS in front of that vending machine, or move to certvend-server',
]

/**
 * Refuses pins that have all expired, which no server can satisfy.
 *
 * @throws a configuration error
 */
export function refuseExpiredPins({ server }: Enrollment, now: Date): void {
  if (server.pins.certificates.length === 0) return // plain HTTP: nobody is vouched for
  const last = new Date(
    Math.max(...server.pins.certificates.map(({ validTo }) => Date.parse(validTo))),
  )
  if (last < now)
    throw configurationError(
      `every pin has expired, the last on ${last.toISOString()}; this device's clock says ${now.toISOString()}`,
      'get the pin of the CA that vouches for the vending server now, or set the clock',
    )
}
