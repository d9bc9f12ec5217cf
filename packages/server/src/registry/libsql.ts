/**
 * The embedded registry in one SQLite database, for one machine; see `sql/sqlite.ts` for what it
 * survives.
 */
import type { Registry } from './registry.ts'
import { createSqlRegistry } from './sql/registry.ts'
import { openSqlite } from './sql/sqlite.ts'

/**
 * Opens the registry in the file `path`, and creates it if there is none.
 *
 * @param path a file in an existing directory, or `:memory:`
 * @param options.busyTimeoutMs how long a write waits for another process's, in milliseconds, before
 *   it rejects as busy; 5 seconds by default
 * @throws Error if the file was made by another version, or is not a database
 */
export const openLibsqlRegistry = (
  path: string,
  options: { readonly busyTimeoutMs?: number } = {},
): Registry => createSqlRegistry(openSqlite(path, options.busyTimeoutMs ?? 5_000))
