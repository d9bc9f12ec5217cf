/**
 * The one directory that a vending machine on embedded defaults lives in:
 *
 * ```
 * registry.db           devices, claims, certificates, audit trail
 * device-ca.key.pem     0600: the CA that issues device certificates
 * device-ca.pem         its certificate, for MQTT servers that admit the devices
 * tls/                  the server's own chain; tls/pin.pem is what devices pin
 * ```
 */
import { stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { failure } from './failure.ts'
import { openLibsqlRegistry } from './registry/libsql.ts'
import { isRegistryBusy, type Registry } from './registry/registry.ts'
import { ensurePrivateDirectory } from './safe-file.ts'

/** The option, else systemd's `$STATE_DIRECTORY`, else `./certvend-data`. */
export const dataDirectory = (
  option: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): string => resolve(option ?? (env.STATE_DIRECTORY || undefined) ?? 'certvend-data')

/** Makes the directory if it is not there, and refuses one that others could change. */
export async function prepareDataDirectory(directory: string): Promise<void> {
  try {
    await ensurePrivateDirectory(directory)
    const { mode, uid } = await stat(directory)
    const own = process.getuid?.()
    if (own !== undefined && uid !== own)
      throw failure(
        3,
        `${directory} belongs to another user`,
        'run as that user, or name another --data-dir',
      )
    if (process.platform !== 'win32' && (mode & 0o022) !== 0)
      throw failure(3, `${directory} can be written to by other users`, `chmod go-w ${directory}`)
  } catch (error) {
    throw asFailure(error, directory)
  }
}

/** Opens the registry of a data directory. */
export async function openRegistry(
  directory: string,
  options: {
    /** Whether to make it (and the directory) if there is none. */
    readonly create: boolean
    /** Another file than its `registry.db`. */
    readonly file?: string
    /** Told the path of one that was made: it may not be the one that was meant. */
    readonly made?: (path: string) => void
  },
): Promise<Registry> {
  const { create, file, made } = options
  const path = file ?? join(directory, 'registry.db')
  const isThere = await exists(path, directory)
  if (!isThere) {
    if (!create)
      throw failure(
        2,
        `there is no registry in ${file ?? directory}`,
        'name the right --data-dir, or add a first device: certvend-server device add SERIAL',
      )
    await prepareDataDirectory(file === undefined ? directory : dirname(file))
  }
  try {
    const registry = openLibsqlRegistry(path)
    if (!isThere) made?.(path)
    return registry
  } catch (error) {
    if (isRegistryBusy(error)) throw error
    throw failure(
      3,
      `cannot open the registry ${path}: ${(error as Error).message}`,
      'see that this user may read and write it, and that no newer version of this program made it',
    )
  }
}

async function exists(path: string, directory: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw asFailure(error, directory)
  }
}

function asFailure(error: unknown, directory: string): unknown {
  const { code } = error as NodeJS.ErrnoException
  if (typeof code !== 'string' || !/^E[A-Z]+$/.test(code)) return error
  const full = code === 'ENOSPC' || code === 'EDQUOT'
  return failure(
    full ? 1 : 3,
    `cannot use the data directory ${directory}: ${code}`,
    full ? 'free some space' : 'name a --data-dir that this user can write to',
  )
}
