/**
 * Durable writes: what a function here has returned from survives a power cut.
 *
 * Synchronous on purpose: a credential is a few kilobytes written once a year, and nothing else may
 * run between two steps (docs/decisions/0003-synchronous-store.md). Names for things not finished
 * begin with a dot and are random, so that a leftover is recognised and never reused.
 */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { CertvendError } from './errors.ts'

const errno = (error: unknown): string => String((error as NodeJS.ErrnoException).code ?? error)

/** Runs one step and names it when it fails. */
function step<T>(what: string, target: string, action: () => T): T {
  try {
    return action()
  } catch (cause) {
    if (cause instanceof CertvendError) throw cause
    throw new CertvendError('ERR_STORE_UNWRITABLE', `cannot ${what} ${target} (${errno(cause)})`, {
      cause,
      ...(/^(ENOSYS|EOPNOTSUPP|ENOTSUP|EPERM)$/.test(errno(cause)) ? { hint: lackingHint } : {}),
    })
  }
}

const lackingHint =
  'a file system without modes or symbolic links, such as FAT or exFAT, cannot hold a credential store; put it on ext4, xfs, btrfs or f2fs'

/** Whether `name` is that of something unfinished. */
export const isUnfinished = (name: string): boolean => /^\.[a-z0-9.-]+\.[0-9a-f]{16}$/.test(name)
const unfinished = (target: string): string =>
  path.join(path.dirname(target), `.${path.basename(target)}.${randomBytes(8).toString('hex')}`)

/** Makes the entries of `directory` durable. */
export function syncDirectory(directory: string): void {
  step('sync', directory, () => {
    const descriptor = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY)
    try {
      fs.fsyncSync(descriptor)
    } finally {
      fs.closeSync(descriptor)
    }
  })
}

/** Makes the files in `directory` and its entries durable, whoever wrote them. */
export function syncFiles(directory: string): void {
  step('sync', directory, () => {
    for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
      if (!entry.isFile()) continue
      const { O_RDONLY, O_NOFOLLOW } = fs.constants
      const descriptor = fs.openSync(path.join(directory, entry.name), O_RDONLY | O_NOFOLLOW)
      try {
        fs.fsyncSync(descriptor)
      } finally {
        fs.closeSync(descriptor)
      }
    }
  })
  syncDirectory(directory)
}

/**
 * Makes durable what is in `directory` and the names that lead to it, whoever made them: systemd, an
 * installer, or a process of ours that was killed halfway. Parents that may not be read are not ours.
 */
export function syncPath(directory: string): void {
  const parent = path.dirname(directory)
  if (parent !== directory) syncPath(parent)
  try {
    syncDirectory(directory)
  } catch (error) {
    if (!/^(EACCES|EPERM|EROFS|EINVAL)$/.test(errno((error as Error).cause))) throw error
  }
}

/** Makes `directory` and its missing parents, each durable in its parent. Default mode: 0700. */
export function makeDirectory(directory: string, mode = 0o700): void {
  if (fs.existsSync(directory)) return
  const parent = path.dirname(directory)
  makeDirectory(parent, mode)
  step('create', directory, () => fs.mkdirSync(directory, 0o700))
  step('set the mode of', directory, () => fs.chmodSync(directory, mode)) // whatever the umask
  syncDirectory(parent)
}

/** A user and a group, by number. */
export interface Owner {
  readonly uid: number
  readonly gid: number
}

/** Whom a file is for. */
export interface Access {
  /** Whom root makes it for; default: this process's user. */
  readonly owner?: Owner | undefined
  /** Default 0600. It holds from when the file is whole; until then it is 0600. */
  readonly mode?: number
}

