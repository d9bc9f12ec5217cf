/** Child processes that import the built packages as any program would. */
import { type ChildProcess, spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { onTestFinished } from 'vitest'

export interface ChildOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Passed to the script as `process.argv`. */
  readonly args?: readonly string[]
}

/** Starts a module whose text is `script`, resolving imports from here; killed when the test ends. */
export function startScript(
  script: string,
  { env = {}, args = [] }: ChildOptions = {},
): ChildProcess {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, '--', ...args], {
    cwd: import.meta.dirname,
    env: { PATH: process.env.PATH, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

/** Runs a module to its end and gives what it printed, as JSON. */
export async function runScript<T>(script: string, options?: ChildOptions): Promise<T> {
  const child = startScript(script, options)
  child.stdin?.end()
  return JSON.parse(await text(child.stdout as NodeJS.ReadableStream)) as T
}

/** The next line that a child prints. */
export const nextLine = (child: ChildProcess): Promise<string> =>
  new Promise((resolve) => child.stdout?.once('data', (chunk) => resolve(String(chunk).trim())))

/** A user without rights, whom root can become. */
export const nobody = 65534

/** Why a test cannot become another user, or nothing. */
export const notRoot: string | undefined =
  process.getuid?.() === 0 ? undefined : 'only root can become another user'

/** Lines that, after its imports, make a script go on as {@link nobody}. */
export const becomeNobody = `
  process.setgroups([])
  process.setgid(${nobody})
  process.setuid(${nobody})
`
