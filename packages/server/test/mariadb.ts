/** A MariaDB of its own for the tests: a temporary directory, a socket, no port, no service. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { type Connection, createConnection } from 'mysql2/promise'

const program = ['/usr/sbin/mariadbd', '/usr/bin/mariadbd'].find((path) => existsSync(path))

/** Nothing in it outlives the test, so it need not touch a disk. */
const memory = existsSync('/dev/shm') ? '/dev/shm' : undefined

/** Why there is none here, if there is none. */
export const noMariadb: string | undefined = program ? undefined : 'mariadb-server is not installed'

export interface Mariadb {
  readonly socketPath: string
  readonly port: number
  /** Runs statements as root, in a database or in none. */
  ask(sql: string, database?: string): Promise<unknown>
  stop(): Promise<void>
}

/** @param options.extra further arguments, such as `--ssl-cert=…` */
export async function startMariadb(
  options: { readonly port?: number; readonly extra?: readonly string[] } = {},
): Promise<Mariadb> {
  const directory = mkdtempSync(join(memory ?? tmpdir(), 'certvend-mariadb-'))
  const data = join(directory, 'data')
  const socketPath = join(directory, 'socket')
  const user = userInfo().username
  const as = user === 'root' ? ['--user=root'] : []
  const quiet = { stdio: 'ignore' } as const
  execFileSync(
    'mariadb-install-db',
    [
      '--no-defaults',
      `--datadir=${data}`,
      '--skip-test-db',
      '--auth-root-authentication-method=normal',
      ...as,
    ],
    quiet,
  )
  const log = join(directory, 'log')
  const server: ChildProcess = spawn(
    program!,
    [
      '--no-defaults',
      `--datadir=${data}`,
      `--socket=${socketPath}`,
      `--log-error=${log}`,
      `--pid-file=${join(directory, 'pid')}`,
      ...(options.port === undefined
        ? ['--skip-networking']
        : [`--port=${options.port}`, '--bind-address=127.0.0.1']),
      '--skip-name-resolve',
      '--innodb-flush-log-at-trx-commit=0', // nobody cuts the power here
      '--innodb-buffer-pool-size=32M',
      ...(options.extra ?? []),
      ...as,
    ],
    quiet,
  )
  let root: Connection | undefined
  const ask = async (sql: string, database = 'mysql') => {
    root ??= await createConnection({ socketPath, user: 'root', multipleStatements: true })
    await root.query(`USE ${database}`)
    return (await root.query(sql))[0]
  }
  for (let count = 0; ; count += 1) {
    try {
      await ask('SELECT 1')
      break
    } catch (error) {
      if (count > 300 || server.exitCode !== null)
        throw new Error(`MariaDB did not start: ${readFileSync(log, 'utf8')}`, { cause: error })
      await pause(100)
    }
  }
  return {
    socketPath,
    port: options.port ?? 0,
    ask,
    async stop() {
      root?.destroy()
      const ended = new Promise((resolve) => server.once('exit', resolve))
      server.kill('SIGTERM')
      await ended
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
