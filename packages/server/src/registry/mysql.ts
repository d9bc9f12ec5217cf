/**
 * The registry in MySQL or MariaDB: in tables of its own, or on the table of the 2017 vending machine.
 * See `sql/mysql-schema.ts` for the tables and `sql/mysql.ts` for how they are used.
 */
import type { Registry } from './registry.ts'
import { type MysqlOptions, openMysql } from './sql/mysql.ts'
import { createSqlRegistry } from './sql/registry.ts'

/** Opens a registry that was prepared; rejects as {@link openMysql} does. */
export const openMysqlRegistry = async (options: MysqlOptions): Promise<Registry> =>
  createSqlRegistry(await openMysql(options))
