/** How a device reads, for people and for programs. No token and no hash of one is ever shown. */
import {
  type AuditEvent,
  type Certificate,
  type Device,
  deviceState,
} from '../registry/registry.ts'
import type { StoredToken } from '../tokens.ts'

export const deviceLineHeading: string = columns('SERIAL', 'STATE', 'THING', 'CERTIFICATE UNTIL')

/** One line of `device list`. */
export function deviceLine(
  device: Device,
  certificates: readonly Certificate[],
  now: Date,
): string {
  const current = certificates.find((certificate) => certificate.status === 'ACTIVE')
  return columns(
    device.deviceSerial,
    deviceState(device, now),
    device.thingName,
    current ? current.notAfter.toISOString() : '-',
  )
}

/** The header of `device export`. */
export const deviceTableHeading =
  'serial,state,thingName,policyName,thingType,fleet,token,certificateId,notAfter,firstSession\n'

/** One line of `device export` (RFC 4180; no field of ours needs a line break). */
export function deviceTable(
  device: Device,
  certificates: readonly Certificate[],
  now: Date,
): string {
  const current = certificates.find((certificate) => certificate.status === 'ACTIVE')
  const fields = [
    device.deviceSerial,
    deviceState(device, now),
    device.thingName,
    device.policyName,
    device.thingType,
    device.fleet,
    tokenWord(device.claim.token),
    current?.certificateId,
    current?.notAfter.toISOString(),
    current?.confirmedAt?.toISOString(),
  ]
  const quoted = (text = '') => (/[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  return `${fields.map(quoted).join(',')}\n`
}

function columns(...cells: readonly [string, string, string, string]): string {
  const widths = [24, 10, 24, 0]
  return `${cells
    .map((cell, index) => cell.padEnd(widths[index]!))
    .join('  ')
    .trimEnd()}\n`
}

/** `in the clear`: in an adopted table, until the first claim is accepted. */
const tokenWord = (token: StoredToken | undefined): string =>
  token ? { sha256: 'strong', scrypt: 'weak', plain: 'in the clear' }[token.kind] : 'none'

/** `--json` of a device. */
export function deviceDocument(device: Device, certificates: readonly Certificate[], now: Date) {
  const { claim, ...rest } = device
  const { token, ...facts } = claim
  return {
    ...rest,
    state: deviceState(device, now),
    claim: { ...facts, token: tokenWord(token) },
    certificates: certificates.map(({ certificateChain: _, ...certificate }) => certificate),
  }
}

/** `device show`. */
export function describeDevice(
  device: Device,
  certificates: readonly Certificate[],
  events: readonly AuditEvent[],
  now: Date,
): string {
  const { claim } = device
  const lines: string[] = []
  const fact = (name: string, value: string | undefined) => {
    if (value !== undefined) lines.push(`${`${name}:`.padEnd(14)}${value}`)
  }
  fact('serial', device.deviceSerial)
  fact('state', deviceState(device, now))
  fact('thing', device.thingName)
  fact('policy', device.policyName)
  fact('thing type', device.thingType)
  fact('fleet', device.fleet)
  for (const [name, value] of Object.entries(device.attributes ?? {})) fact(name, value)
  fact('token', tokenWord(claim.token))
  fact('open until', claim.publicKey ? undefined : claim.openUntil?.toISOString())
  fact('key', claim.publicKey)
  fact('vended', claim.again && `${claim.again.certificates} times, the key made here`)
  fact('added', device.createdAt?.toISOString())
  for (const certificate of certificates) {
    lines.push('', `certificate ${certificate.certificateId}`)
    lines.push(`  ${certificate.status}, until ${certificate.notAfter.toISOString()}`)
    const { confirmedAt } = certificate
    lines.push(`  ${confirmedAt ? `first session ${confirmedAt.toISOString()}` : 'no session yet'}`)
  }
  if (events.length > 0) lines.push('', 'latest events')
  for (const event of events) lines.push(`  ${eventLine(event, false)}`)
  return `${lines.join('\n')}\n`
}

/** One audit event on one line. */
export function eventLine(event: AuditEvent, withSerial: boolean): string {
  const { at, name, note, remoteAddress, deviceSerial } = event
  const isAlarm = name.endsWith('-conflict') || name === 'certificate-unknown'
  const rest = [note, remoteAddress && `from ${remoteAddress}`].filter(Boolean).join(', ')
  const who = withSerial ? `  ${deviceSerial}` : ''
  return `${at.toISOString()}${who}  ${name}${rest ? `  ${rest}` : ''}${isAlarm ? '  ALARM' : ''}`
}
