/** Rows under our names, and how they read. Instants are milliseconds since 1970. */
import { plainToken, type StoredToken } from '../../tokens.ts'
import type {
  AuditEvent,
  AuditName,
  Certificate,
  CertificateStatus,
  Device,
  Fleet,
} from '../registry.ts'
import { type Engine, get, type Row, run, type Work } from './work.ts'

type Note = Omit<AuditEvent, 'id' | 'at'>

export interface Rows {
  /** Appends to the audit trail; part of the write that it tells of. */
  note(event: Note, at: Date): Work<void>
  /** The row of a device, under our names. */
  deviceRow(deviceSerial: string): Work<Row | undefined>
  /** The same, and nobody else changes it until the end. */
  lockDevice(deviceSerial: string): Work<Row | undefined>
  certificate(certificateId: string): Work<Certificate | undefined>
  lockCertificate(certificateId: string): Work<Certificate | undefined>
}

export function createRows(engine: Engine): Rows {
  const { devices, forUpdate } = engine
  const audit = engine.table('audit')
  const selectDevice = `SELECT ${devices.select} FROM ${devices.name} WHERE ${devices.hasSerial}`
  const selectCertificate = `SELECT * FROM ${engine.table('certificates')} WHERE certificate_id = :certificateId`
  return {
    *note(event, at) {
      yield* run(
        `INSERT INTO ${audit} (at, name, device_serial, certificate_id, public_key, remote_address, note)
         VALUES (:at, :name, :deviceSerial, :certificateId, :publicKey, :remoteAddress, :note)`,
        {
          name: event.name,
          deviceSerial: event.deviceSerial,
          certificateId: event.certificateId,
          publicKey: event.publicKey,
          remoteAddress: event.remoteAddress,
          note: event.note,
          at: at.getTime(),
        },
      )
    },
    deviceRow: (deviceSerial) => get(selectDevice, { deviceSerial }),
    lockDevice: (deviceSerial) => get(`${selectDevice} ${forUpdate}`, { deviceSerial }),
    *certificate(certificateId) {
      const row = yield* get(selectCertificate, { certificateId })
      return row && toCertificate(row)
    },
    *lockCertificate(certificateId) {
      const row = yield* get(`${selectCertificate} ${forUpdate}`, { certificateId })
      return row && toCertificate(row)
    },
  }
}

type Value = string | number | null | undefined

const text = (value: Value): string => String(value)
const instant = (value: Value): Date => new Date(Number(value))
const maybe = (value: Value): string | null =>
  value === null || value === undefined ? null : text(value)
const maybeInstant = (value: Value): Date | null =>
  value === null || value === undefined ? null : instant(value)

/** Leaves out the fields that are null: an absent fact is absent, never null or zero. */
const present = <T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)) as never

function toToken(row: Row): StoredToken | null {
  if (row.token_hash !== null)
    return { kind: row.token_kind as StoredToken['kind'], hash: text(row.token_hash) }
  const plain = maybe(row.plain_token)
  return plain === null || plain === '' ? null : plainToken(plain)
}

const toAgain = (row: Row) => ({
  certificates: Number(row.claim_certificates),
  ...present({ since: maybeInstant(row.claim_first_at) }),
})

export const toDevice = (row: Row): Device => ({
  deviceSerial: text(row.device_serial),
  thingName: text(row.thing_name),
  ...present({
    policyName: maybe(row.policy_name),
    thingType: maybe(row.thing_type),
    attributes: row.attributes === null ? null : JSON.parse(text(row.attributes)),
    fleet: maybe(row.fleet),
  }),
  disabled: Number(row.disabled) === 1,
  claim: {
    number: Number(row.claim_number),
    ...present({
      token: toToken(row),
      openUntil: maybeInstant(row.claim_open_until),
      publicKey: maybe(row.claim_public_key),
      certificateId: maybe(row.claim_certificate_id),
      again: Number(row.claim_again) === 0 ? null : toAgain(row),
    }),
  },
  ...present({
    createdAt: maybeInstant(row.created_at),
    changedAt: maybeInstant(row.changed_at),
  }),
})

export const toFleet = (row: Row): Fleet => ({
  name: text(row.name),
  token: { kind: row.token_kind as StoredToken['kind'], hash: text(row.token_hash) },
  createdAt: instant(row.created_at),
})

export const toCertificate = (row: Row): Certificate => ({
  certificateId: text(row.certificate_id),
  deviceSerial: text(row.device_serial),
  certificateSerial: text(row.certificate_serial),
  publicKey: text(row.public_key),
  certificateChain: JSON.parse(text(row.chain)),
  status: row.status as CertificateStatus,
  thingName: text(row.thing_name),
  notBefore: instant(row.not_before),
  notAfter: instant(row.not_after),
  issuedAt: instant(row.issued_at),
  ...present({
    policyName: maybe(row.policy_name),
    confirmedAt: maybeInstant(row.confirmed_at),
    certificateArn: maybe(row.certificate_arn),
  }),
})

export const toAuditEvent = (row: Row): AuditEvent => ({
  id: text(row.id),
  at: instant(row.at),
  name: row.name as AuditName,
  deviceSerial: text(row.device_serial),
  ...present({
    certificateId: maybe(row.certificate_id),
    publicKey: maybe(row.public_key),
    remoteAddress: maybe(row.remote_address),
    note: maybe(row.note),
  }),
})
