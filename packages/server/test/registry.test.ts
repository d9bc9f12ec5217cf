import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'libsql'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { day, hour, later } from '../src/clock.ts'
import { openLibsqlRegistry } from '../src/registry/libsql.ts'
import {
  deviceState,
  type Issued,
  isRegistryBusy,
  type Registry,
  type Reservation,
  reservationMs,
} from '../src/registry/registry.ts'

const now = new Date('2030-05-17T12:00:00Z')
const hex = (length: number) => randomBytes(length).toString('hex')
const token = { kind: 'sha256', hash: hex(32) } as const

let directory: string
let path: string
let registry: Registry

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'certvend-registry-'))
  path = join(directory, 'registry.db')
  registry = openLibsqlRegistry(path)
})
afterEach(async () => {
  await registry.close()
  rmSync(directory, { recursive: true })
})

const add = (deviceSerial: string) =>
  registry.add({ deviceSerial, thingName: deviceSerial }, token, now)

const reserve = (deviceSerial: string, publicKey: string, at = now, through = registry) =>
  through.reserve({ deviceSerial, claimNumber: 1, publicKey, certificateSerial: hex(16), at })

const issued = (at = now): Issued => ({
  certificateId: hex(32),
  certificateChain: ['-----BEGIN CERTIFICATE-----'],
  notBefore: at,
  notAfter: later(at, 365 * day),
})

async function reservation(deviceSerial: string, publicKey: string): Promise<Reservation> {
  const outcome = await reserve(deviceSerial, publicKey)
  if (outcome.outcome !== 'reserved') throw new Error(outcome.outcome)
  return outcome.reservation
}

describe('a device', () => {
  it('is kept as it was described, and lists in the order of serials, page by page', async () => {
    const description = {
      deviceSerial: 'SN-2',
      thingName: 'thing:2',
      policyName: 'devices',
      thingType: 'gateway',
      attributes: { site: 'B', line: '7' },
    }
    expect(await registry.add(description, token, now)).toBe('added')
    for (const serial of ['SN-3', 'SN-1', 'SN-4']) await add(serial)
    expect(await registry.find('SN-2')).toEqual({
      ...description,
      disabled: false,
      claim: { number: 1, token },
      createdAt: now,
      changedAt: now,
    })
    const serials = async (after?: string) =>
      (await registry.list({ ...(after && { after }), limit: 2 })).map((row) => row.deviceSerial)
    expect(await serials()).toEqual(['SN-1', 'SN-2'])
    expect(await serials('SN-2')).toEqual(['SN-3', 'SN-4'])
    expect(await serials('SN-4')).toEqual([])
  })

  it('is refused when its serial or its thing name is taken, and nothing is changed', async () => {
    await registry.add({ deviceSerial: 'SN-1', thingName: 'thing' }, token, now)
    const other = { ...token, hash: hex(32) }
    const again = registry.add({ deviceSerial: 'SN-1', thingName: 'x' }, other, now)
    expect(await again).toBe('serial-taken')
    const twin = registry.add({ deviceSerial: 'SN-2', thingName: 'thing' }, other, now)
    expect(await twin).toBe('thing-name-taken')
    expect((await registry.find('SN-1'))?.claim.token).toEqual(token)
    expect(await registry.find('SN-2')).toBeUndefined()
    expect(await registry.events({ limit: 10 })).toHaveLength(1)
  })

  it('that does not exist cannot be changed', async () => {
    const how = { token: 'keep', openUntil: later(now, day), revoke: true } as const
    expect(await registry.setDisabled('SN-1', true, now)).toBe(false)
    expect(await registry.rearm('SN-1', how, now)).toBe(false)
    expect(await registry.remove('SN-1', now)).toBe(false)
    expect(await registry.setCertificateStatus(hex(32), 'REVOKED', now)).toBe(false)
    await registry.confirm(hex(32), now)
    expect(await registry.events({ limit: 10 })).toEqual([])
  })

  it('that is removed leaves its certificates, revoked, and its trail', async () => {
    await add('SN-1')
    await registry.record(await reservation('SN-1', 'key'), issued(), now)
    expect(await registry.remove('SN-1', now)).toBe(true)
    expect(await registry.find('SN-1')).toBeUndefined()
    const [certificate] = await registry.certificates('SN-1')
    expect(certificate?.status).toBe('REVOKED')
    const trail = await registry.events({ deviceSerial: 'SN-1', limit: 10 })
    expect(trail.at(-1)?.name).toBe('device-removed')
  })

  it('that was removed and added again does not open its old reservation', async () => {
    await add('SN-1')
    const old = await reservation('SN-1', 'key')
    await registry.remove('SN-1', now)
    await add('SN-1')
    const outcome = await registry.record(old, issued(), now)
    expect(outcome).toEqual({ outcome: 'refused', reason: 'claim-gone' })
    expect(await registry.certificates('SN-1')).toEqual([])
  })

  it('stands where the facts of its row say', async () => {
    const state = async (at = now) => deviceState((await registry.find('SN-1'))!, at)
    await add('SN-1')
    expect(await state()).toBe('waiting')
    await registry.rearm('SN-1', { token: 'keep', openUntil: later(now, day), revoke: false }, now)
    expect(await state(later(now, day))).toBe('expired')
    await registry.reserve({
      deviceSerial: 'SN-1',
      claimNumber: 2,
      publicKey: 'key',
      certificateSerial: '01',
      at: now,
    })
    expect(await state()).toBe('reserved')
    await registry.setDisabled('SN-1', true, now)
    expect(await state()).toBe('disabled')
  })
})

