/**
 * Which registry: a word on the command line or in the environment, and never a password in either.
 *
 * ```
 * (nothing)                                    registry.db in the data directory
 * /path/to/registry.db                         that file
 * dynamodb:TABLE[?ledger=NAME&shape=iot-atlas&keep-plain-tokens]
 * mysql://USER@HOST[:PORT]/DATABASE[?devices=product&ca=FILE&socket=PATH&keep-plain-tokens]
 * ```
 *
 * What a database needs is loaded only when it is chosen.
 */
import { stat } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join, resolve } from 'node:path'
import { dataDirectory, openRegistry } from './data-directory.ts'
import { failure } from './failure.ts'
import { readNamed } from './named-file.ts'
import type { DynamodbOptions } from './registry/dynamodb.ts'
import { isRegistryBusy, type Registry } from './registry/registry.ts'
import type { MysqlOptions } from './registry/sql/mysql.ts'
import { readIfPresent } from './safe-file.ts'
import { say, type Terminal } from './terminal.ts'

/** Options of every command that needs a registry. */
export interface RegistryOptions {
  readonly registry?: string
  readonly registryPasswordFile?: string
  readonly dataDir?: string
}

type Env = Terminal['env']

export type Address =
  | { readonly kind: 'file'; readonly path?: string }
  | { readonly kind: 'dynamodb'; readonly options: DynamodbOptions }
  | {
      readonly kind: 'mysql'
      readonly options: Omit<MysqlOptions, 'password' | 'ca'>
      readonly caFile?: string
    }

const unknown = (words: string) =>
  failure(
    2,
    words,
    'a path, dynamodb:TABLE or mysql://USER@HOST/DATABASE; see certvend-server serve --help',
  )

/** Reads an address. @throws Failure */
export function parseAddress(text: string | undefined): Address {
  if (text === undefined || text === '') return { kind: 'file' }
  const [, scheme = ''] = /^([a-z]+):/.exec(text) ?? []
  if (scheme === '') return { kind: 'file', path: resolve(text) }
  if (scheme === 'dynamodb') return parseDynamodb(text)
  if (scheme === 'mysql' || scheme === 'mariadb') return parseMysql(text)
  throw unknown('there is no such kind of registry')
}

/** The parameters of an address, all of which must be known. */
function parameters(url: URL, known: readonly string[]): URLSearchParams {
  for (const name of url.searchParams.keys())
    if (!known.includes(name)) throw unknown('the registry has a parameter that is not known')
  return url.searchParams
}

function parseDynamodb(text: string): Address {
  const url = new URL(text)
  const table = url.pathname
  const given = parameters(url, ['ledger', 'shape', 'keep-plain-tokens'])
  const [ledger, shape] = [given.get('ledger'), given.get('shape')]
  const isName = (name: string) => /^[A-Za-z0-9_.-]{3,255}$/.test(name)
  if (!isName(table) || (ledger !== null && !isName(ledger)))
    throw unknown('a DynamoDB table has 3 to 255 letters, digits or any of _ . -')
  if (shape !== null && shape !== 'device-info' && shape !== 'iot-atlas')
    throw unknown('the shape of a table is device-info or iot-atlas')
  return {
    kind: 'dynamodb',
    options: {
      table,
      ...(ledger !== null && { ledger }),
      ...(shape !== null && { shape }),
      keepPlainTokens: given.has('keep-plain-tokens'),
    },
  }
}

function parseMysql(text: string): Address {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw unknown('the registry is no URL')
  }
  if (url.password !== '')
    throw failure(
      2,
      'there is a password in the address of the registry, where everybody on this machine can read it',
      'put it into a file with mode 0600 and name that: --registry-password-file FILE',
    )
  const given = parameters(url, ['devices', 'ca', 'socket', 'keep-plain-tokens'])
  const [devices, caFile, socketPath] = ['devices', 'ca', 'socket'].map(
    (name) => given.get(name) ?? undefined,
  )
  const database = decodeURIComponent(url.pathname.slice(1))
  if (!/^[\w$-]{1,64}$/.test(database) || url.username === '')
    throw unknown('the registry needs a user and a database')
  if (devices !== undefined && devices !== 'product' && devices !== 'own')
    throw unknown('devices are in a table of their own or in product')
  const host = url.hostname.replace(/^\[|\]$/g, '') || 'localhost'
  const isLoopback = /^127\.|^::1$/.test(host)
  if (isIP(host) && socketPath === undefined && (!isLoopback || caFile !== undefined))
    throw unknown('the certificate of a database server is judged by its name, so name it')
  return {
    kind: 'mysql',
    options: {
      host,
      port: Number(url.port || 3306),
      user: decodeURIComponent(url.username),
      database,
      ...(socketPath !== undefined && { socketPath }),
      ...(devices !== undefined && { devices }),
      keepPlainTokens: given.has('keep-plain-tokens'),
    },
    ...(caFile !== undefined && { caFile }),
  }
}

