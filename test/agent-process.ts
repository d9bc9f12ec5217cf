/** The built `certvend` as a child process, and a device's folder for it. */
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Lab } from '@certvend/server/lab'
import { onTestFinished } from 'vitest'

/** The built command. */
export const binary: string = fileURLToPath(
  new URL('../packages/agent/dist/main.js', import.meta.url),
)

export interface LogLine {
  readonly event: string
  readonly [field: string]: unknown
}

export interface AgentProcess {
  readonly child: ChildProcess
  readonly stdout: string
  readonly stderr: string
  /** The log so far; empty for commands that do not log. */
  readonly events: readonly LogLine[]
  /** Resolves with the first line of the log of that name, past or to come; rejects when the process ends first. */
  until(event: string): Promise<LogLine>
  /** Resolves when stderr holds `text`; rejects when the process ends first. */
  untilSaid(text: string): Promise<void>
  readonly exited: Promise<{ readonly code: number | null; readonly signal: string | null }>
  /** Sends SIGTERM, and to one that hangs SIGKILL, which leaves no exit code. */
  terminate(): Promise<{ readonly code: number | null }>
}

/** Starts `certvend` in `cwd`. What is still running when the test is over is killed. */
export function start(
  argv: readonly string[],
  { cwd, env = {} }: { cwd: string; env?: NodeJS.ProcessEnv },
): AgentProcess {
  const child = spawn(process.execPath, [binary, ...argv], {
    cwd,
    env: { PATH: process.env.PATH, HOME: cwd, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const output = { stdout: '', stderr: '' }
  const watchers = new Set<() => void>()
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
      for (const look of watchers) look()
    })
  let over = false
  const exited = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once('close', (code, signal) => {
      over = true
      for (const look of watchers) look()
      resolve({ code, signal })
    })
  })
  const events = (): LogLine[] =>
    output.stdout
      .split('\n')
      .slice(0, -1)
      .filter((line) => line.startsWith('{"time"'))
      .map((line) => JSON.parse(line))
  const when = <T>(find: () => T | undefined, what: string): Promise<T> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = find()
        if (found === undefined && !over) return
        watchers.delete(look)
        if (found !== undefined) resolve(found)
        else
          reject(
            new Error(`ended before ${what}\nstdout: ${output.stdout}\nstderr: ${output.stderr}`),
          )
      }
      watchers.add(look)
      look()
    })
  return {
    child,
    get stdout() {
      return output.stdout
    },
    get stderr() {
      return output.stderr
    },
    get events() {
      return events()
    },
    until: (name) => when(() => events().find(({ event }) => event === name), name),
    async untilSaid(text) {
      await when(() => (output.stderr.includes(text) ? true : undefined), text)
    },
    exited,
    async terminate() {
      child.kill('SIGTERM')
      const hanging = setTimeout(() => child.kill('SIGKILL'), 10_000)
      return exited.finally(() => clearTimeout(hanging))
    },
  }
}

export interface DeviceFolder {
  readonly path: string
  readonly state: string
  readonly deviceSerial: string
  readonly token: string
  at(...names: string[]): string
  /** Flags for `enroll` and `run`, save what is changed. */
  flags(changed?: Readonly<Record<string, string>>): string[]
}

/** A folder with all that a device of the lab is given; removed when the test is over. */
export async function deviceFolder(
  lab: Lab,
  device?: { deviceSerial: string; token: string },
): Promise<DeviceFolder> {
  const folder = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), 'certvend-device-')))
  onTestFinished(() => fs.rmSync(folder, { recursive: true, force: true }))
  const { deviceSerial, token } = device ?? (await lab.addDevice())
  const at = (...names: string[]): string => path.join(folder, ...names)
  fs.writeFileSync(at('pin.pem'), lab.pins)
  fs.writeFileSync(at('token'), `${token}\n`, { mode: 0o600 })
  return {
    path: folder,
    state: at('state'),
    deviceSerial,
    token,
    at,
    flags: (changed = {}) =>
      Object.entries({
        server: lab.vendingUrl,
        pin: at('pin.pem'),
        serial: deviceSerial,
        'token-file': at('token'),
        'state-dir': at('state'),
        ...changed,
      }).flatMap(([name, value]) => [`--${name}`, value]),
  }
}
