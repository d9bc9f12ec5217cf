/**
 * The embedded registry: one SQLite database through libsql, for one machine.
 *
 * Write-ahead log with `synchronous=FULL`: what was answered survives a power cut. Several processes
 * may use one file at a time (`serve` and the `device` commands do). Files are 0600.
 */
import { closeSync, openSync } from 'node:fs'
import Database from 'libsql'
import {
  type AuditEvent,
  type ClaimOutcome,
  type Device,
  type Registry,
  type ReserveRequest,
  registryBusy,
  reservationMs,
} from './registry.ts'
import { type Row, schema, schemaVersion, toAuditEvent, toCertificate, toDevice } from './schema.ts'

type Value = string | number | null | undefined
type Named = Readonly<Record<string, Value>>
type Note = Pick<AuditEvent, 'name' | 'deviceSerial'> &
  Partial<Pick<AuditEvent, 'certificateId' | 'publicKey' | 'remoteAddress' | 'note'>>

/** How long a write waits for another process's, in milliseconds, before it says busy. */
const busyTimeoutMs = 5_000

const isBusy = (error: unknown): boolean =>
  error instanceof Error && /^SQLITE_(BUSY|LOCKED)/.test(String((error as { code?: unknown }).code))

const orBusy = <T>(work: () => T): T => {
  try {
    return work()
  } catch (error) {
    throw isBusy(error) ? registryBusy(error) : error
  }
}

/**
 * Opens the registry in the file `path`, and creates it if there is none.
 *
 * @param path a file in an existing directory, or `:memory:`
 * @throws Error if the file was made by another version, or is not a database
 */
export function openLibsqlRegistry(path: string): Registry {
  if (path !== ':memory:') closeSync(openSync(path, 'a', 0o600)) // SQLite copies this mode to -wal and -shm
  const db = new Database(path)
  try {
    prepareDatabase(db)
  } catch (error) {
    db.close()
    throw error
  }
  return libsqlRegistry(db)
}

function prepareDatabase(db: Database.Database): void {
  db.pragma(`busy_timeout = ${busyTimeoutMs}`)
  db.pragma('journal_mode = WAL')
  db.pragma('synchronous = FULL')
  db.pragma('foreign_keys = ON')
  db.transaction(() => {
    const row = db.prepare('PRAGMA user_version').get() as Row
    if (row.user_version === 0) db.exec(schema)
    else if (row.user_version !== schemaVersion)
      throw new Error(
        `the registry has schema version ${row.user_version}, this program knows version ${schemaVersion}`,
      )
  }).immediate()
}

