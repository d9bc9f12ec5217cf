/** Single rows of the embedded registry, for the statements around them. */
import type { AuditEvent, Certificate, Device } from './registry.ts'
import { toCertificate, toDevice } from './schema.ts'
import type { Sql } from './sql.ts'

type Note = Pick<AuditEvent, 'name' | 'deviceSerial'> &
  Partial<Pick<AuditEvent, 'certificateId' | 'publicKey' | 'remoteAddress' | 'note'>>

export interface Rows {
  /** Appends to the audit trail; called within the write that it tells of. */
  note(event: Note, at: Date): void
  device(deviceSerial: string): Device | undefined
  certificate(certificateId: string): Certificate | undefined
}

export function createRows({ get, run }: Sql): Rows {
  const note = (event: Note, at: Date): void => {
    run(
      `INSERT INTO audit (at, name, device_serial, certificate_id, public_key, remote_address, note)
       VALUES (:at, :name, :deviceSerial, :certificateId, :publicKey, :remoteAddress, :note)`,
      {
        certificateId: null,
        publicKey: null,
        remoteAddress: null,
        note: null,
        ...event,
        at: at.getTime(),
      },
    )
  }

  const device = (deviceSerial: string): Device | undefined => {
    const row = get('SELECT * FROM devices WHERE device_serial = :deviceSerial', { deviceSerial })
    return row && toDevice(row)
  }
  const certificate = (certificateId: string) => {
    const row = get('SELECT * FROM certificates WHERE certificate_id = :certificateId', {
      certificateId,
    })
    return row && toCertificate(row)
  }
  return { note, device, certificate }
}
