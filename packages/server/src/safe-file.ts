/**
 * Files that must survive a crash and stay private: written whole under a random name, synced, then
 * given their name, then the directory synced. What was there before is intact until then.
 */
import { randomBytes } from 'node:crypto'
import { link, mkdir, open, readFile, rename, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** Makes a directory that only this user can enter, if it is not there. */
export async function ensurePrivateDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function writeTemporary(path: string, contents: string, mode: number): Promise<string> {
  const temporary = join(dirname(path), `.${randomBytes(8).toString('hex')}.tmp`)
  const handle = await open(temporary, 'wx', mode)
  try {
    await handle.writeFile(contents)
    await handle.sync()
  } finally {
    await handle.close()
  }
  return temporary
}

/** Writes `path`, replacing what is there. */
export async function replaceFile(path: string, contents: string, mode: number): Promise<void> {
  const temporary = await writeTemporary(path, contents, mode)
  await rename(temporary, path)
  await syncDirectory(dirname(path))
}

/**
 * Reads `path`, or creates it (0600) with what `make` returns. Of two processes that create it at
 * once, both get what the first one wrote: link(2) refuses an existing name.
 */
export async function readOrCreate(path: string, make: () => Promise<string>): Promise<string> {
  const present = await readIfPresent(path)
  if (present !== undefined) return present
  const temporary = await writeTemporary(path, await make(), 0o600)
  try {
    await link(temporary, path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    await unlink(temporary)
  }
  await syncDirectory(dirname(path))
  return readFile(path, 'utf8')
}

/** The file's text, or undefined if there is no such file. */
export async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
