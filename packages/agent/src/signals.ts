/** SIGTERM and SIGINT as an AbortSignal. A second one, while the first is being obeyed, kills. */
import type { ExitCode } from './failure.ts'
import type { Terminal } from './terminal.ts'

const names = ['SIGTERM', 'SIGINT'] as const

export interface StopSignal {
  readonly signal: AbortSignal
  /** Gives the signals back to whoever had them. */
  release(): void
}

/** The reason of the abort is an Error whose message names the signal. */
export function stopOnSignals(): StopSignal {
  const controller = new AbortController()
  const listeners = names.map((name) => {
    const listener = (): void => {
      release()
      controller.abort(new Error(`stopped by ${name}`))
    }
    process.on(name, listener)
    return [name, listener] as const
  })
  const release = (): void => {
    for (const [name, listener] of listeners) process.removeListener(name, listener)
  }
  return { signal: controller.signal, release }
}

/** Does what may be stopped at any moment, and says so where it was. */
export async function untilStopped(
  terminal: Terminal,
  work: (signal: AbortSignal) => Promise<ExitCode>,
): Promise<ExitCode> {
  const { signal, release } = stopOnSignals()
  try {
    return await work(signal)
  } catch (error) {
    if (!signal.aborted) throw error
    const { message } = signal.reason as Error
    const hint = 'nothing is lost; the same command goes on where this one stopped'
    terminal.fail({ exitCode: 1, message, hint })
    return 1
  } finally {
    release()
  }
}

/** Calls `reload` on SIGHUP; gives the way back. */
export function reloadOnHangup(reload: () => void): () => void {
  process.on('SIGHUP', reload)
  return () => void process.removeListener('SIGHUP', reload)
}
