import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Database from 'libsql'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openLibsqlRegistry } from '../src/registry/libsql.ts'
import { isRegistryBusy, type Registry } from '../src/registry/registry.ts'
import * as facts from './registry-suite/facts.ts'
import { describeRegistry } from './registry-suite/suite.ts'

const { issued, now } = facts

let directory: string
let path: string
let registry: Registry

describeRegistry('libsql', async () => {
  const home = mkdtempSync(join(tmpdir(), 'certvend-registry-'))
  let made = 0
  return {
    async make() {
      made += 1
      const file = join(home, `${made}.db`)
      return { open: async () => openLibsqlRegistry(file), remove: async () => rmSync(file) }
    },
    stop: async () => rmSync(home, { recursive: true }),
  }
})

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'certvend-registry-'))
  path = join(directory, 'registry.db')
  registry = openLibsqlRegistry(path)
})
afterEach(async () => {
  await registry.close()
  rmSync(directory, { recursive: true })
})

const add = (deviceSerial: string) => facts.add(registry, deviceSerial)
const reserve = (deviceSerial: string, publicKey: string) =>
  facts.reserve(registry, deviceSerial, publicKey)
const reservation = (deviceSerial: string, publicKey: string) =>
  facts.reservation(registry, deviceSerial, publicKey)

describe('the audit trail of libsql', () => {
  it('cannot be changed or shortened through the database', async () => {
    await add('SN-1')
    const db = new Database(path)
    for (const sql of ['DELETE FROM audit', `UPDATE audit SET name = 'nothing'`])
      expect(() => db.exec(sql)).toThrow('append-only')
    db.close()
    expect(await registry.events({ limit: 10 })).toHaveLength(1)
  })
})

describe('the file of libsql', () => {
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

describe('the statements of libsql', () => {
  it('are not left for the garbage collector by the thousand', () => {
    const script = `
      import { openLibsqlRegistry } from ${JSON.stringify(new URL('../dist/registry/libsql.js', import.meta.url))}
      const registry = openLibsqlRegistry(':memory:')
      await registry.find('SN-1')
      const before = process.memoryUsage().rss
      for (let count = 0; count < 20_000; count += 1) await registry.find('SN-1')
      process.stdout.write(String((process.memoryUsage().rss - before) / 2 ** 20))
    `
    const grown = Number(execFileSync(process.execPath, ['--input-type=module', '--eval', script]))
    expect(grown).toBeLessThan(150) // MiB: some 30, or 300 with one statement for each
  })

  it('of a write that failed halfway leave nothing behind and stand in nobody’s way', async () => {
    await add('SN-1')
    const db = new Database(path)
    const isDisabled = async () => (await registry.find('SN-1'))?.disabled
    for (const disabled of [true, false, true]) {
      db.exec(`CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END`)
      await expect(registry.setDisabled('SN-1', disabled, now)).rejects.toThrow('full')
      expect(await isDisabled()).toBe(!disabled)
      db.exec('DROP TRIGGER full')
      expect(await registry.setDisabled('SN-1', disabled, now)).toBe(true)
      expect(await isDisabled()).toBe(disabled)
    }
    db.close()
    expect(await registry.events({ limit: 10 })).toHaveLength(4)
  })

  it('see a table as another process has changed it', async () => {
    await add('SN-1')
    const before = await registry.find('SN-1')
    const db = new Database(path)
    db.exec('ALTER TABLE devices ADD COLUMN shelf TEXT')
    db.exec(`UPDATE devices SET shelf = 'A', policy_name = 'p'`)
    db.close()
    expect(await registry.find('SN-1')).toEqual({ ...before, policyName: 'p' })
    expect(await reserve('SN-1', 'key')).toMatchObject({ outcome: 'reserved' })
  })
})