/** Creates a file with `data`, durable itself; its name is durable once the directory is synced. */
export function createFile(target: string, data: string | Uint8Array, access: Access = {}): void {
  const { owner, mode = 0o600 } = access
  step('write', target, () => {
    const descriptor = fs.openSync(target, 'wx', 0o600)
    try {
      fs.fchmodSync(descriptor, 0o600) // whatever the umask
      fs.writeFileSync(descriptor, data)
      // Before it is given away: afterwards changing the mode would take one more capability.
      if (mode !== 0o600) fs.fchmodSync(descriptor, mode)
      if (owner) fs.fchownSync(descriptor, owner.uid, owner.gid)
      fs.fsyncSync(descriptor)
    } catch (error) {
      fs.rmSync(target, { force: true })
      throw error
    } finally {
      fs.closeSync(descriptor)
    }
  })
}

function replace(target: string, make: (temporary: string) => void): void {
  const temporary = unfinished(target)
  make(temporary)
  step('replace', target, () => {
    try {
      fs.renameSync(temporary, target)
    } catch (error) {
      fs.rmSync(temporary, { force: true })
      throw error
    }
  })
}

/** Replaces a file as a whole; durable once the directory is synced. */
export function replaceFile(target: string, data: string, access: Access = {}): void {
  replace(target, (temporary) => createFile(temporary, data, access))
}

/** A file of {@link createDirectory}. */
export interface NewFile extends Access {
  readonly name: string
  readonly data: string | Uint8Array
}

/** Makes `directory` (0755) with `files` in it: all of it or, after a crash, nothing by that name. Durable. */
export function createDirectory(directory: string, files: readonly NewFile[]): void {
  const temporary = unfinished(directory)
  try {
    step('create', directory, () => fs.mkdirSync(temporary, 0o700))
    for (const { name, data, ...access } of files)
      createFile(path.join(temporary, name), data, access)
    step('set the mode of', directory, () => fs.chmodSync(temporary, 0o755))
    syncDirectory(temporary)
    step('create', directory, () => fs.renameSync(temporary, directory))
  } catch (error) {
    removeAll(temporary)
    throw error
  }
  syncDirectory(path.dirname(directory))
}

/**
 * Replaces a file that everybody may read (0644), as a whole but not durably: for what is true now and
 * worthless after a power cut.
 */
export function publishFile(target: string, data: string): void {
  replace(target, (temporary) =>
    step('write', target, () => {
      const descriptor = fs.openSync(temporary, 'wx', 0o644)
      try {
        fs.fchmodSync(descriptor, 0o644) // whatever the umask
        fs.writeFileSync(descriptor, data)
      } catch (error) {
        fs.rmSync(temporary, { force: true })
        throw error
      } finally {
        fs.closeSync(descriptor)
      }
    }),
  )
}

/** Points a symbolic link elsewhere, atomically; durable once the directory is synced. */
export function replaceLink(target: string, destination: string): void {
  replace(target, (temporary) => step('link', target, () => fs.symlinkSync(destination, temporary)))
}

/**
 * Proves that the file system of `directory` has symbolic links and replaces one by another.
 *
 * @throws {CertvendError} `ERR_STORE_UNWRITABLE`, in clear words where it lacks them (FAT, exFAT).
 */
export function probeLinks(directory: string): void {
  const probe = unfinished(path.join(directory, 'probe'))
  try {
    replaceLink(probe, 'first')
    replaceLink(probe, 'second')
    if (step('read', probe, () => fs.readlinkSync(probe)) !== 'second')
      throw new Error('the link was not replaced')
  } catch (error) {
    const cause = error instanceof CertvendError ? error.cause : error
    if (/^(ENOSPC|EDQUOT|EROFS|EACCES|EIO|EMFILE|ENFILE)$/.test(errno(cause))) throw error
    throw new CertvendError(
      'ERR_STORE_UNWRITABLE',
      `the file system of ${directory} cannot hold a credential store: no symbolic links or no atomic rename (${errno(cause)})`,
      { cause, hint: lackingHint },
    )
  } finally {
    remove(probe)
  }
}