describe('a reservation', () => {
  it('binds one of fifty keys that race, through two connections', async () => {
    await add('SN-1')
    const second = openLibsqlRegistry(path)
    const outcomes = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        reserve('SN-1', `key-${index}`, now, index % 2 ? second : registry),
      ),
    )
    await second.close()
    expect(outcomes.filter((outcome) => outcome.outcome === 'reserved')).toHaveLength(1)
    const refused = outcomes.filter((outcome) => outcome.outcome === 'refused')
    expect(new Set(refused.map((outcome) => outcome.reason))).toEqual(new Set(['claim-conflict']))
  })

  it('stays the same when it is made again within the hour, and is renewed after it', async () => {
    await add('SN-1')
    const first = await reserve('SN-1', 'key')
    const soon = await reserve('SN-1', 'key', later(now, reservationMs - 1))
    expect(soon).toEqual(first)
    const after = later(now, reservationMs)
    const renewed = await reserve('SN-1', 'key', after)
    expect(renewed).not.toEqual(first)
    expect(renewed).toMatchObject({ reservation: { reservedAt: after } })
  })

  it('that was renewed can no longer be recorded, and says what to sign instead', async () => {
    await add('SN-1')
    const old = await reservation('SN-1', 'key')
    const at = later(now, 2 * hour)
    const renewed = await reserve('SN-1', 'key', at)
    expect(await registry.record(old, issued(), at)).toEqual(renewed)
    expect(await registry.certificates('SN-1')).toEqual([])
  })

  it('is recorded once: whoever is slower gets the certificate of whoever was faster', async () => {
    await add('SN-1')
    const reserved = await reservation('SN-1', 'key')
    const [fast, slow] = [issued(), issued()]
    const first = await registry.record(reserved, fast, now)
    const second = await registry.record(reserved, slow, now)
    expect(first).toMatchObject({ certificate: { certificateId: fast.certificateId } })
    expect(second).toEqual(first)
    expect(await registry.findCertificate(slow.certificateId)).toBeUndefined()
  })

  it('is not recorded for a device that was disabled meanwhile', async () => {
    await add('SN-1')
    const reserved = await reservation('SN-1', 'key')
    await registry.setDisabled('SN-1', true, now)
    const outcome = await registry.record(reserved, issued(), now)
    expect(outcome).toEqual({ outcome: 'refused', reason: 'device-disabled' })
    expect(await registry.certificates('SN-1')).toEqual([])
  })
})

