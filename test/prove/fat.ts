/** File systems that cannot hold a store: they are refused, in words that say so. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { isCertvendError, openCredentialStore } from '@certvend/client'
import type { Sweep } from './kills.ts'
import { record } from './recording.ts'

async function refusal(directory: string, lacking?: 'symlink'): Promise<string[]> {
  const store = await openCredentialStore(path.join(directory, 'state'))
  try {
    record(
      directory,
      () => store.begin(),
      ({ do: what }) => {
        if (what === lacking)
          throw Object.assign(new Error('EPERM: operation not permitted'), { code: 'EPERM' })
      },
    )
    return ['a key was made where it cannot be kept']
  } catch (error) {
    if (!isCertvendError(error, 'ERR_STORE_UNWRITABLE')) return [`it threw ${error}`]
    return /FAT/.test(error.hint) ? [] : [`its hint says: ${error.hint}`]
  } finally {
    store.close()
  }
}

/** A file system that has everything but symbolic links (EPERM, as FAT in the kernel answers). */
export async function sweepLinkless(workspace: string): Promise<Sweep> {
  const directory = fs.mkdtempSync(path.join(workspace, 'linkless-'))
  const failures = await refusal(directory, 'symlink')
  const left = fs.readdirSync(path.join(directory, 'state')).filter((name) => name !== 'lock')
  if (left.length > 0) failures.push(`it left behind: ${left.join(', ')}`)
  fs.rmSync(directory, { recursive: true })
  return { name: 'no symbolic links', tried: 1, failures, detail: 'refused, with a hint' }
}

function run(command: string, ...parameters: string[]): void {
  const { status, stderr, error } = spawnSync(command, parameters, { encoding: 'utf8' })
  if (error) throw error
  if (status !== 0) throw new Error(`${command}: ${stderr.trim().split('\n').at(-1)}`)
}

async function withFat<T>(workspace: string, use: (directory: string) => T): Promise<Awaited<T>> {
  const directory = fs.mkdtempSync(path.join(workspace, 'fat-'))
  const image = `${directory}.image`
  fs.writeFileSync(image, '')
  fs.truncateSync(image, 8 * 1024 * 1024)
  try {
    run('mkfs.vfat', image)
    run('fusefat', '-o', 'rw+', image, directory)
    try {
      return await use(directory)
    } finally {
      run('fusermount', '-u', directory)
    }
  } finally {
    fs.rmdirSync(directory)
    fs.rmSync(image)
  }
}

/** A real FAT, by FUSE. */
export const sweepFat = (workspace: string): Promise<Sweep> =>
  withFat(workspace, async (directory) => {
    const failures = await refusal(directory)
    return { name: 'FAT by FUSE', tried: 1, failures, detail: 'refused, with a hint' }
  })

/** Why there is no FAT by FUSE here, if there is none. */
export async function fatMissing(workspace: string): Promise<string | undefined> {
  try {
    await withFat(workspace, () => {})
    return undefined
  } catch (error) {
    return `no FAT here: ${(error as Error).message}`
  }
}
