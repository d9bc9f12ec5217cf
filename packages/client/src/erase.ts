/**
 * Factory reset: every key, certificate and leftover of ours is overwritten and removed.
 *
 * Cut off anywhere, the store still holds its whole credential (opening it finds it) or, once the first
 * key is gone, what the next erasing removes. The file `lock` stays: it is empty, and whoever waits
 * for it must not meet another one of that name.
 */
import fs from 'node:fs'
import path from 'node:path'
import { judgeDirectory } from './directory.ts'
import { eraseFile, isUnfinished, remove, removeEmpty, syncDirectory, takeLock } from './durable.ts'
import { CertvendError } from './errors.ts'

/** What is ours in a state directory, besides what was never finished. The links go first. */
const names = ['current', 'pending', 'generations', 'claim-token', 'journal.json'] as const

const isOurs = (name: string): boolean =>
  (names as readonly string[]).includes(name) || isUnfinished(name)

/** Erases what lies in `root`, which is ours and whose lock is held. */
export function eraseContents(root: string): void {
  for (const name of ['current', 'pending']) remove(path.join(root, name))
  syncDirectory(root)
  for (const name of fs.readdirSync(root).filter(isOurs)) eraseAll(path.join(root, name))
  syncDirectory(root)
}

/** Links are removed and never followed. */
function eraseAll(target: string): void {
  const found = fs.lstatSync(target, { throwIfNoEntry: false })
  if (found?.isFile()) eraseFile(target)
  else if (!found?.isDirectory()) remove(target)
  else {
    for (const name of fs.readdirSync(target)) eraseAll(path.join(target, name))
    removeEmpty(target)
  }
}

export interface EraseOptions {
  /**
   * Whether root may become the directory's owner, for good, to erase what is another user's: for a
   * process that ends afterwards. Default false.
   */
  readonly becomeOwner?: boolean
}

export interface Erased {
  /** Resolved. */
  readonly directory: string
  /** Names of what is not ours and was left. */
  readonly left: readonly string[]
}

/**
 * Erases the store in `directory`, whatever state it is in; one that is damaged, too.
 *
 * @throws {CertvendError} `ERR_STORE_LOCKED`, `ERR_STORE_UNWRITABLE`, `ERR_STORE_UNSAFE`,
 *   `ERR_STORE_UNREADABLE`
 */
export function eraseStore(directory: string, { becomeOwner = false }: EraseOptions = {}): Erased {
  const { path: root, exists, ours } = judgeDirectory(directory)
  if (!exists) return { directory: root, left: [] }
  // As root, a path through somebody else's directory leads where that user likes.
  const at = ours ? root : enter(root, becomeOwner)
  const lock = takeLock(path.join(at, 'lock'))
  try {
    eraseContents(at)
    return { directory: root, left: fs.readdirSync(at).filter((name) => name !== 'lock') }
  } finally {
    lock.release()
  }
}

/** Goes into `root` and becomes who owns it, who may not be able to get there. */
function enter(root: string, becomeOwner: boolean): string {
  if (!becomeOwner)
    throw new CertvendError('ERR_STORE_UNWRITABLE', `${root} belongs to another user`, {
      hint: 'run this as the user that owns the state directory',
    })
  process.chdir(root)
  const { uid, gid } = fs.statSync('.')
  process.setgroups?.([])
  process.setgid?.(gid)
  process.setuid?.(uid)
  return '.'
}
