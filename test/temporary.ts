/** Directories that a test may fill, removed after it. */
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { onTestFinished } from 'vitest'

/** A fresh directory (0700), removed when the current test ends. */
export function temporaryDirectory(): string {
  const directory = fs.mkdtempSync(path.join(fs.realpathSync(tmpdir()), 'certvend-'))
  onTestFinished(() => fs.rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** Paths of everything below `directory`, relative and sorted; links are not followed. */
export function contents(directory: string, below = ''): string[] {
  const entries = fs.readdirSync(path.join(directory, below), { withFileTypes: true })
  return entries
    .flatMap((entry) => {
      const name = path.join(below, entry.name)
      return entry.isDirectory() ? [name, ...contents(directory, name)] : [name]
    })
    .sort()
}

/** The bytes of every file below `directory`. */
export function allBytes(directory: string): Buffer {
  const files = contents(directory)
    .map((name) => path.join(directory, name))
    .filter((name) => fs.lstatSync(name).isFile())
  return Buffer.concat(files.map((name) => fs.readFileSync(name)))
}
