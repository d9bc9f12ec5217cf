/** A directory of a test's own, removed when the test is over, and a way to fill it. */
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { onTestFinished } from 'vitest'

export interface Folder {
  readonly path: string
  /** Writes a file (0600 unless said otherwise) and gives its absolute name. */
  write(name: string, text: string, mode?: number): string
  /** The absolute name of something in it. */
  at(name: string): string
  /** Names of what lies in it, sorted. */
  list(): string[]
}

export function makeFolder(): Folder {
  const directory = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), 'certvend-agent-')))
  onTestFinished(() => fs.rmSync(directory, { recursive: true, force: true }))
  const at = (name: string): string => path.join(directory, name)
  return {
    path: directory,
    at,
    write(name, text, mode = 0o600) {
      fs.writeFileSync(at(name), text)
      fs.chmodSync(at(name), mode)
      return at(name)
    },
    list: () => fs.readdirSync(directory).sort(),
  }
}
