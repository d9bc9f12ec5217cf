/**
 * What a support engineer asks of a state directory: what is there, is it whole, is it safe, what
 * does the file system offer, who holds it, what would opening it do. Reads only, takes no lock.
 */
import fs from 'node:fs'
import path from 'node:path'
import { judgeDirectory } from './directory.ts'
import { CertvendError } from './errors.ts'
import { fileNames } from './generation.ts'
import { generationName, look, type Mending, mendings, survey } from './survey.ts'

/** One generation of it. */
export interface GenerationReport {
  readonly number: number
  readonly state: 'issued' | 'requested' | 'broken'
  /** Which links name it. */
  readonly links: readonly ('current' | 'pending')[]
  /** Why it is broken. */
  readonly reason?: string
  readonly thingName?: string
  readonly certificateId?: string
  readonly notAfter?: Date
  readonly keyOrigin?: 'device' | 'server'
}

/** The file system that it lies on. */
export interface FileSystemReport {
  /** As the kernel names it: `ext4`, `vfat`. */
  readonly type: string
  readonly readOnly: boolean
  /** Whether a store can live on it; absent where the type does not say. */
  readonly suitable?: boolean
}

/** What `inspectStore` found in a state directory. */
export interface StoreReport {
  /** Resolved, unless it is unsafe to. */
  readonly directory: string
  readonly exists: boolean
  /**
   * - `whole`: a credential is there.
   * - `requested`: a key is there, and no certificate yet.
   * - `empty`: nothing yet.
   * - `refused`: opening would throw {@link problem}.
   */
  readonly verdict: 'whole' | 'requested' | 'empty' | 'refused'
  readonly problem?: CertvendError
  /** Process id of the writer, 0 where it cannot be told which. */
  readonly lockedBy?: number
  /** Absent where there is no /proc. */
  readonly fileSystem?: FileSystemReport
  readonly generations: readonly GenerationReport[]
  /** Paths, relative, that group or others may read or write. */
  readonly exposed: readonly string[]
  /** What opening would do to the disk, in words. */
  readonly wouldMend: readonly string[]
}

/** Inspects `directory`; what opening would throw is in the report. */
export function inspectStore(directory: string): StoreReport {
  const nothing = { exists: false, generations: [], exposed: [], wouldMend: [] } as const
  let root = path.resolve(directory)
  try {
    const judged = judgeDirectory(directory)
    root = judged.path
    const fileSystem = fileSystemOf(root)
    const about = { directory: root, ...(fileSystem ? { fileSystem } : {}) }
    if (!judged.exists) return { ...nothing, ...about, verdict: 'empty' }
    return { ...about, exists: true, exposed: exposed(root), ...lockedBy(root), ...state(root) }
  } catch (problem) {
    if (!(problem instanceof CertvendError)) throw problem
    return { ...nothing, directory: root, exists: fs.existsSync(root), verdict: 'refused', problem }
  }
}

function state(
  root: string,
): Pick<StoreReport, 'verdict' | 'problem' | 'generations' | 'wouldMend'> {
  let generations: GenerationReport[] = []
  try {
    generations = reports(root)
    const seen = survey(root)
    const verdict = seen.current ? 'whole' : seen.pending ? 'requested' : 'empty'
    return { verdict, generations, wouldMend: mendings(seen).map(inWords) }
  } catch (problem) {
    if (!(problem instanceof CertvendError)) throw problem
    return { verdict: 'refused', problem, generations, wouldMend: [] }
  }
}

function reports(root: string): GenerationReport[] {
  const { links, generations } = look(root)
  return [...generations]
    .sort(([a], [b]) => a - b)
    .map(([number, one]) => ({
      number,
      state: one.state,
      links: (['current', 'pending'] as const).filter((link) => links[link] === number),
      ...(one.state === 'broken' ? { reason: one.reason } : {}),
      ...(one.state === 'issued'
        ? {
            thingName: one.credential.thingName,
            certificateId: one.credential.certificateId,
            notAfter: one.credential.notAfter,
            keyOrigin: one.credential.keyOrigin,
          }
        : {}),
    }))
}