describe('the audit trail', () => {
  it('tells the life of a device, in order', async () => {
    await add('SN-1')
    const one = issued()
    await registry.record(await reservation('SN-1', 'key'), one, now)
    await registry.confirm(one.certificateId, now)
    await registry.confirm(one.certificateId, now)
    await reserve('SN-1', 'another key')
    await registry.rearm('SN-1', { token, openUntil: later(now, day), revoke: true }, now)
    const trail = await registry.events({ deviceSerial: 'SN-1', limit: 100 })
    expect(trail.map((event) => event.name)).toEqual([
      'device-added',
      'claim-reserved',
      'certificate-issued',
      'certificate-confirmed',
      'claim-conflict',
      'device-rearmed',
      'certificate-status',
    ])
    const [first] = trail
    const rest = await registry.events({ deviceSerial: 'SN-1', after: first!.id, limit: 2 })
    expect(rest).toEqual(trail.slice(1, 3))
  })

  it('cannot be changed or shortened through the database', async () => {
    await add('SN-1')
    const db = new Database(path)
    for (const sql of ['DELETE FROM audit', `UPDATE audit SET name = 'nothing'`])
      expect(() => db.exec(sql)).toThrow('append-only')
    db.close()
    expect(await registry.events({ limit: 10 })).toHaveLength(1)
  })
})

describe('the file', () => {
  it('and all that stand beside it can be read by this user alone', async () => {
    await add('SN-1')
    const files = readdirSync(directory)
    expect(files).toContain('registry.db-wal')
    for (const file of files)
      expect((statSync(join(directory, file)).mode & 0o777).toString(8), file).toBe('600')
  })

  it('holds what was written when it is opened again', async () => {
    await add('SN-1')
    await registry.close()
    registry = openLibsqlRegistry(path)
    expect(await registry.find('SN-1')).toMatchObject({ deviceSerial: 'SN-1' })
  })

  it('holds what was answered before the process was killed', async () => {
    const script = `
      import { openLibsqlRegistry } from ${JSON.stringify(new URL('../dist/registry/libsql.js', import.meta.url))}
      const registry = openLibsqlRegistry(${JSON.stringify(path)})
      await registry.add({ deviceSerial: 'SN-killed', thingName: 'x' }, undefined, new Date())
      process.kill(process.pid, 'SIGKILL')
    `
    expect(() =>
      execFileSync(process.execPath, ['--input-type=module', '--eval', script]),
    ).toThrow()
    expect(await registry.find('SN-killed')).toMatchObject({ thingName: 'x' })
    expect(await add('SN-1')).toBe('added')
  })

  it('of the first version is brought up to date, and loses nothing', async () => {
    await add('SN-1')
    const held = issued()
    await registry.record(await reservation('SN-1', 'key'), held, now)
    await registry.close()
    const db = new Database(path)
    for (const column of ['fleet', 'claim_again', 'claim_certificates', 'claim_first_at'])
      db.exec(`ALTER TABLE devices DROP COLUMN ${column}`)
    db.exec('ALTER TABLE certificates DROP COLUMN certificate_arn')
    db.exec('DROP TABLE fleets')
    db.exec('PRAGMA user_version = 1')
    db.close()
    registry = openLibsqlRegistry(path)
    expect((await registry.find('SN-1'))?.claim).toMatchObject({
      publicKey: 'key',
      certificateId: held.certificateId,
    })
    expect(await registry.fleets()).toEqual([])
    expect(await reserve('SN-1', 'key')).toMatchObject({ outcome: 'issued' })
  })

  it('of a later version is not touched', () => {
    const later = join(directory, 'later.db')
    const db = new Database(later)
    db.exec('PRAGMA user_version = 99')
    db.close()
    expect(() => openLibsqlRegistry(later)).toThrow('schema version 99')
  })

  it('that is no database is refused and left as it is', () => {
    const other = join(directory, 'other.db')
    writeFileSync(other, 'this is not a database, it is a text of some length\n'.repeat(50))
    expect(() => openLibsqlRegistry(other)).toThrow()
    expect(statSync(other).size).toBe(2600)
  })

  it('that another process is writing to makes the registry busy, not broken', async () => {
    const impatient = openLibsqlRegistry(path, { busyTimeoutMs: 1 })
    const db = new Database(path)
    db.exec('BEGIN IMMEDIATE')
    const outcome = await impatient.setDisabled('SN-1', true, now).catch((error: unknown) => error)
    expect(isRegistryBusy(outcome)).toBe(true)
    expect(await impatient.find('SN-1')).toBeUndefined()
    db.exec('COMMIT')
    db.close()
    expect(await impatient.setDisabled('SN-1', true, now)).toBe(false)
    await impatient.close()
  })
})
