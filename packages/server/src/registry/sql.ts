/**
 * One SQLite database through libsql, reduced to what the registry needs.
 *
 * Write-ahead log with `synchronous=FULL`: what was answered survives a power cut. Several processes
 * may use one file at a time (`serve` and the `device` commands do). Files are 0600.
 */
import { closeSync, openSync } from 'node:fs'
import Database from 'libsql'
import { registryBusy } from './registry.ts'
import { type Row, schema, schemaVersion, upgrades } from './schema.ts'

/** Named parameters; undefined binds as NULL. */
type Named = Readonly<Record<string, string | number | null | undefined>>

export interface Sql {
  get(sql: string, values?: Named): Row | undefined
  all(sql: string, values: Named): Row[]
  /** @returns how many rows it changed */
  run(sql: string, values: Named): number
  /** Calls `work` and rejects with "busy" where another process is in the way. */
  read<T>(work: () => T): Promise<T>
  /** The same in one atomic write: everything in `work` that wrote, or nothing. */
  write<T>(work: () => T): Promise<T>
  close(): void
}

/**
 * Opens the database in the file `path`, and creates it if there is none.
 *
 * @param busyTimeoutMs how long a write waits for another process's before it says busy
 * @throws Error if another version made the file, or if it is not a database
 */
export function openSql(path: string, busyTimeoutMs: number): Sql {
  if (path !== ':memory:') closeSync(openSync(path, 'a', 0o600)) // -wal and -shm get the same mode
  const db = new Database(path)
  try {
    prepare(db, busyTimeoutMs)
  } catch (error) {
    db.close()
    throw isBusy(error) ? registryBusy(error) : error
  }
  const bind = (values: Named): Record<string, string | number | null> =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value ?? null]))
  return {
    get: (sql, values = {}) => db.prepare(sql).get(bind(values)) as Row | undefined,
    all: (sql, values) => db.prepare(sql).all(bind(values)) as Row[],
    run: (sql, values) => db.prepare(sql).run(bind(values)).changes,
    read: async (work) => orBusy(work),
    write: async (work) => orBusy(() => db.transaction(work).immediate()),
    close: () => void db.close(),
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