function inWords(mending: Mending): string {
  const what =
    mending.do === 'point'
      ? `point ${mending.link} to generations/${generationName(mending.generation)}`
      : mending.do === 'unlink'
        ? `remove the link ${mending.link}`
        : `remove ${mending.name}, which was never finished or is no longer used`
  return mending.because ? `${what}: ${mending.because}` : what
}

function exposed(root: string): string[] {
  const found: string[] = []
  const visit = (relative: string): void => {
    for (const entry of fs.readdirSync(path.join(root, relative), { withFileTypes: true })) {
      const name = path.join(relative, entry.name)
      if (entry.isSymbolicLink()) continue
      if ((fs.lstatSync(path.join(root, name)).mode & 0o077) !== 0) found.push(name)
      if (entry.isDirectory()) visit(name)
    }
  }
  if (fs.existsSync(path.join(root, 'generations'))) visit('generations')
  return found.filter((name) => path.basename(name) !== fileNames.request)
}

const read = (file: string): string => {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

/**
 * From /proc/locks: `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF`, the last of the triple being
 * the inode. The process named there took the lock and is gone (durable.ts); who holds it has the
 * file open, which only its own user and root can see.
 */
function lockedBy(root: string): { lockedBy?: number } {
  const file = path.join(root, 'lock')
  const inode = String(fs.lstatSync(file, { throwIfNoEntry: false })?.ino)
  const locked = read('/proc/locks')
    .split('\n')
    .some((line) => {
      const [, kind, , , , place] = line.trim().split(/\s+/)
      return kind === 'FLOCK' && place?.split(':')[2] === inode
    })
  if (!locked) return {}
  const holder = fs.readdirSync('/proc').find((pid) => /^\d+$/.test(pid) && hasOpen(pid, file))
  return { lockedBy: Number(holder ?? 0) }
}

function hasOpen(pid: string, file: string): boolean {
  try {
    const open = path.join('/proc', pid, 'fd')
    return fs.readdirSync(open).some((one) => fs.readlinkSync(path.join(open, one)) === file)
  } catch {
    return false // another user's, or gone meanwhile
  }
}

const suitable = new Map([
  ...[
    'ext2',
    'ext3',
    'ext4',
    'xfs',
    'btrfs',
    'f2fs',
    'tmpfs',
    'overlay',
    'ubifs',
    'zfs',
    'bcachefs',
  ].map((type) => [type, true] as const),
  ...['vfat', 'msdos', 'exfat', 'ntfs3', 'iso9660', 'squashfs'].map(
    (type) => [type, false] as const,
  ),
])

/** From /proc/self/mountinfo (proc_pid_mountinfo(5)): the mount that `directory` lies on. */
function fileSystemOf(directory: string): FileSystemReport | undefined {
  let best: { point: string; type: string; readOnly: boolean } | undefined
  for (const line of read('/proc/self/mountinfo').split('\n')) {
    const [mount, superBlock] = line.split(' - ')
    const [, , , , escaped, options] = mount?.split(' ') ?? []
    const [type, , superOptions] = superBlock?.split(' ') ?? []
    if (escaped === undefined || type === undefined) continue
    const point = escaped.replace(/\\(\d{3})/g, (_, octal) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    )
    const within = directory === point || directory.startsWith(point === '/' ? '/' : `${point}/`)
    // A later mount on the same point covers the earlier.
    if (!within || (best && best.point.length > point.length)) continue
    const readOnly = [options, superOptions].some((all) => all?.split(',').includes('ro'))
    best = { point, type, readOnly }
  }
  if (!best) return undefined
  const known = suitable.get(best.type)
  return {
    type: best.type,
    readOnly: best.readOnly,
    ...(known === undefined ? {} : { suitable: known }),
  }
}
