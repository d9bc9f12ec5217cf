/** File systems of our own to hurt: small ones in memory, and ext4, xfs and FAT on loop devices. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

export interface Volume {
  readonly directory: string
  /** Cuts the power, as far as the file system can tell: nothing more reaches the disk. */
  cut(): void
  /** Mounts the disk again, as after a boot. */
  reboot(): void
  /** Changes the options of the mount. */
  remount(options: string): void
  close(): void
}

function run(command: string, ...parameters: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, parameters, { encoding: 'utf8' })
  if (error) throw error
  if (status !== 0) throw new Error(`${command} ${parameters.join(' ')}: ${stderr.trim()}`)
  return stdout
}

interface Maker {
  readonly megabytes: number
  readonly make: readonly string[]
  /** Of every mount. */
  readonly options: readonly string[]
}

const makers: Record<string, Maker> = {
  ext4: { megabytes: 16, make: ['mkfs.ext4', '-q', '-F'], options: [] },
  xfs: { megabytes: 300, make: ['mkfs.xfs', '-q', '-f'], options: ['nouuid'] },
}

/** FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, which XFS shares: not even the log is flushed. */
const shutdown =
  'my $flags = pack("L", 2); open(my $d, "<", $ARGV[0]) or die "$!\\n"; ' +
  'ioctl($d, 0x8004587D, $flags) or die "$!\\n"'

/** @throws with the reason when this machine cannot. */
export function openVolume(kind: string, workspace: string, options?: string): Volume {
  const directory = fs.mkdtempSync(path.join(workspace, `${kind}-`))
  let image = `${directory}.image`
  const maker = makers[kind]
  const mount = (): void => {
    const source = maker
      ? ['-o', ['loop', ...maker.options, ...(options ? [options] : [])].join(), image]
      : ['none']
    run('mount', '-t', kind, ...(maker || !options ? [] : ['-o', options]), ...source, directory)
  }
  if (maker) {
    fs.closeSync(fs.openSync(image, 'wx'))
    fs.truncateSync(image, maker.megabytes * 1024 * 1024)
    const [command = '', ...parameters] = maker.make
    run(command, ...parameters, image)
  }
  mount()
  return {
    directory,
    cut: () => run('perl', '-e', shutdown, directory),
    reboot() {
      run('umount', directory)
      // A container started meanwhile keeps the old mount alive: then go on from a copy of the disk.
      if (run('losetup', '-j', image) !== '') {
        run('cp', '--sparse=always', image, `${image}+`)
        fs.rmSync(image)
        image = `${image}+`
      }
      mount()
    },
    remount: (changed) => run('mount', '-o', `remount,${changed}`, directory),
    close() {
      run('umount', directory)
      fs.rmdirSync(directory)
      if (maker) fs.rmSync(image)
    },
  }
}

/** Why `kind` cannot be had here, if it cannot. */
export function volumeMissing(kind: string, workspace: string): string | undefined {
  if (process.platform !== 'linux') return 'mounts are made as on Linux'
  if (process.getuid?.() !== 0) return 'only root may mount'
  try {
    openVolume(kind, workspace).close()
    return undefined
  } catch (error) {
    return `no ${kind} here: ${(error as Error).message.split('\n')[0]}`
  }
}
