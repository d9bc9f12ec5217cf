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
import {
  eraseFile,
  isUnfinished,
  type Owner,
  remove,
  removeEmpty,
  syncDirectory,
  takeLock,
} from './durable.ts'
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

/** What is left after `eraseStore`. */
export interface Erased {
  /** Resolved. */
  readonly directory: string
  /** Names of what is not ours and was left. */
  readonly left: readonly string[]
}

/**
 * Erases the store in `directory`, whatever state it is in; one that is damaged, too.
 *
 * @param asOwner what root does about a store that is another user's: runs {@link eraseHere} in that
 *   directory, in a process of its owner's. Without it such a store is refused.
 * @throws {CertvendError} `ERR_STORE_LOCKED`, `ERR_STORE_UNWRITABLE`, `ERR_STORE_UNSAFE`,
 *   `ERR_STORE_UNREADABLE`
 */
export function eraseStore(
  directory: string,
  asOwner?: (root: string, owner: Owner) => void,
): Erased {
  const { path: root, exists, ours } = judgeDirectory(directory)
  if (!exists) return { directory: root, left: [] }
  if (ours) return eraseAt(root)
  if (!asOwner) return foreign(root)
  asOwner(root, fs.statSync(root))
  return { directory: root, left: left(root) }
}

/**
 * As {@link eraseStore}, in the working directory. For a process that root started there as the owner,
 * who may not be able to get there: as root itself, a path through somebody else's directory leads
 * where that user likes.
 */
export function eraseHere(): Erased {
  if (fs.statSync('.').uid !== process.getuid?.()) foreign(process.cwd())
  return eraseAt('.')
}

function eraseAt(root: string): Erased {
  const lock = takeLock(path.join(root, 'lock'))
  try {
    eraseContents(root)
    return { directory: root, left: left(root) }
  } finally {
    lock.release()
  }
}

const left = (root: string): string[] => fs.readdirSync(root).filter((name) => name !== 'lock')

function foreign(root: string): never {
  throw new CertvendError('ERR_STORE_UNWRITABLE', `${root} belongs to another user`, {
    hint: 'run this as the user that owns the state directory',
  })
}
