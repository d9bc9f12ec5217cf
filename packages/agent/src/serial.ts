/**
 * The device serial, from wherever this kind of device keeps it.
 *
 * Two devices must never show the same serial, so what manufacturers print where a serial belongs
 * ("To be filled by O.E.M.") is refused, and the machine id is never sent as it is: it is a secret
 * of this machine (machine-id(5)), and what is derived from it for one application tells nothing of it.
 */
import { spawnSync } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { createClaim } from '@certvend/client'
import type { Sourced } from './config.ts'
import { configurationError } from './failure.ts'
import { readPlainFile } from './plain-file.ts'

export const serialOrigins = ['device-tree', 'dmi', 'machine-id'] as const

/** What `serial` in `agent.toml` says, and where. */
export type SerialSource = { readonly from: string } & (
  | { readonly kind: 'literal'; readonly value: string }
  | { readonly kind: 'file'; readonly file: string }
  | { readonly kind: 'command'; readonly command: readonly string[] }
  | { readonly kind: (typeof serialOrigins)[number] }
  /** The device tree's where the board has one, else derived from the machine id. */
  | { readonly kind: 'default' }
)

/**
 * For sd_id128_get_machine_app_specific(3): the derived serial is what
 * `systemd-id128 machine-id --app-specific=` prints for this id.
 */
export const applicationId = 'c1d2a7f04e0b4e5c9d3a6b8f27e15a90'

const longestRunMs = 10_000

export interface SerialOptions {
  readonly environment?: NodeJS.ProcessEnv
  /** Where `/etc` and `/sys` are. Default `/`. */
  readonly root?: string
}

/**
 * Reads the serial now.
 *
 * @throws a configuration error that names where it was looked for
 */
export function readSerial(source: SerialSource, options: SerialOptions = {}): Sourced {
  const { from } = source
  switch (source.kind) {
    case 'literal':
      return judged({ value: source.value, from })
    case 'file':
      return judged(fromFile(source.file, from, 'the serial file'))
    case 'command':
      return judged(fromCommand(source.command, from))
    case 'device-tree':
      return judged(fromDeviceTree(from, options))
    case 'dmi':
      return judged(fromDmi(from, options))
    case 'machine-id':
      return judged(fromMachineId(from, options))
    case 'default':
      return judged(
        existsSync(deviceTree(options))
          ? fromDeviceTree(from, options)
          : fromMachineId(from, options),
      )
  }
}

const deviceTree = ({ root = '/' }: SerialOptions): string =>
  path.join(root, 'sys/firmware/devicetree/base/serial-number')

function fromFile(file: string, from: string, what: string): Sourced {
  const { text } = readPlainFile(what, { value: file, from })
  return { value: text.replace(/\0+$/, '').trim(), from: `${from}: ${file}` }
}

const fromDeviceTree = (from: string, options: SerialOptions): Sourced =>
  fromFile(deviceTree(options), from, 'the device tree’s serial')

/** Only root reads it; the service is given a copy by systemd (LoadCredential=). */
function fromDmi(from: string, { environment = {}, root = '/' }: SerialOptions): Sourced {
  const handed = environment.CREDENTIALS_DIRECTORY
  const given = handed === undefined ? '' : path.join(handed, 'dmi-serial')
  const file = existsSync(given) ? given : path.join(root, 'sys/class/dmi/id/product_serial')
  return fromFile(file, from, 'the DMI serial')
}

function fromMachineId(from: string, { root = '/' }: SerialOptions): Sourced {
  const file = path.join(root, 'etc/machine-id')
  const found = fromFile(file, from, 'the machine id')
  if (!/^[0-9a-f]{32}$/.test(found.value) || /^0+$/.test(found.value))
    throw configurationError(
      `${found.from} holds no machine id`,
      'systemd makes one at boot; or name another serial: serial = "…"',
    )
  return { value: derived(found.value), from: found.from }
}

/** As sd_id128_get_machine_app_specific(3): HMAC-SHA256, cut to 128 bits, marked as a random UUID. */
function derived(machineId: string): string {
  const bytes = createHmac('sha256', Buffer.from(machineId, 'hex'))
    .update(Buffer.from(applicationId, 'hex'))
    .digest()
    .subarray(0, 16)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x40, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  return bytes.toString('hex')
}

/** Without a shell; what it says on stderr is for the log of whoever wrote it. */
function fromCommand([program = '', ...args]: readonly string[], from: string): Sourced {
  const run = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: longestRunMs,
    maxBuffer: 4096,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const why = run.error
    ? (run.error as NodeJS.ErrnoException).code
    : run.signal
      ? run.signal
      : run.status === 0
        ? undefined
        : `exit code ${run.status}`
  if (why !== undefined) throw configurationError(`${from}: ${program} gave no serial (${why})`)
  return { value: run.stdout.trim(), from: `${from}: ${program}` }
}

/** What is printed where a serial belongs, on more than one device. */
const placeholder =
  /^(0+|f+|none|n\/?a|unknown|not (specified|applicable|available)|to be filled by o\.?e\.?m\.?|default string|system serial number|(chassis )?serial( number)?|0?123456789(abcdef|0)?|oem)$/i

function judged({ value, from }: Sourced): Sourced {
  if (value === '') throw configurationError(`${from}: the serial is empty`)
  if (placeholder.test(value))
    throw configurationError(
      `${from}: this is what many devices show instead of a serial`,
      'name another source, for example: serial = { from = "machine-id" }',
    )
  try {
    createClaim({ deviceSerial: value, token: 'not-a-token' })
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw configurationError(`${from}: ${error.message.replace(/^deviceSerial /, 'the serial ')}`)
  }
  return { value, from }
}
