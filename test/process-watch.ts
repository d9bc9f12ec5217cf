/** Watches every process for a secret on its command line or in its environment. */
import { spawn } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'

export interface Watched {
  /** Times that all processes were looked at. */
  readonly rounds: number
  /** How many processes of `openssl` were seen that this one started. */
  readonly openssl: number
  /** Command lines that held the secret. */
  readonly hits: readonly string[]
}

/** Watches until the returned function is called. */
export async function watchFor(secret: string): Promise<() => Promise<Watched>> {
  const program = path.join(import.meta.dirname, 'process-watch.mjs')
  const child = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  child.stdin.write(`${secret}\n`)
  await lines.next()
  return async () => {
    child.stdin.end('enough\n')
    return JSON.parse((await lines.next()).value)
  }
}
