/** What a command knows of the process it runs in; tests make their own. */
import type { Clock } from './clock.ts'

export interface Terminal {
  /** Results, and nothing else: what a script reads. */
  readonly out: (text: string) => void
  /** Words for a person. */
  readonly err: (text: string) => void
  readonly env: Readonly<Record<string, string | undefined>>
  readonly clock: Clock
  /** Aborts when the process is asked to end. */
  readonly signal: AbortSignal
  /** Everything that stands on standard input. */
  readonly readInput: () => Promise<string>
}

/** One line for a person, in the program's voice. */
export const say = (terminal: Terminal, line: string): void =>
  terminal.err(`certvend-server: ${line}\n`)

/** One JSON document on one line. */
export const print = (terminal: Terminal, document: unknown): void =>
  terminal.out(`${JSON.stringify(document)}\n`)
