/**
 * What asking for a certificate takes, read from its files: the vending server with its pins, and
 * the claim. Judged here, so that every mistake is named before anything is made or sent.
 */
import fs from 'node:fs'
import path from 'node:path'
import {
  type Claim,
  createClaim,
  createVendingServer,
  parseTrustAnchors,
  type VendingServer,
} from '@certvend/client'
import type { Sourced } from './config.ts'
import { configurationError } from './failure.ts'
import type { Settings } from './settings.ts'

export interface Enrollment {
  readonly server: VendingServer
  readonly claim: Claim
}

/**
 * Reads and judges everything anew, as a person may just have mended it.
 *
 * @throws a configuration error that names the flag, key or file
 */
export function readEnrollment(
  settings: Settings,
  environment: NodeJS.ProcessEnv = process.env,
): Enrollment {
  const { url, pins, serial, tokenFile } = settings
  const where = settings.configFile ?? '/etc/certvend/agent.toml'
  const missing = (what: string, option: string, key: string): Error =>
    configurationError(`no ${what}`, `name it: ${option}, or ${key} in ${where}`)
  if (!url) throw missing('vending server', '--server URL', 'url = "https://…"')
  if (pins.length === 0) throw missing('pin', '--pin FILE', 'pins = "FILE"')
  if (!serial) throw missing('device serial', '--serial SERIAL', 'serial = "…"')
  if (!tokenFile) throw missing('token file', '--token-file FILE', 'token_file = "FILE"')
  const pem = pins.map(readPin)
  const token = readToken(tokenFile, environment)
  return {
    server: judged(url.from, () => createVendingServer({ url: url.value, pins: pem })),
    claim: judged(serial.from, () => createClaim({ deviceSerial: serial.value, token })),
  }
}

function judged<T>(from: string, judge: () => T): T {
  try {
    return judge()
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw configurationError(`${from}: ${error.message.replace(/^deviceSerial /, 'the serial ')}`)
  }
}

const largestFile = 256 * 1024

function readPlainFile(
  what: string,
  { value: file, from }: Sourced,
): { text: string; found: fs.Stats } {
  try {
    const descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
    try {
      const found = fs.fstatSync(descriptor)
      if (!found.isFile()) throw configurationError(`${from}: ${what} ${file} is not a plain file`)
      if (found.size > largestFile)
        throw configurationError(`${from}: ${what} ${file} is too large`)
      return { text: fs.readFileSync(descriptor, 'utf8'), found }
    } finally {
      fs.closeSync(descriptor)
    }
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    if (syscall === undefined) throw error
    if (code === 'ENOENT') throw configurationError(`${from}: ${what} ${file} does not exist`)
    throw configurationError(`${from}: cannot read ${what} ${file} (${code})`)
  }
}

const pinHint =
  'a pin is the CA certificate, in PEM, that issued the vending server its certificate'

function readPin(pin: Sourced): string {
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

/** Readable or writable by others, or writable by the group. A group may read: daemons are given files so. */
const tooOpen = 0o027

function readToken(tokenFile: Sourced, environment: NodeJS.ProcessEnv): string {
  const { value: file, from } = tokenFile
  const { text, found } = readPlainFile('the token file', tokenFile)
  // systemd guards the directory of credentials, whatever the modes in it look like from inside.
  const guarded =
    environment.CREDENTIALS_DIRECTORY !== undefined &&
    path.dirname(file) === path.resolve(environment.CREDENTIALS_DIRECTORY)
  if (!guarded && (found.mode & tooOpen) !== 0)
    throw configurationError(
      `${from}: the token file ${file} is open to other users`,
      `take that away: chmod 600 ${file}`,
    )
  const token = text.trim()
  if (token === '') throw configurationError(`${from}: the token file ${file} is empty`)
  try {
    return createClaim({ deviceSerial: 'any', token }).token
  } catch {
    throw configurationError(
      `${from}: the token file ${file} holds no token`,
      'a token is 8 to 512 letters, digits and -._~+/ on one line, and nothing else is in the file',
    )
  }
}

/**
 * Refuses pins that have all expired, which no server can satisfy.
 *
 * @throws a configuration error
 */
export function refuseExpiredPins({ server }: Enrollment, now: Date): void {
  const last = new Date(
    Math.max(...server.pins.certificates.map(({ validTo }) => Date.parse(validTo))),
  )
  if (last < now)
    throw configurationError(
      `every pin has expired, the last on ${last.toISOString()}; this device's clock says ${now.toISOString()}`,
      'get the pin of the CA that vouches for the vending server now, or set the clock',
    )
}
