/** The registry over an {@link Engine}: devices, certificates, fleets and the trail. */
import type { AddOutcome, NewDevice, Registry } from '../registry.ts'
import { createClaims } from './claims.ts'
import { createRows, toAuditEvent, toCertificate, toDevice, toFleet } from './rows.ts'
import { all, type Engine, get, type Row, run, type Work } from './work.ts'

export function createSqlRegistry(engine: Engine): Registry {
  const { read, write, devices, forUpdate } = engine
  const column = devices.column
  const rows = createRows(engine)
  const { note } = rows
  const [audit, certificates, fleets, publicKeys] = (
    ['audit', 'certificates', 'fleets', 'public_keys'] as const
  ).map(engine.table)
  const setDevice = (assignments: string) =>
    `UPDATE ${devices.name} SET ${assignments} WHERE ${devices.hasSerial}`

  function* insert(added: NewDevice, at: Date): Work<AddOutcome> {
    const { deviceSerial, thingName, token, spentOn } = added
    if (yield* rows.deviceRow(deviceSerial)) return 'serial-taken'
    const holder = `SELECT 1 FROM ${devices.name} WHERE ${devices.thing} = :thingName`
    if (yield* get(holder, { thingName })) return 'thing-name-taken'
    const [before] = yield* all(
      `SELECT count(*) AS events FROM ${audit} WHERE device_serial = :deviceSerial`,
      { deviceSerial },
    )
    const ours = [
      'thing_type',
      'attributes',
      'fleet',
      'token_kind',
      'token_hash',
      'claim_number',
      'claim_certificate_id',
      'created_at',
      'changed_at',
    ].map(column)
    yield* run(
      `INSERT INTO ${devices.name} (${devices.serial}, ${column('thing_name')},
         ${column('policy_name')}, ${column('disabled')}, ${ours.join(', ')})
       VALUES (:deviceSerial, :thingName, :policyName, ${devices.disabled}, :thingType, :attributes,
         :fleet, :kind, :hash, :number, :spentOn, :at, :at)`,
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
        number: 1 + Number(before!.events),
        spentOn,
        at: at.getTime(),
      },
    )
    yield* note({ name: 'device-added', deviceSerial, ...(spentOn && { note: 'spent' }) }, at)
    return 'added'
  }

  function* noteStatus(row: Row, status: string, at: Date): Work<void> {
    const deviceSerial = String(row.device_serial)
    const certificateId = String(row.certificate_id)
    yield* note({ name: 'certificate-status', deviceSerial, certificateId, note: status }, at)
  }

  /** Gives every certificate that `condition` names this status. */
  function* setStatus(
    status: 'INACTIVE' | 'REVOKED',
    condition: string,
    values: Record<string, string | number>,
    at: Date,
  ): Work<void> {
    const found = yield* all(
      `SELECT certificate_id, device_serial FROM ${certificates}
       WHERE ${condition} ORDER BY issued_at ${forUpdate}`,
      values,
    )
    for (const row of found) {
      const certificateId = String(row.certificate_id)
      yield* run(
        `UPDATE ${certificates} SET status = '${status}' WHERE certificate_id = :certificateId`,
        { certificateId },
      )
      yield* noteStatus(row, status, at)
    }
  }

  const revokeAll = (deviceSerial: string, at: Date): Work<void> =>
    setStatus(
      'REVOKED',
      `device_serial = :deviceSerial AND status <> 'REVOKED'`,
      { deviceSerial },
      at,
    )

  return {
    add: (description, token, at) =>
      write(() => insert({ ...description, ...(token && { token }) }, at)),

    addAll: (added, at) =>
      write(function* () {
        const outcomes: AddOutcome[] = []
        for (const device of added) outcomes.push(yield* insert(device, at))
        return outcomes
      }),

    find: (deviceSerial) =>
      read(function* () {
        const row = yield* rows.deviceRow(deviceSerial)
        return row && toDevice(row)
      }),

    list: ({ after = '', limit }) =>
      read(function* () {
        const found = yield* all(
          `SELECT ${devices.select} FROM ${devices.name} WHERE ${devices.serial} > :after
           ORDER BY ${devices.serial} LIMIT ${Number(limit)}`,
          { after },
        )
        return found.map(toDevice)
      }),

    hasWeakTokens: () =>
      read(function* () {
        const weak = `SELECT 1 FROM ${devices.name} WHERE ${column('token_kind')} = 'scrypt' LIMIT 1`
        return (yield* get(weak)) !== undefined
      }),

    ...createClaims(engine, rows),

    confirm: (certificateId, at) =>
      write(function* () {
        const held = yield* rows.lockCertificate(certificateId)
        if (held?.status !== 'ACTIVE' || held.confirmedAt) return
        yield* run(
          `UPDATE ${certificates} SET confirmed_at = :at WHERE certificate_id = :certificateId`,
          { certificateId, at: at.getTime() },
        )
        const { deviceSerial } = held
        yield* note({ name: 'certificate-confirmed', deviceSerial, certificateId }, at)
        yield* setStatus(
          'INACTIVE',
          `device_serial = :deviceSerial AND status = 'ACTIVE'
             AND certificate_id <> :certificateId AND issued_at <= :issuedAt`,
          { deviceSerial, certificateId, issuedAt: held.issuedAt.getTime() },
          at,
        )
      }),

    findCertificate: (certificateId) => read(() => rows.certificate(certificateId)),

    certificates: (deviceSerial) =>
      read(function* () {
        const found = yield* all(
          `SELECT * FROM ${certificates} WHERE device_serial = :deviceSerial
           ORDER BY issued_at DESC, rowid DESC`,
          { deviceSerial },
        )
        return found.map(toCertificate)
      }),

    setCertificateStatus: (certificateId, status, at) =>
      write(function* () {
        const held = yield* rows.lockCertificate(certificateId)
        if (!held || (held.status === 'REVOKED' && status !== 'REVOKED')) return false
        yield* run(
          `UPDATE ${certificates} SET status = :status WHERE certificate_id = :certificateId`,
          { certificateId, status },
        )
        const row = { device_serial: held.deviceSerial, certificate_id: certificateId }
        yield* noteStatus(row, status, at)
        return true
      }),

    setDisabled: (deviceSerial, disabled, at) =>
      write(function* () {
        if (!(yield* rows.lockDevice(deviceSerial))) return false
        yield* run(
          setDevice(`${column('disabled')} = ${devices.disabled}, ${column('changed_at')} = :at`),
          { deviceSerial, disabled: disabled ? 1 : 0, at: at.getTime() },
        )
        yield* note({ name: disabled ? 'device-disabled' : 'device-enabled', deviceSerial }, at)
        return true
      }),

    rearm: (deviceSerial, { token, openUntil, revoke }, at) =>
      write(function* () {
        if (!(yield* rows.lockDevice(deviceSerial))) return false
        const cleared = [
          'claim_public_key',
          'claim_certificate_serial',
          'claim_reserved_at',
          'claim_certificate_id',
          'claim_first_at',
        ].map((name) => `${column(name)} = NULL`)
        const plain = devices.plainToken ? `, ${devices.plainToken} = NULL` : ''
        const renewed =
          token === 'keep'
            ? ''
            : `, ${column('token_kind')} = :kind, ${column('token_hash')} = :hash${plain}`
        yield* run(
          setDevice(`${column('claim_number')} = ${column('claim_number')} + 1,
             ${column('claim_open_until')} = :openUntil, ${column('changed_at')} = :at,
             ${column('claim_again')} = 0, ${column('claim_certificates')} = 0,
             ${cleared.join(', ')}${renewed}`),
          {
            deviceSerial,
            openUntil: openUntil.getTime(),
            at: at.getTime(),
            ...(token !== 'keep' && { kind: token.kind, hash: token.hash }),
          },
        )
        const words = `${token === 'keep' ? 'token kept' : 'new token'}${revoke ? ', certificates revoked' : ''}`
        yield* note({ name: 'device-rearmed', deviceSerial, note: words }, at)
        if (revoke) yield* revokeAll(deviceSerial, at)
        return true
      }),

    remove: (deviceSerial, at) =>
      write(function* () {
        if (!(yield* rows.lockDevice(deviceSerial))) return false
        yield* run(`DELETE FROM ${devices.name} WHERE ${devices.hasSerial}`, { deviceSerial })
        yield* revokeAll(deviceSerial, at)
        yield* note({ name: 'device-removed', deviceSerial }, at)
        return true
      }),

    addFleet: (name, token, at) =>
      write(function* () {
        if (yield* get(`SELECT 1 FROM ${fleets} WHERE name = :name`, { name })) return false
        yield* run(
          `INSERT INTO ${fleets} (name, token_kind, token_hash, created_at)
           VALUES (:name, :kind, :hash, :at)`,
          { name, kind: token.kind, hash: token.hash, at: at.getTime() },
        )
        yield* note({ name: 'fleet-added', deviceSerial: `fleet/${name}` }, at)
        return true
      }),

    findFleet: (name) =>
      read(function* () {
        const row = yield* get(`SELECT * FROM ${fleets} WHERE name = :name`, { name })
        return row && toFleet(row)
      }),

    fleets: () =>
      read(function* () {
        return (yield* all(`SELECT * FROM ${fleets} ORDER BY name`)).map(toFleet)
      }),

    removeFleet: (name, at) =>
      write(function* () {
        if ((yield* run(`DELETE FROM ${fleets} WHERE name = :name`, { name })) === 0) return false
        yield* note({ name: 'fleet-removed', deviceSerial: `fleet/${name}` }, at)
        return true
      }),

    events: ({ deviceSerial, after = '0', limit }) =>
      read(function* () {
        const found = yield* all(
          `SELECT * FROM ${audit} WHERE id > :after
             ${deviceSerial === undefined ? '' : 'AND device_serial = :deviceSerial'}
           ORDER BY id LIMIT ${Number(limit)}`,
          { after: Number(after), ...(deviceSerial !== undefined && { deviceSerial }) },
        )
        return found.map(toAuditEvent)
      }),

    keyHolder: (publicKey) =>
      read(function* () {
        const row = yield* get(
          `SELECT device_serial FROM ${publicKeys} WHERE public_key = :publicKey`,
          { publicKey },
        )
        return row && String(row.device_serial)
      }),

    noteUnknown: (certificateId, caCertificateId, at) =>
      write(function* () {
        const name = 'certificate-unknown' as const
        const deviceSerial = `ca/${caCertificateId}`
        const noted = yield* get(
          `SELECT 1 FROM ${audit} WHERE device_serial = :deviceSerial AND name = :name
             AND certificate_id = :certificateId`,
          { deviceSerial, name, certificateId },
        )
        if (!noted) yield* note({ name, deviceSerial, certificateId }, at)
        return noted === undefined
      }),

    check: () =>
      read(function* () {
        yield* get(`SELECT 1 FROM ${devices.name} LIMIT 1`)
      }),
    close: engine.close,
  }
}
