/**
 * The embedded registry in one SQLite database, for one machine; see `sql.ts` for what it survives.
 */
import { createClaims } from './claims.ts'
import type { AddOutcome, NewDevice, Registry } from './registry.ts'
import { createRows } from './rows.ts'
import { toAuditEvent, toCertificate, toDevice, toFleet } from './schema.ts'
import { openSql } from './sql.ts'

/**
 * Opens the registry in the file `path`, and creates it if there is none.
 *
 * @param path a file in an existing directory, or `:memory:`
 * @param options.busyTimeoutMs how long a write waits for another process's, in milliseconds, before
 *   it rejects as busy; 5 seconds by default
 * @throws Error if the file was made by another version, or is not a database
 */
export function openLibsqlRegistry(
  path: string,
  options: { readonly busyTimeoutMs?: number } = {},
): Registry {
  const sql = openSql(path, options.busyTimeoutMs ?? 5_000)
  const { get, all, run, read, write } = sql
  const rows = createRows(sql)
  const { note, device, certificate } = rows

  return {
    add: (description, token, at) =>
      write(() => insert({ ...description, ...(token && { token }) }, at)),
    addAll: (devices, at) => write(() => devices.map((added) => insert(added, at))),

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

    ...createClaims(sql, rows),

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
             claim_again = 0, claim_certificates = 0, claim_first_at = NULL,
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

    addFleet: (name, token, at) =>
      write(() => {
        const added = run(
          `INSERT INTO fleets (name, token_kind, token_hash, created_at)
           VALUES (:name, :kind, :hash, :at) ON CONFLICT DO NOTHING`,
          { name, kind: token.kind, hash: token.hash, at: at.getTime() },
        )
        if (added === 1) note({ name: 'fleet-added', deviceSerial: `fleet/${name}` }, at)
        return added === 1
      }),

    findFleet: (name) =>
      read(() => {
        const row = get('SELECT * FROM fleets WHERE name = :name', { name })
        return row && toFleet(row)
      }),

    fleets: () => read(() => all('SELECT * FROM fleets ORDER BY name', {}).map(toFleet)),

    removeFleet: (name, at) =>
      write(() => {
        const removed = run('DELETE FROM fleets WHERE name = :name', { name })
        if (removed === 1) note({ name: 'fleet-removed', deviceSerial: `fleet/${name}` }, at)
        return removed === 1
      }),

    events: ({ deviceSerial, after = '0', limit }) =>
      read(() =>
        all(
          `SELECT * FROM audit WHERE id > :after
             AND (:deviceSerial IS NULL OR device_serial = :deviceSerial) ORDER BY id LIMIT :limit`,
          { deviceSerial, after: Number(after), limit },
        ).map(toAuditEvent),
      ),

    keyHolder: (publicKey) =>
      read(() => {
        const row = get('SELECT device_serial FROM public_keys WHERE public_key = :publicKey', {
          publicKey,
        })
        return row && String(row.device_serial)
      }),

    noteUnknown: (certificateId, caCertificateId, at) =>
      write(() => {
        const event = {
          name: 'certificate-unknown' as const,
          deviceSerial: `ca/${caCertificateId}`,
        }
        const noted = get(
          `SELECT 1 FROM audit WHERE device_serial = :deviceSerial AND name = :name
             AND certificate_id = :certificateId`,
          { ...event, certificateId },
        )
        if (!noted) note({ ...event, certificateId }, at)
        return noted === undefined
      }),

    check: () => read(() => void get('SELECT 1 FROM devices LIMIT 1')),
    close: async () => sql.close(),
  }

  function insert(added: NewDevice, at: Date): AddOutcome {
    const { deviceSerial, thingName, token } = added
    if (device(deviceSerial)) return 'serial-taken'
    if (get('SELECT 1 FROM devices WHERE thing_name = :thingName', { thingName }))
      return 'thing-name-taken'
    run(
      `INSERT INTO devices (device_serial, thing_name, policy_name, thing_type, attributes, fleet,
         disabled, token_kind, token_hash, claim_number, claim_certificate_id, created_at, changed_at)
       VALUES (:deviceSerial, :thingName, :policyName, :thingType, :attributes, :fleet,
         :disabled, :kind, :hash,
         (SELECT 1 + count(*) FROM audit WHERE device_serial = :deviceSerial), :spentOn, :at, :at)`,
      {
        deviceSerial,
        thingName,
        policyName: added.policyName,
        thingType: added.thingType,
        attributes: added.attributes && JSON.stringify(added.attributes),
        fleet: added.fleet,
        disabled: added.disabled ? 1 : 0,
        kind: token?.kind,
        hash: token?.hash,
        spentOn: added.spentOn,
        at: at.getTime(),
      },
    )
    note({ name: 'device-added', deviceSerial, ...(added.spentOn && { note: 'spent' }) }, at)
    return 'added'
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