/** The address that was chosen. @throws Failure */
export const chosenAddress = (options: RegistryOptions, env: Env): Address =>
  parseAddress(options.registry ?? env.CERTVEND_REGISTRY)

/** What MySQL needs besides its address: the password and the CAs, from files. */
export async function mysqlOptions(
  address: Extract<Address, { kind: 'mysql' }>,
  { registryPasswordFile }: RegistryOptions,
  env: Env,
): Promise<MysqlOptions> {
  const { caFile } = address
  const ca = caFile === undefined ? undefined : await readNamed(caFile)
  const password = await readPassword(registryPasswordFile, env)
  return {
    ...address.options,
    ...(ca !== undefined && { ca }),
    ...(password !== undefined && { password }),
  }
}

/** The file that was named, else systemd's credential `registry-password`, else none. */
async function readPassword(path: string | undefined, env: Env): Promise<string | undefined> {
  const credentials = env.CREDENTIALS_DIRECTORY
  if (path === undefined) {
    const kept = credentials && (await readIfPresent(join(credentials, 'registry-password')))
    // The unit's word where there is no such file.
    return kept && kept.trimEnd() !== 'none' ? kept.trimEnd() : undefined
  }
  const text = await readNamed(path)
  if (((await stat(path)).mode & 0o077) !== 0 && !path.startsWith('/dev/'))
    throw failure(3, `${path} can be read by other users`, `chmod 600 ${path}`)
  return text.trimEnd()
}

/**
 * Opens the registry that was chosen.
 *
 * @param create whether to make a file (and its directory) if there is none; databases are prepared by
 *   a command of their own; said unless it is done silently
 * @throws Failure, or as busy
 */
export async function openChosenRegistry(
  options: RegistryOptions,
  terminal: Terminal,
  create: boolean | 'silently',
): Promise<Registry> {
  const { env } = terminal
  const address = chosenAddress(options, env)
  if (address.kind === 'file')
    return openRegistry(dataDirectory(options.dataDir, env), {
      create: create !== false,
      ...(create === true && { made: (path) => say(terminal, `made a registry, ${path}`) }),
      ...(address.path !== undefined && { file: address.path }),
    })
  try {
    return address.kind === 'mysql'
      ? await openDatabase(await mysqlOptions(address, options, env))
      : await openTables(address.options)
  } catch (error) {
    throw explain(error)
  }
}

async function openDatabase(options: MysqlOptions): Promise<Registry> {
  const { openMysqlRegistry } = await import('./registry/mysql.ts')
  return openMysqlRegistry(options)
}

async function openTables(options: DynamodbOptions): Promise<Registry> {
  const { openDynamodbRegistry } = await import('./registry/dynamodb.ts')
  const registry = openDynamodbRegistry(options)
  await registry.check() // a wrong name or a missing permission is said now, and in words
  return registry
}

/** A database's error in our words; busy stays busy. */
export function explain(error: unknown): unknown {
  const { code, name, message, exitCode } = error as Error & { code?: string; exitCode?: number }
  if (isRegistryBusy(error) || exitCode !== undefined) return error
  if (code === 'ERR_REGISTRY_NOT_PREPARED')
    return failure(2, message, 'prepare it: certvend-server registry prepare --registry …')
  if (name === 'ResourceNotFoundException')
    return failure(
      2,
      'a table of the registry is not there',
      'check its name and AWS_REGION, deploy the template, or: certvend-server registry prepare --registry …',
    )
  if (code?.startsWith('ER_') || name === 'AccessDeniedException' || /Credential/.test(name))
    return failure(3, `the registry refuses: ${message}`, 'see that this user may use it')
  if (code === 'HANDSHAKE_SSL_ERROR' || code === 'HANDSHAKE_NO_SSL_SUPPORT')
    return failure(
      3,
      `the database cannot be trusted: ${message}`,
      'see that its address has the name in its certificate, and that ?ca=FILE has its CA',
    )
  return failure(3, `cannot open the registry: ${message}`, 'check its address')
}
