/**
 * One SQLite database through libsql, reduced to what the registry needs.
 *
 * Write-ahead log with `synchronous=FULL`: what was answered survives a power cut. Several processes
 * may use one file at a time (`serve` and the `device` commands do). Files are 0600.
 */
import { closeSync, openSync } from 'node:fs'
import Database from 'libsql'
import { registryBusy } from '../registry.ts'
import { schema, schemaVersion, upgrades } from './sqlite-schema.ts'
import type { DeviceTable, Engine, Given, Row, Statement, Work } from './work.ts'

const devices: DeviceTable = {
  name: 'devices',
  select: '*',
  serial: 'device_serial',
  thing: 'thing_name',
  column: (name) => name,
  hasSerial: 'device_serial = :deviceSerial',
  disabled: ':disabled',
}

/**
 * Opens the database in the file `path`, and creates it if there is none.
 *
 * @param busyTimeoutMs how long a write waits for another process's before it says busy
 * @throws Error if another version made the file, or if it is not a database
 */
export function openSqlite(path: string, busyTimeoutMs: number): Engine {
  if (path !== ':memory:') closeSync(openSync(path, 'a', 0o600)) // -wal and -shm get the same mode
  const db = new Database(path)
  try {
    prepare(db, busyTimeoutMs)
  } catch (error) {
    db.close()
    throw isBusy(error) ? registryBusy(error) : error
  }
  // Kept: preparing costs more than running, and a statement takes some ten kilobytes that only the garbage
  // collector gives back. Not kept if it failed: libsql resets a statement before it runs it, not after.
  const prepared = new Map<string, Database.Statement>()
  const execute = ({ sql, values }: Statement): Given => {
    const statement = prepared.get(sql) ?? db.prepare(sql)
    prepared.delete(sql)
    const given = sql.startsWith('SELECT')
      ? { rows: statement.all(values) as Row[], changes: 0 }
      : { rows: [], changes: statement.run(values).changes }
    prepared.set(sql, statement)
    return given
  }
  const runAll = <T>(work: () => Work<T>): T => {
    const running = work()
    let step = running.next()
    while (!step.done) step = running.next(execute(step.value))
    return step.value
  }
  return {
    devices,
    table: (name) => name,
    forUpdate: '', // a write holds the whole database
    keepPlainTokens: false,
    read: async (work) => orBusy(() => runAll(work)),
    write: async (work) => orBusy(() => db.transaction(() => runAll(work)).immediate()),
    close: async () => {
      prepared.clear()
      db.close()
    },
  }
}

function prepare(db: Database.Database, busyTimeoutMs: number): void {
  db.pragma(`busy_timeout = ${busyTimeoutMs}`)
  db.pragma('journal_mode = WAL')
  db.pragma('synchronous = FULL')
  db.transaction(() => {
    const version = () => Number((db.prepare('PRAGMA user_version').get() as Row).user_version)
    if (version() === 0) return void db.exec(schema)
    for (let upgrade = upgrades[version()]; upgrade; upgrade = upgrades[version()]) db.exec(upgrade)
    if (version() !== schemaVersion)
      throw new Error(
        `the registry has schema version ${version()}, this program knows version ${schemaVersion}`,
      )
  }).immediate()
}

const isBusy = (error: unknown): boolean =>
  error instanceof Error && /^SQLITE_(BUSY|LOCKED)/.test(String((error as { code?: unknown }).code))

function orBusy<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw isBusy(error) ? registryBusy(error) : error
  }
}
