/**
 * A directory that always shows one whole set of files, whatever happens while it changes.
 *
 *     <directory>/current -> sets/<name>        what other programs read
 *                 previous -> sets/<name>       while the new one is being proven
 *                 sets/<name>/…                 never changed once it is there
 *
 * A set is made under another name and renamed, `current` is replaced as a link, and each step is
 * durable before the next. Nobody but root and this user may be able to write to the directory or to
 * any on the way to it: judged before each change.
 */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { judgeOwnDirectory } from '@certvend/client'
import {
  type Access,
  createDirectory,
  eraseFile,
  isUnfinished,
  makeDirectory,
  type NewFile,
  remove,
  removeAll,
  replaceLink,
  syncDirectory,
} from '@certvend/client/durable'
import { configurationError } from './failure.ts'

/** What a set is made from; the file `set.json` in it keeps the digests. */
export interface Wanted {
  /** Absolute. */
  readonly directory: string
  /** Equal for equal sets: a digest over all that the files are made of. */
  readonly digest: string
  /** For files with a secret. Others are root's, mode 0644. */
  readonly secret: Access
  /** The files of the set, once it is known where it will lie. */
  readonly files: (home: string) => readonly {
    readonly name: string
    readonly data: string | Uint8Array
    readonly secret: boolean
  }[]
}

const record = 'set.json'
const sha256 = (data: string | Uint8Array): string =>
  createHash('sha256').update(data).digest('hex')

export const currentOf = (directory: string): string => path.join(directory, 'current')

/**
 * Refuses a directory that others could write to, and names that would mean something to a
 * configuration file.
 *
 * @throws a configuration error, or {@link CertvendError} `ERR_STORE_UNSAFE`
 */
export function judgeSetDirectory(directory: string): void {
  if (!path.isAbsolute(directory) || !/^[A-Za-z0-9._/@+,=-]+$/.test(directory))
    throw configurationError(
      `the directory ${JSON.stringify(directory)} cannot be used`,
      'an absolute path of letters, digits and ._/@+,=- goes into other programs’ configurations unquoted',
    )
  judgeOwnDirectory(directory)
}

/** The set that a link of the directory names; nothing when there is none. */
function named(directory: string, link: 'current' | 'proven'): string | undefined {
  try {
    return /^sets\/([A-Za-z0-9-]+)$/.exec(fs.readlinkSync(path.join(directory, link)))?.[1]
  } catch (error) {
    if (/^(ENOENT|ENOTDIR)$/.test((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw configurationError(
      `${path.join(directory, link)} is in the way`,
      'the directory is for certvend alone: choose another, or move that away',
    )
  }
}

/** Whether the set in use is the wanted one, file by file, with owners and modes. */
export function isCurrent(wanted: Wanted): boolean {
  const name = named(wanted.directory, 'current')
  return name !== undefined && isWhole(path.join(wanted.directory, 'sets', name), wanted)
}

function isWhole(home: string, { digest, secret }: Wanted): boolean {
  const kept = readRecord(home)
  if (kept?.digest !== digest) return false
  return Object.entries(kept.files).every(([name, file]) => {
    const target = path.join(home, name)
    const found = fs.lstatSync(target, { throwIfNoEntry: false })
    const access = file.secret ? secret : { mode: 0o644 }
    const { uid, gid } = access.owner ?? { uid: found?.uid, gid: found?.gid }
    return (
      found?.isFile() === true &&
      (found.mode & 0o7777) === (access.mode ?? 0o600) &&
      found.uid === uid &&
      found.gid === gid &&
      sha256(fs.readFileSync(target)) === file.sha256
    )
  })
}

interface SetRecord {
  readonly digest: string
  readonly files: Readonly<Record<string, { readonly sha256: string; readonly secret: boolean }>>
}

function readRecord(home: string): SetRecord | undefined {
  try {
    return JSON.parse(fs.readFileSync(path.join(home, record), 'utf8')) as SetRecord
  } catch {
    return undefined
  }
}

/** Makes the set and points `current` at it. Durable on return. */
export function putSet(wanted: Wanted): void {
  const { directory, digest } = wanted
  judgeSetDirectory(directory)
  const sets = path.join(directory, 'sets')
  const home = path.join(sets, freeName(sets, digest))
  const files = newFiles(wanted, home) // first: a format that lacks something leaves nothing behind
  makeDirectory(sets, 0o755)
  judgeSetDirectory(sets)
  createDirectory(home, files)
  point(directory, 'current', path.basename(home))
}

function point(directory: string, link: 'current' | 'proven', name: string): void {
  replaceLink(path.join(directory, link), `sets/${name}`)
  syncDirectory(directory)
}

function newFiles({ digest, secret, files }: Wanted, home: string): NewFile[] {
  const all = files(home)
  const kept: SetRecord = {
    digest,
    files: Object.fromEntries(
      all.map(({ name, data, secret }) => [name, { sha256: sha256(data), secret }]),
    ),
  }
  return [
    ...all.map(({ name, data, secret: hidden }) => ({
      name,
      data,
      ...(hidden ? secret : { mode: 0o644 }),
    })),
    { name: record, data: `${JSON.stringify(kept, undefined, 2)}\n`, mode: 0o644 },
  ]
}

/** A set that was damaged keeps its name: the sound one gets the next. */
function freeName(sets: string, digest: string): string {
  for (let number = 1; ; number++) {
    const name = `${digest.slice(0, 16)}-${number}`
    if (!fs.lstatSync(path.join(sets, name), { throwIfNoEntry: false })) return name
  }
}

/** Whether the reader of the set in use was well with it. */
export const isProven = (directory: string): boolean =>
  named(directory, 'proven') === named(directory, 'current')

/** Notes that the reader of the set in use is well with it. */
export function prove(directory: string): void {
  const name = named(directory, 'current')
  if (name !== undefined && !isProven(directory)) point(directory, 'proven', name)
}

/** Points `current` at the last proven set again. False when there is none. */
export function takeBack(directory: string): boolean {
  const name = named(directory, 'proven')
  if (name === undefined) return false
  point(directory, 'current', name)
  return true
}

/** Removes the sets that no link names, and what was never finished. */
export function sweep(directory: string): void {
  const sets = path.join(directory, 'sets')
  if (!fs.existsSync(sets)) return
  const used = [named(directory, 'current'), named(directory, 'proven')]
  for (const name of fs.readdirSync(sets))
    if (!used.includes(name)) removeAll(path.join(sets, name))
  for (const name of fs.readdirSync(directory))
    if (isUnfinished(name)) remove(path.join(directory, name))
}

/** Overwrites and removes every set; what is not ours in the directory stays. */
export function eraseSets(directory: string): void {
  if (!fs.existsSync(directory)) return
  judgeSetDirectory(directory)
  for (const link of ['current', 'proven'] as const)
    if (named(directory, link) !== undefined) remove(path.join(directory, link))
  const sets = path.join(directory, 'sets')
  if (!fs.existsSync(sets)) return
  for (const set of fs
    .readdirSync(sets, { withFileTypes: true })
    .filter((one) => one.isDirectory()))
    for (const file of fs.readdirSync(path.join(sets, set.name), { withFileTypes: true }))
      if (file.isFile()) eraseFile(path.join(sets, set.name, file.name))
  removeAll(sets)
  syncDirectory(directory)
}
