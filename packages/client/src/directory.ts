/**
 * The state directory: where it is, and whether other users could change what lies in it.
 *
 * The path is resolved once, link by link; every directory on the way must belong to root or to us
 * and be writable by nobody else (a sticky directory of root's, such as /tmp, will do on the way).
 */
import fs from 'node:fs'
import path from 'node:path'
import { CertvendError } from './errors.ts'

/**
 * The default state directory: `$STATE_DIRECTORY` (systemd), else env-paths' data directory.
 *
 * @throws TypeError when the environment names none that is absolute (an empty HOME).
 */
export async function defaultStateDirectory(
  environment: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  const given = environment.STATE_DIRECTORY?.split(':')[0]
  const directory = given ?? (await import('env-paths')).default('certvend', { suffix: '' }).data
  if (!path.isAbsolute(directory))
    throw new TypeError('no absolute state directory: set STATE_DIRECTORY or HOME, or name one')
  return directory
}

export interface StateDirectory {
  /** Resolved: no link on the way. */
  readonly path: string
  readonly exists: boolean
  /** False for root beside a store that is another user's: root reads it and never writes. */
  readonly ours: boolean
}

const linksFollowed = 40

/**
 * Resolves and judges `directory`; a missing tail is fine, its first existing parent is judged.
 *
 * @throws {CertvendError} `ERR_STORE_UNSAFE` with the command that mends it.
 */
export function judgeDirectory(directory: string): StateDirectory {
  const me = process.getuid?.() ?? 0
  const remaining = path.resolve(directory).split(path.sep).filter(Boolean)
  let at: string = path.sep
  let links = 0
  /** A parent of another user's, on root's way to a store that may be that user's too. */
  let foreign: (() => never) | undefined
  while (remaining.length > 0) {
    const next = path.join(at, remaining.shift() as string)
    const found = look(next)
    if (!found) foreign?.()
    if (!found) return { path: path.join(next, ...remaining), exists: false, ours: true }
    if (found.isSymbolicLink()) {
      if (++links > linksFollowed)
        throw new CertvendError('ERR_STORE_UNSAFE', `too many links on the way to ${directory}`)
      if (found.uid !== 0 && found.uid !== me)
        refuse(next, 'is a link that belongs to another user')
      const target = readable(next, () => fs.readlinkSync(next))
      remaining.unshift(...target.split(path.sep).filter(Boolean))
      if (path.isAbsolute(target)) at = path.sep
      continue
    }
    if (!found.isDirectory())
      throw new CertvendError('ERR_STORE_UNWRITABLE', `${next} is not a directory`)
    const theirs = judgeOwner(next, found, { me, last: remaining.length === 0 })
    if (theirs && me !== 0) theirs()
    foreign ??= theirs
    at = next
  }
  const uid = look(at)?.uid
  if (uid === me) foreign?.()
  return { path: at, exists: true, ours: uid === me }
}

/**
 * Judges a directory that this user is about to fill for other programs: nobody but root and this user
 * can write to it or to any on the way.
 *
 * @throws {CertvendError} `ERR_STORE_UNSAFE` with the command that mends it.
 */
export function judgeOwnDirectory(directory: string): void {
  const { path: resolved, exists, ours } = judgeDirectory(directory)
  if (exists && !ours) {
    const uid = process.getuid?.() ?? 0
    refuse(resolved, 'belongs to another user', `chown ${uid} ${shellWord(resolved)}`)
  }
}

const look = (target: string): fs.Stats | undefined =>
  readable(target, () => fs.lstatSync(target, { throwIfNoEntry: false }))

function readable<T>(target: string, action: () => T): T {
  try {
    return action()
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new CertvendError('ERR_STORE_UNREADABLE', `cannot look at ${target} (${code})`, { cause })
  }
}

/** Refuses what others may write to; what belongs to another user is for the caller to refuse. */
function judgeOwner(
  directory: string,
  found: fs.Stats,
  { me, last }: { me: number; last: boolean },
): (() => never) | undefined {
  const sticky = (found.mode & 0o1000) !== 0 && !last
  if ((found.mode & 0o022) !== 0 && !sticky)
    refuse(directory, 'is writable by group or others', `chmod go-w ${shellWord(directory)}`)
  if (found.uid === 0 || found.uid === me || (me === 0 && last)) return undefined
  const mend = me === 0 ? undefined : `chown ${me} ${shellWord(directory)}`
  return () => refuse(directory, `belongs to user ${found.uid}`, mend)
}

/** A path as a shell takes it for one word. */
export const shellWord = (name: string): string =>
  /^[\w./:@%+=,-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`

function refuse(directory: string, why: string, mend?: string): never {
  throw new CertvendError(
    'ERR_STORE_UNSAFE',
    `${directory} ${why}${mend ? `; mend it: ${mend}` : ''}`,
  )
}
