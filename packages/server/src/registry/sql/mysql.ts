/**
 * One MySQL or MariaDB database, reduced to what the registry needs; any number of servers may share
 * it. READ COMMITTED, with the rows that are judged locked; what collides with another transaction
 * (deadlock, the same key twice) is rolled back and done again.
 */
import { randomInt } from 'node:crypto'
import { isIP } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { createPool, type Pool, type PoolConnection, type PoolOptions } from 'mysql2/promise'
import { second } from '../../clock.ts'
import { registryBusy } from '../registry.ts'
import { type Ask, ownTable, prepareSchema, productTable, schemaVersion } from './mysql-schema.ts'
import type { Engine, Given, Row, Statement, Work } from './work.ts'

export interface MysqlOptions {
  readonly host: string
  readonly port: number
  readonly socketPath?: string
  readonly user: string
  readonly password?: string
  readonly database: string
  /** CAs that vouch for the database server, PEM; by default the ones that Node trusts. */
  readonly ca?: string
  /** `product`: the table of the 2017 vending machine; ours by default. */
  readonly devices?: 'own' | 'product'
  readonly keepPlainTokens?: boolean
}

/** Rounds before a transaction that keeps colliding gives up, as busy. */
const rounds = 10

const isLocal = (options: MysqlOptions): boolean =>
  options.socketPath !== undefined || /^(localhost|127\.\d+\.\d+\.\d+|::1)$/.test(options.host)

/** TLS for every way that leaves the machine: the chain and the name are verified, always. */
function poolOptions(options: MysqlOptions): PoolOptions {
  const { host, port, socketPath, user, password, database, ca } = options
  // Over a socket of its own mysql2 knows no host, and an address would be judged as `localhost`.
  if (socketPath === undefined && isIP(host) && (!isLocal(options) || ca !== undefined))
    throw new RangeError('a database server that shows a certificate is named by its name')
  return {
    ...(socketPath === undefined ? { host, port } : { socketPath }),
    user,
    database,
    ...(password !== undefined && { password }),
    ...((!isLocal(options) || ca !== undefined) && {
      ssl: {
        minVersion: 'TLSv1.2',
        rejectUnauthorized: true,
        verifyIdentity: true,
        ...(ca !== undefined && { ca }),
      },
    }),
    charset: 'utf8mb4_bin',
    namedPlaceholders: true,
    supportBigNumbers: true,
    connectTimeout: 5 * second,
    enableKeepAlive: true,
    connectionLimit: 10,
    maxIdle: 2,
  }
}

/**
 * Opens a database that was prepared.
 *
 * @throws Error `not prepared` with the code `ERR_REGISTRY_NOT_PREPARED`, or as busy if it is not there now
 */
export async function openMysql(options: MysqlOptions): Promise<Engine> {
  const pool = createPool(poolOptions(options))
  try {
    await judgeVersion(pool)
  } catch (error) {
    await pool.end()
    throw error
  }
  const { devices = 'own', keepPlainTokens = false } = options
  return {
    devices: devices === 'own' ? ownTable : productTable,
    table: (name) => `certvend_${name}`,
    forUpdate: 'FOR UPDATE',
    keepPlainTokens,
    read: (work) => connected(pool, (connection) => runAll(connection, work)),
    write: (work) => connected(pool, (connection) => transact(connection, work)),
    close: () => pool.end(),
  }
}

/** Makes the tables, or what is missing of them. @returns what was done, one line each */
export async function prepareMysql(options: MysqlOptions): Promise<string[]> {
  const pool = createPool(poolOptions(options))
  const ask: Ask = async (sql) => {
    const [rows] = await pool.query(sql)
    return Array.isArray(rows) ? (rows as Row[]) : []
  }
  try {
    return await prepareSchema(ask, options.devices ?? 'own')
  } finally {
    await pool.end()
  }
}

const notPrepared = (message: string): Error =>
  Object.assign(new Error(message), { code: 'ERR_REGISTRY_NOT_PREPARED' })

async function judgeVersion(pool: Pool): Promise<void> {
  const version = await connected(pool, async (connection) => {
    const sql = 'SELECT version FROM certvend_schema'
    return (await execute(connection, { sql, values: {} })).rows[0]?.version
  }).catch((error: { code?: string }) => {
    if (error.code === 'ER_NO_SUCH_TABLE') throw notPrepared('the database was not prepared')
    throw error
  })
  if (version !== schemaVersion)
    throw notPrepared(
      `the registry has schema version ${version}, this program knows version ${schemaVersion}`,
    )
}

async function execute(connection: PoolConnection, statement: Statement): Promise<Given> {
  const values = Object.fromEntries(
    Object.entries(statement.values).map(([name, value]) => [name, value ?? null]),
  )
  const [given] = await connection.execute(statement.sql, values)
  return Array.isArray(given)
    ? { rows: given as Row[], changes: 0 }
    : { rows: [], changes: given.affectedRows }
}

async function runAll<T>(connection: PoolConnection, work: () => Work<T>): Promise<T> {
  const running = work()
  let step = running.next()
  while (!step.done) step = running.next(await execute(connection, step.value))
  return step.value
}

const colliding = new Set([
  'ER_LOCK_DEADLOCK',
  'ER_LOCK_WAIT_TIMEOUT',
  'ER_DUP_ENTRY',
  'ER_CHECKREAD',
])

async function transact<T>(connection: PoolConnection, work: () => Work<T>): Promise<T> {
  for (let round = 1; ; round += 1) {
    await connection.query('SET TRANSACTION ISOLATION LEVEL READ COMMITTED')
    await connection.beginTransaction()
    try {
      const result = await runAll(connection, work)
      await connection.commit()
      return result
    } catch (error) {
      await connection.rollback()
      const { code = '' } = error as { code?: string }
      if (!colliding.has(code)) throw error
      if (round === rounds) throw code === 'ER_DUP_ENTRY' ? error : registryBusy(error)
    }
    await wait(randomInt(1, 10 * round))
  }
}

const passing =
  /^(E(CONN|NOENT|PIPE|AI_AGAIN|HOST|NET|TIMEDOUT)|PROTOCOL_|ER_(CON_COUNT|SERVER_SHUTDOWN|LOCK|TOO_MANY))/

async function connected<T>(
  pool: Pool,
  work: (connection: PoolConnection) => Promise<T>,
): Promise<T> {
  let connection: PoolConnection | undefined
  try {
    connection = await pool.getConnection()
    const result = await work(connection)
    connection.release()
    return result
  } catch (error) {
    connection?.destroy() // whatever state it is in
    const { code = '' } = error as { code?: string }
    throw passing.test(code) ? registryBusy(error) : error
  }
}
