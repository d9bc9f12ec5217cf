/** Runs a program to its end or to its time limit, without a shell. */
import { spawn } from 'node:child_process'
import { type Clock, systemClock } from '@certvend/client'

export interface RunOptions {
  readonly signal: AbortSignal
  /** In milliseconds; then it is killed. */
  readonly limitMs: number
  /** Passed on as CERTVEND_DIRECTORY. */
  readonly directory: string
}

/** Resolves to nothing when the program ended well, else to why not: `exit code 1`. */
export type Run = (argv: readonly string[], options: RunOptions) => Promise<string | undefined>

/** What it says goes to stderr, which under systemd is the journal. */
export const runProgram =
  (clock: Clock = systemClock): Run =>
  async ([program = '', ...argv], { signal, limitMs, directory }) => {
    signal.throwIfAborted()
    const child = spawn(program, argv, {
      stdio: ['ignore', process.stderr, process.stderr],
      // A group of its own, so that what it started is killed with it.
      detached: true,
      env: {
        PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        LANG: 'C.UTF-8',
        CERTVEND_DIRECTORY: directory,
      },
    })
    const over = new AbortController()
    const ended = new Promise<string | undefined>((resolve) => {
      child.once('error', (error: NodeJS.ErrnoException) =>
        resolve(`did not start (${error.code})`),
      )
      child.once('exit', (code, by) =>
        resolve(by ? `was ended by ${by}` : code === 0 ? undefined : `exit code ${code}`),
      )
    })
    const kill = (): void => {
      try {
        if (child.pid) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // It is gone.
      }
    }
    const late = clock.wait(limitMs, over.signal).then(
      () => `took longer than ${limitMs / 1000} s`,
      () => undefined,
    )
    signal.addEventListener('abort', kill, { once: true })
    try {
      const why = await Promise.race([ended, late])
      if (why?.startsWith('took longer')) kill()
      signal.throwIfAborted()
      return why
    } finally {
      over.abort()
      signal.removeEventListener('abort', kill)
    }
  }
