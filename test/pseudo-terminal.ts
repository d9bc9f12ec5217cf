/** The built `certvend` in a pseudo-terminal, by script(1) of util-linux, and a person who types. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

const binary = fileURLToPath(new URL('../packages/agent/dist/main.js', import.meta.url))

/** Why tests in a terminal are skipped, or nothing. */
export const terminalMissing: string | undefined = spawnSync('script', ['--version'], {
  encoding: 'utf8',
}).stdout?.includes('util-linux')
  ? undefined
  : 'no script(1) of util-linux'

export interface PseudoTerminal {
  readonly child: ChildProcess
  /** Everything that was written to the terminal, as it was. */
  readonly raw: string
  /** What a person sees in the end: without line feeds' companions, and with overwritten rows gone. */
  readonly screen: string
  /** Resolves when `text` was written since the last call; rejects when the command ends first. */
  until(text: string): Promise<void>
  /** Types a line. */
  type(line: string): void
  readonly exited: Promise<number | null>
}

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`

export function inTerminal(
  argv: readonly string[],
  { cwd, env = {} }: { cwd: string; env?: NodeJS.ProcessEnv },
): PseudoTerminal {
  const command = [process.execPath, binary, ...argv].map(quoted).join(' ')
  const child = spawn('script', ['-qfec', `stty cols 200; ${command}`, '/dev/null'], {
    cwd,
    env: { PATH: process.env.PATH, HOME: cwd, TERM: 'xterm', SHELL: '/bin/sh', ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  let raw = ''
  let heard = 0
  let over = false
  const watchers = new Set<() => void>()
  const look = (): void => {
    for (const watcher of watchers) watcher()
  }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    raw += text
    look()
  })
  const exited = new Promise<number | null>((resolve) => {
    child.once('close', (code) => {
      over = true
      look()
      resolve(code)
    })
  })
  return {
    child,
    exited,
    get raw() {
      return raw
    },
    get screen() {
      return raw
        .replaceAll('\r\n', '\n')
        .split('\n')
        .map((row) => row.split('\r\x1b[K').at(-1) ?? '')
        .join('\n')
    },
    until: (text) =>
      new Promise((resolve, reject) => {
        const watcher = (): void => {
          const at = raw.indexOf(text, heard)
          if (at < 0 && !over) return
          watchers.delete(watcher)
          if (at < 0) reject(new Error(`ended before ${JSON.stringify(text)}:\n${raw}`))
          heard = at + text.length
          resolve()
        }
        watchers.add(watcher)
        watcher()
      }),
    type: (line) => void child.stdin.write(`${line}\r`),
  }
}
