/**
 * One registry in SQL for two kinds of database: SQLite, whose driver answers at once, and MySQL or
 * MariaDB, whose driver answers later. What is done is a generator that yields statements; each engine
 * runs it its own way, in one transaction.
 *
 * A transaction first locks the device's row and then judges and writes, so a write needs no
 * conditions of its own. An engine may run a piece of work again from its beginning: what collides is
 * undone and repeated.
 */

export type Row = Readonly<Record<string, string | number | null>>

/** Named parameters (`:name`); undefined binds as NULL. */
export type Named = Readonly<Record<string, string | number | null | undefined>>

export interface Statement {
  readonly sql: string
  readonly values: Named
}

/** What a statement gave: rows of a SELECT, or how many rows it changed. */
export interface Given {
  readonly rows: readonly Row[]
  readonly changes: number
}

export type Work<T> = Generator<Statement, T, Given>

export function* all(sql: string, values: Named = {}): Work<readonly Row[]> {
  return (yield { sql, values }).rows
}

export function* get(sql: string, values: Named = {}): Work<Row | undefined> {
  return (yield { sql, values }).rows[0]
}

export function* run(sql: string, values: Named = {}): Work<number> {
  return (yield { sql, values }).changes
}

/** The table with the devices: ours, or one that was there before. */
export interface DeviceTable {
  readonly name: string
  /** Its columns under our names, and `plain_token` if it may hold tokens in the clear. */
  readonly select: string
  /** The column for the serial. */
  readonly serial: string
  /** A column, with an index, for looking up thing names. */
  readonly thing: string
  /** Its name for a column of ours. */
  column(name: string): string
  /** The condition that a row has the serial `:deviceSerial`. */
  readonly hasSerial: string
  /** The value to write for the number `:disabled`, into the column `disabled`. */
  readonly disabled: string
  /** The column for tokens in the clear; none in a table of ours. */
  readonly plainToken?: string
}

export interface Engine {
  readonly devices: DeviceTable
  /** Name of another table of ours. */
  table(name: 'public_keys' | 'certificates' | 'audit' | 'fleets'): string
  /** Appended to a SELECT whose rows must not be changed by others until the end. */
  readonly forUpdate: string
  /** Whether the first accepted claim leaves a token in the clear where it is. */
  readonly keepPlainTokens: boolean
  /** Runs `work` as one read. Rejects as busy where another process is in the way. */
  read<T>(work: () => Work<T>): Promise<T>
  /** The same in one atomic write: everything in `work` that wrote, or nothing. */
  write<T>(work: () => Work<T>): Promise<T>
  close(): Promise<void>
}