/**
 * Proves that `directory` takes files of `bytes` in all, durably.
 *
 * @throws {CertvendError} `ERR_STORE_UNWRITABLE`
 */
export function probeSpace(directory: string, bytes: number): void {
  const probe = unfinished(path.join(directory, 'probe'))
  createFile(probe, randomBytes(bytes / 2).toString('hex')) // zeros take no room where they are compressed
  remove(probe)
}

/** Removes a file or link if it is there. */
export function remove(target: string): void {
  step('remove', target, () => {
    try {
      fs.unlinkSync(target)
    } catch (error) {
      if (errno(error) !== 'ENOENT') throw error
    }
  })
}

/**
 * Overwrites a file with zeros where it lies, then removes it, durably. Flash and journals may keep
 * an older copy all the same: what was in it is to be spent, not only erased.
 */
export function eraseFile(target: string): void {
  step('erase', target, () => {
    const descriptor = fs.openSync(target, fs.constants.O_RDWR | fs.constants.O_NOFOLLOW)
    try {
      fs.writeSync(descriptor, Buffer.alloc(fs.fstatSync(descriptor).size))
      fs.fsyncSync(descriptor)
    } finally {
      fs.closeSync(descriptor)
    }
  })
  remove(target)
  syncDirectory(path.dirname(target))
}

/** Removes a directory and what is in it, or a file or link, if it is there. */
export function removeAll(directory: string): void {
  step('remove', directory, () => {
    if (!fs.lstatSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
      remove(directory)
      return
    }
    for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
      const target = path.join(directory, entry.name)
      if (entry.isDirectory()) removeAll(target)
      else fs.unlinkSync(target)
    }
    fs.rmdirSync(directory)
  })
}

/** Removes an empty directory. */
export function removeEmpty(directory: string): void {
  step('remove', directory, () => fs.rmdirSync(directory))
}

/** A lock held by this process until released, or until the process is gone, however it went. */
export interface Lock {
  release(): void
}

const darwin = { exclusive: 0x20, nonBlocking: 0x4 } // O_EXLOCK, O_NONBLOCK

/**
 * Takes the lock on `file` at once or not at all.
 *
 * flock(2) belongs to the open file description: a child that inherits the descriptor takes it for
 * us and leaves, and the kernel frees it when our process ends, without a stale file or a wait.
 *
 * @throws {CertvendError} `ERR_STORE_LOCKED`, `ERR_STORE_UNWRITABLE`
 */
export function takeLock(file: string): Lock {
  const locked = (): CertvendError =>
    new CertvendError('ERR_STORE_LOCKED', `another process holds ${file}`)
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = fs.constants
  const flags = O_RDWR | O_CREAT | O_NOFOLLOW
  if (process.platform === 'darwin')
    return step('lock', file, () => {
      try {
        return held(fs.openSync(file, flags | darwin.exclusive | darwin.nonBlocking, 0o600))
      } catch (error) {
        if (errno(error) === 'EAGAIN') throw locked()
        throw error
      }
    })
  const descriptor = step('open', file, () => fs.openSync(file, flags, 0o600))
  try {
    step('set the mode of', file, () => fs.fchmodSync(descriptor, 0o600))
  } catch (error) {
    fs.closeSync(descriptor)
    throw error
  }
  const flock = spawnSync('flock', ['-n', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', descriptor],
  })
  if (flock.status === 0) return held(descriptor)
  fs.closeSync(descriptor)
  if (flock.status === 1) throw locked()
  throw new CertvendError('ERR_STORE_UNWRITABLE', `cannot lock ${file}: flock did not run`, {
    cause: flock.error ?? flock.signal,
    hint: 'install util-linux or busybox, which bring the flock command',
  })
}

const held = (descriptor: number): Lock => {
  let open = true
  return {
    release() {
      if (!open) return
      open = false
      try {
        fs.closeSync(descriptor)
      } catch {
        // The descriptor is gone whatever close(2) answers, and the lock with it.
      }
    },
  }
}