function libsqlRegistry(db: Database.Database): Registry {
  const bind = (values: Named): Record<string, string | number | null> =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value ?? null]))
  const get = (sql: string, values: Named = {}): Row | undefined =>
    db.prepare(sql).get(bind(values)) as Row | undefined
  const all = (sql: string, values: Named): Row[] => db.prepare(sql).all(bind(values)) as Row[]
  const run = (sql: string, values: Named): number => db.prepare(sql).run(bind(values)).changes
  const read = async <T>(work: () => T): Promise<T> => orBusy(work)
  /** One atomic write: everything in `work`, or nothing. */
  const write = async <T>(work: () => T): Promise<T> =>
    orBusy(() => db.transaction(work).immediate())

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
  const isRevokedKey = (publicKey: string): boolean =>
    get(`SELECT 1 FROM certificates WHERE public_key = :publicKey AND status = 'REVOKED'`, {
      publicKey,
    }) !== undefined

  /** What the claim says to this key, when no condition let a write through. */
  const judge = (request: Omit<ReserveRequest, 'certificateSerial'>): ClaimOutcome => {
    const refused = (reason: Extract<ClaimOutcome, { outcome: 'refused' }>['reason']) =>
      ({ outcome: 'refused', reason }) as const
    const { deviceSerial, publicKey, at } = request
    const found = device(deviceSerial)
    if (!found || found.claim.number !== request.claimNumber) return refused('claim-gone')
    if (found.disabled) return refused('device-disabled')
    const { claim } = found
    if (claim.publicKey === publicKey) {
      if (!claim.certificateId) return reserved(found)
      const held = certificate(claim.certificateId)
      if (held?.status === 'REVOKED') return refused('certificate-revoked')
      return held?.status === 'ACTIVE' && held.notAfter > at
        ? { outcome: 'issued', device: found, certificate: held }
        : refused('certificate-finished')
    }
    const alarm = (name: 'claim-conflict' | 'key-conflict') => {
      const { remoteAddress } = request
      note({ name, deviceSerial, publicKey, ...(remoteAddress && { remoteAddress }) }, at)
      return refused(name)
    }
    if (claim.publicKey) return alarm('claim-conflict')
    const holder = get('SELECT device_serial FROM public_keys WHERE public_key = :publicKey', {
      publicKey,
    })
    if (holder && holder.device_serial !== deviceSerial) return alarm('key-conflict')
    if (isRevokedKey(publicKey)) return refused('certificate-revoked')
    return refused('claim-expired')
  }

  const reserved = (found: Device): ClaimOutcome => {
    const row = get(
      `SELECT claim_public_key, claim_certificate_serial, claim_reserved_at FROM devices
       WHERE device_serial = :deviceSerial`,
      { deviceSerial: found.deviceSerial },
    )!
    return {
      outcome: 'reserved',
      device: found,
      reservation: {
        deviceSerial: found.deviceSerial,
        claimNumber: found.claim.number,
        publicKey: String(row.claim_public_key),
        certificateSerial: String(row.claim_certificate_serial),
        reservedAt: new Date(Number(row.claim_reserved_at)),
      },
    }
  }

  return {
    add: (description, token, at) =>
      write(() => {
        const { deviceSerial, thingName } = description
        if (device(deviceSerial)) return 'serial-taken'
        if (get('SELECT 1 FROM devices WHERE thing_name = :thingName', { thingName }))
          return 'thing-name-taken'
        run(
          `INSERT INTO devices (device_serial, thing_name, policy_name, thing_type, attributes,
             token_kind, token_hash, claim_number, created_at, changed_at)
           VALUES (:deviceSerial, :thingName, :policyName, :thingType, :attributes,
             :kind, :hash,
             (SELECT 1 + count(*) FROM audit WHERE device_serial = :deviceSerial), :at, :at)`,
          {
            deviceSerial,
            thingName,
            policyName: description.policyName,
            thingType: description.thingType,
            attributes: description.attributes && JSON.stringify(description.attributes),
            kind: token?.kind,
            hash: token?.hash,
            at: at.getTime(),
          },
        )
        note({ name: 'device-added', deviceSerial }, at)
        return 'added'
      }),

    find: (deviceSerial) => read(() => device(deviceSerial)),

    list: ({ after = '', limit }) =>
      read(() =>
        all(
          `SELECT * FROM devices WHERE device_serial > :after ORDER BY device_serial LIMIT :limit`,
          { after, limit },
        ).map(toDevice),
      ),

    hasWeakTokens: () =>
      read(() => get(`SELECT 1 FROM devices WHERE token_kind = 'scrypt' LIMIT 1`) !== undefined),

    reserve: (request) =>
      write(() => {
        const { deviceSerial, publicKey, at } = request
        const values = {
          deviceSerial,
          claimNumber: request.claimNumber,
          publicKey,
          certificateSerial: request.certificateSerial,
          at: at.getTime(),
        }
        const bound = run(
          `UPDATE devices SET claim_public_key = :publicKey,
             claim_certificate_serial = :certificateSerial, claim_reserved_at = :at, changed_at = :at
           WHERE device_serial = :deviceSerial AND claim_number = :claimNumber
             AND claim_public_key IS NULL AND disabled = 0
             AND (claim_open_until IS NULL OR claim_open_until > :at)
             AND NOT EXISTS (SELECT 1 FROM public_keys
               WHERE public_key = :publicKey AND device_serial <> :deviceSerial)
             AND NOT EXISTS (SELECT 1 FROM certificates
               WHERE public_key = :publicKey AND status = 'REVOKED')`,
          values,
        )
        if (bound === 1) {
          run('INSERT OR IGNORE INTO public_keys VALUES (:publicKey, :deviceSerial)', {
            publicKey,
            deviceSerial,
          })
          const { remoteAddress } = request
          note(
            {
              name: 'claim-reserved',
              deviceSerial,
              publicKey,
              ...(remoteAddress && { remoteAddress }),
            },
            at,
          )
        } else {
          run(
            `UPDATE devices SET claim_certificate_serial = :certificateSerial, claim_reserved_at = :at
             WHERE device_serial = :deviceSerial AND claim_number = :claimNumber
               AND claim_public_key = :publicKey AND claim_certificate_id IS NULL AND disabled = 0
               AND claim_reserved_at <= :stale`,
            { ...values, stale: at.getTime() - reservationMs },
          )
        }
        return judge(request)
      }),

    record: (reservation, issued, at) =>
      write(() => {
        const { deviceSerial, claimNumber, publicKey, certificateSerial } = reservation
        const { certificateId } = issued
        const recorded = run(
          `UPDATE devices SET claim_certificate_id = :certificateId, changed_at = :at
           WHERE device_serial = :deviceSerial AND claim_number = :claimNumber AND disabled = 0
             AND claim_public_key = :publicKey AND claim_certificate_serial = :certificateSerial
             AND claim_certificate_id IS NULL`,
          {
            deviceSerial,
            claimNumber,
            publicKey,
            certificateSerial,
            certificateId,
            at: at.getTime(),
          },
        )
        if (recorded === 1) {
          run(
            `INSERT INTO certificates (certificate_id, device_serial, certificate_serial, public_key,
               chain, status, thing_name, policy_name, not_before, not_after, issued_at)
             SELECT :certificateId, device_serial, :certificateSerial, :publicKey,
               :chain, 'ACTIVE', thing_name, policy_name, :notBefore, :notAfter, :at
             FROM devices WHERE device_serial = :deviceSerial`,
            {
              certificateId,
              certificateSerial,
              publicKey,
              deviceSerial,
              chain: JSON.stringify(issued.certificateChain),
              notBefore: issued.notBefore.getTime(),
              notAfter: issued.notAfter.getTime(),
              at: at.getTime(),
            },
          )
          note({ name: 'certificate-issued', deviceSerial, publicKey, certificateId }, at)
        }
        return judge({ deviceSerial, claimNumber, publicKey, at })
      }),

    confirm: (certificateId, at) =>
      write(() => {
        const confirmed = run(
          `UPDATE certificates SET confirmed_at = :at
           WHERE certificate_id = :certificateId AND status = 'ACTIVE' AND confirmed_at IS NULL`,
          { certificateId, at: at.getTime() },
        )
        if (confirmed === 0) return
        const held = certificate(certificateId)!
        const { deviceSerial } = held
        note({ name: 'certificate-confirmed', deviceSerial, certificateId }, at)
        const older = all(
          `UPDATE certificates SET status = 'INACTIVE' WHERE device_serial = :deviceSerial
             AND status = 'ACTIVE' AND certificate_id <> :certificateId AND issued_at <= :issuedAt
           RETURNING certificate_id`,
          { deviceSerial, certificateId, issuedAt: held.issuedAt.getTime() },
        )
        for (const row of older)
          noteStatus(String(row.certificate_id), deviceSerial, 'INACTIVE', at)
      }),

    findCertificate: (certificateId) => read(() => certificate(certificateId)),

    certificates: (deviceSerial) =>
      read(() =>
        all(
          `SELECT * FROM certificates WHERE device_serial = :deviceSerial
           ORDER BY issued_at DESC, rowid DESC`,
          { deviceSerial },
        ).map(toCertificate),
      ),

    setCertificateStatus: (certificateId, status, at) =>
      write(() => {
        const row = get(
          `UPDATE certificates SET status = :status
           WHERE certificate_id = :certificateId AND (status <> 'REVOKED' OR :status = 'REVOKED')
           RETURNING device_serial`,
          { certificateId, status },
        )
        if (row) noteStatus(certificateId, String(row.device_serial), status, at)
        return row !== undefined
      }),

    setDisabled: (deviceSerial, disabled, at) =>
      write(() => {
        const changed = run(
          'UPDATE devices SET disabled = :disabled, changed_at = :at WHERE device_serial = :deviceSerial',
          { deviceSerial, disabled: disabled ? 1 : 0, at: at.getTime() },
        )
        if (changed === 1)
          note({ name: disabled ? 'device-disabled' : 'device-enabled', deviceSerial }, at)
        return changed === 1
      }),

    rearm: (deviceSerial, how, at) =>
      write(() => {
        const kept = how.token === 'keep'
        const changed = run(
          `UPDATE devices SET claim_number = claim_number + 1, claim_open_until = :openUntil,
             claim_public_key = NULL, claim_certificate_serial = NULL, claim_reserved_at = NULL,
             claim_certificate_id = NULL, changed_at = :at,
             token_kind = CASE WHEN :kept THEN token_kind ELSE :kind END,
             token_hash = CASE WHEN :kept THEN token_hash ELSE :hash END
           WHERE device_serial = :deviceSerial`,
          {
            deviceSerial,
            openUntil: how.openUntil.getTime(),
            at: at.getTime(),
            kept: kept ? 1 : 0,
            kind: how.token === 'keep' ? null : how.token.kind,
            hash: how.token === 'keep' ? null : how.token.hash,
          },
        )
        if (changed === 0) return false
        note(
          {
            name: 'device-rearmed',
            deviceSerial,
            note: `${kept ? 'token kept' : 'new token'}${how.revoke ? ', certificates revoked' : ''}`,
          },
          at,
        )
        if (how.revoke) revokeAll(deviceSerial, at)
        return true
      }),

    remove: (deviceSerial, at) =>
      write(() => {
        const removed = run('DELETE FROM devices WHERE device_serial = :deviceSerial', {
          deviceSerial,
        })
        if (removed === 0) return false
        revokeAll(deviceSerial, at)
        note({ name: 'device-removed', deviceSerial }, at)
        return true
      }),

    events: ({ deviceSerial, after = 0, limit }) =>
      read(() =>
        all(
          `SELECT * FROM audit WHERE id > :after
             AND (:deviceSerial IS NULL OR device_serial = :deviceSerial) ORDER BY id LIMIT :limit`,
          { deviceSerial, after, limit },
        ).map(toAuditEvent),
      ),

    check: () => read(() => void get('SELECT 1 FROM devices LIMIT 1')),
    close: async () => void db.close(),
  }

  function noteStatus(certificateId: string, deviceSerial: string, status: string, at: Date): void {
    note({ name: 'certificate-status', deviceSerial, certificateId, note: status }, at)
  }

  function revokeAll(deviceSerial: string, at: Date): void {
    const revoked = all(
      `UPDATE certificates SET status = 'REVOKED'
       WHERE device_serial = :deviceSerial AND status <> 'REVOKED' RETURNING certificate_id`,
      { deviceSerial },
    )
    for (const row of revoked) noteStatus(String(row.certificate_id), deviceSerial, 'REVOKED', at)
  }
}
