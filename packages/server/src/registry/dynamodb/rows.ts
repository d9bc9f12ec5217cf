/**
 * How the items read, and where they lie.
 *
 * The device table is the one of an older vending machine, as it stands, with columns of ours beside
 * its own; the ledger holds the rest, by `pk` and `sk`:
 *
 * ```
 * device#SERIAL        certificate#ID   a certificate, in the order of issue
 * device#SERIAL        event#ID         an audit event; also in the index `trail`
 * certificate#CERTID   -                where that certificate lies
 * key#PUBLICKEY        -                the device that holds it; expires if nothing is recorded
 * thing#THINGNAME      -                the device that has it
 * fleets               NAME             a fleet
 * unknown#CERTID       -                that this certificate was noted as unknown
 * weak-tokens          -                that there is, or was, a weak token
 * ```
 */
import { plainToken, type StoredToken } from '../../tokens.ts'
import {
  type AuditEvent,
  type Certificate,
  type Claim,
  type Device,
  type Fleet,
  type Reservation,
  vendedElsewhere,
} from '../registry.ts'
import type { Item, Ref } from './tables.ts'

/** The columns of the table that is adopted. */
export interface Shape {
  readonly serial: string
  readonly token: string
  /** ARN of the device's certificate. */
  readonly certificateArn?: string
  /** 1 or `"1"`: may enroll. */
  readonly enabled?: string
  /** 1 or `"1"`: has enrolled. */
  readonly registered?: string
  /** Where its function writes the thing's name. */
  readonly thingName?: string
}

/** awslabs 2018 and 2020 (`device-info`), and IoT Atlas (`iot-atlas`). */
export const shapes = {
  'device-info': { serial: 'serialNumber', token: 'deviceToken', certificateArn: 'certinfo' },
  'iot-atlas': {
    serial: 'device_uid',
    token: 'device_token',
    enabled: 'is_enabled',
    registered: 'is_registered',
    thingName: 'iot_core_thing_name',
  },
} as const satisfies Record<string, Shape>

export type ShapeName = keyof typeof shapes

/** Our columns in the device table. */
export const column = (name: string): string => `certvend_${name}`

export const ledgerKeys = {
  certificate: (deviceSerial: string, id: string) =>
    at(`device#${deviceSerial}`, `certificate#${id}`),
  event: (deviceSerial: string, id: string) => at(`device#${deviceSerial}`, `event#${id}`),
  pointer: (certificateId: string) => at(`certificate#${certificateId}`, '-'),
  publicKey: (publicKey: string) => at(`key#${publicKey}`, '-'),
  thing: (thingName: string) => at(`thing#${thingName}`, '-'),
  fleet: (name: string) => at('fleets', name),
  unknown: (certificateId: string) => at(`unknown#${certificateId}`, '-'),
  weakTokens: () => at('weak-tokens', '-'),
}

function at(pk: string, sk: string): Ref['key'] {
  return { pk, sk }
}

const instant = (value: unknown): Date => new Date(Number(value))

/** Leaves out what is undefined. */
const present = <T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } =>
  Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  ) as never

/** The old functions' ones and zeros are numbers in some rows and text in others. */
const isOff = (flag: unknown): boolean => flag === 0 || flag === '0' || flag === false
const isOn = (flag: unknown): boolean => flag === 1 || flag === '1' || flag === true

/** Whether nothing of ours was written to the row yet. */
export const isUntouched = (row: Item): boolean => row[column('claimNumber')] === undefined

/** The token in the clear, if there is one; an empty one is none. */
export function plainTokenOf(row: Item, shape: Shape): string | undefined {
  const value = row[shape.token]
  return (typeof value === 'string' && value !== '') || typeof value === 'number'
    ? String(value)
    : undefined
}

function tokenOf(row: Item, shape: Shape): StoredToken | undefined {
  const hash = row[column('tokenHash')]
  if (hash !== undefined)
    return { kind: row[column('tokenKind')] as StoredToken['kind'], hash: String(hash) }
  const plain = plainTokenOf(row, shape)
  return plain === undefined ? undefined : plainToken(plain)
}

export const thingNameOf = (row: Item, shape: Shape): string =>
  String(row[column('thingName')] ?? (shape.thingName && row[shape.thingName]) ?? row[shape.serial])

