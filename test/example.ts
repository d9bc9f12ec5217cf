/** The examples as a person runs them: each a process of its own. */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { temporaryDirectory } from './temporary.ts'

export interface Run {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs an example to its end, within a minute. */
export function runExample(name: string, ...args: string[]): Promise<Run> {
  const file = path.resolve(import.meta.dirname, `../examples/dist/${name}.js`)
  return new Promise((resolve) => {
    execFile(process.execPath, [file, ...args], { timeout: 60_000 }, (error, out, err) => {
      resolve({ code: error ? Number(error.code ?? 99) : 0, out, err })
    })
  })
}

/** Writes texts into a directory of the test's; gives their paths. */
export function filesOf<T extends Readonly<Record<string, string>>>(texts: T): T {
  const directory = temporaryDirectory()
  return Object.fromEntries(
    Object.entries(texts).map(([name, text]) => {
      const file = path.join(directory, name)
      fs.writeFileSync(file, text, { mode: 0o600 })
      return [name, file]
    }),
  ) as T
}
