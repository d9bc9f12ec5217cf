/** The built command, run in a directory of its own with an empty environment. */
import { type ExecFileException, execFile, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../dist/main.js', import.meta.url))

export interface Run {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface Running {
  /** Rejects if the command ends without one. */
  readonly firstLine: Promise<string>
  readonly lines: readonly string[]
  err(): string
  /** @returns the exit code */
  stop(signal: NodeJS.Signals): Promise<number | null>
}

export interface Workplace {
  readonly directory: string
  run(words: readonly string[], input?: string, env?: Record<string, string>): Promise<Run>
  /** `certvend-server device …`, in one line. */
  device(line: string): Promise<Run>
  /** Starts a command that runs until it is told to stop. */
  start(words: readonly string[]): Running
  remove(): void
}

export function makeWorkplace(): Workplace {
  const directory = mkdtempSync(join(tmpdir(), 'certvend-cli-'))
  const run: Workplace['run'] = (words, input = '', env = {}) =>
    new Promise((resolve) => {
      const done = (error: ExecFileException | null, out: string, err: string) =>
        resolve({ code: error ? Number(error.code) : 0, out, err })
      const options = {
        cwd: directory,
        env: { TMPDIR: directory, ...env },
        encoding: 'utf8' as const,
      }
      execFile(process.execPath, [main, ...words], options, done).stdin?.end(input)
    })
  return {
    directory,
    run,
    device: (line) => run(['device', ...line.split(' ')]),
    start: (words) => start(directory, words),
    remove: () => rmSync(directory, { recursive: true, force: true }),
  }
}

function start(directory: string, words: readonly string[]): Running {
  const child = spawn(process.execPath, [main, ...words], {
    cwd: directory,
    env: { TMPDIR: directory },
  })
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    err += chunk
  })
  const lines: string[] = []
  const firstLine = new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      lines.push(line)
      resolve(line)
    })
    child.once('exit', (code) => reject(new Error(`exit code ${code}: ${err}`)))
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  return {
    firstLine,
    lines,
    err: () => err,
    async stop(signal: NodeJS.Signals) {
      child.kill(signal)
      return ended
    },
  }
}