export function toDevice(row: Item, shape: Shape): Device {
  const ours = (name: string) => row[column(name)] as string | undefined
  const date = (name: string) => (ours(name) === undefined ? undefined : instant(ours(name)))
  const spentBefore =
    isUntouched(row) && shape.registered !== undefined && isOn(row[shape.registered])
  const again: Claim['again'] =
    ours('claimAgain') === undefined
      ? undefined
      : {
          certificates: Number(ours('claimCertificates') ?? 0),
          ...present({ since: date('claimFirstAt') }),
        }
  return {
    deviceSerial: String(row[shape.serial]),
    thingName: thingNameOf(row, shape),
    ...present({
      policyName: ours('policyName'),
      thingType: ours('thingType'),
      attributes: row[column('attributes')] as Device['attributes'],
      fleet: ours('fleet'),
    }),
    disabled: shape.enabled ? isOff(row[shape.enabled]) : row[column('disabled')] === true,
    claim: {
      number: Number(ours('claimNumber') ?? 1),
      ...present({
        token: tokenOf(row, shape),
        openUntil: date('claimOpenUntil'),
        publicKey: ours('claimPublicKey'),
        certificateId: ours('claimCertificateId') ?? (spentBefore ? vendedElsewhere : undefined),
        again,
      }),
    },
    ...present({
      createdAt: date('createdAt'),
      changedAt: date('changedAt'),
      previousCertificateArn: previousArn(row, shape),
    }),
  }
}

/** What the column for the ARN holds, if it was not written here; or held, before it was. */
export function previousArn(row: Item, shape: Shape): string | undefined {
  const kept = row[column('previousArn')]
  const there = shape.certificateArn && row[shape.certificateArn]
  if (kept !== undefined || there === row[column('arn')]) return kept as string | undefined
  return typeof there === 'string' && there !== '' ? there : undefined
}

export const toReservation = (row: Item, shape: Shape): Reservation => ({
  deviceSerial: String(row[shape.serial]),
  claimNumber: Number(row[column('claimNumber')] ?? 1),
  publicKey: String(row[column('claimPublicKey')]),
  certificateSerial: String(row[column('claimCertificateSerial')]),
  reservedAt: instant(row[column('claimReservedAt')]),
})

/** A certificate as an item; its key is not part of it. */
export const fromCertificate = (certificate: Certificate): Item => ({
  ...certificate,
  notBefore: certificate.notBefore.getTime(),
  notAfter: certificate.notAfter.getTime(),
  issuedAt: certificate.issuedAt.getTime(),
  confirmedAt: certificate.confirmedAt?.getTime(),
})

export const toCertificate = (item: Item): Certificate => ({
  certificateId: String(item.certificateId),
  deviceSerial: String(item.deviceSerial),
  certificateSerial: String(item.certificateSerial),
  publicKey: String(item.publicKey),
  certificateChain: item.certificateChain as string[],
  status: item.status as Certificate['status'],
  thingName: String(item.thingName),
  notBefore: instant(item.notBefore),
  notAfter: instant(item.notAfter),
  issuedAt: instant(item.issuedAt),
  ...present({
    policyName: item.policyName as string | undefined,
    certificateArn: item.certificateArn as string | undefined,
    confirmedAt: item.confirmedAt === undefined ? undefined : instant(item.confirmedAt),
  }),
})

/** An audit event as it waits to be put, without its date object. */
export type EventItem = Omit<AuditEvent, 'at'> & { readonly at: number }

export const toAuditEvent = (item: Item): AuditEvent => ({
  id: String(item.id),
  at: instant(item.at),
  name: item.name as AuditEvent['name'],
  deviceSerial: String(item.deviceSerial),
  ...present({
    certificateId: item.certificateId as string | undefined,
    publicKey: item.publicKey as string | undefined,
    remoteAddress: item.remoteAddress as string | undefined,
    note: item.note as string | undefined,
  }),
})

export const toFleet = (item: Item): Fleet => ({
  name: String(item.sk),
  token: { kind: item.tokenKind as StoredToken['kind'], hash: String(item.tokenHash) },
  createdAt: instant(item.createdAt),
})
