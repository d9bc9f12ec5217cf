/**
 * The voice of the command. All of it is here.
 *
 * - stdout carries what was asked for: a document, or `run`'s log. Nothing else.
 * - stderr carries everything else. An error is one line, `certvend: <lower case, no final period>`,
 *   followed by `hint: <what to do next>` wherever we know it, and `more: <where it is explained>`
 *   for every code of the table.
 * - Progress goes to stderr, a line for each thing that happened. On a terminal the line of a wait
 *   is overwritten by what comes next, so that a night offline is one line; piped, nothing is.
 * - A question is asked on stderr, and only of a person: whoever has no terminal is never waited for.
 * - No colours, no spinner; and no secret has a way in.
 */
import type { Failure } from './failure.ts'

/** The part of a stream that is used. */
export interface Output {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

export interface Terminal {
  /** Whether a person reads stdout. */
  readonly interactive: boolean
  /** Data, on stdout; ends with a line break. */
  out(text: string): void
  /**
   * One thing that happened. `passing`: the next line takes its place on a terminal; an empty one
   * takes the place of the last and is no line of its own.
   */
  progress(line: string, options?: { readonly passing?: boolean }): void
  warn(message: string, hint?: string): void
  fail(failure: Failure): void
  /** What a person answers, without white space around it; nothing where nobody could. */
  ask(question: string): Promise<string | undefined>
}

const eraseLine = '\r\x1b[K'

export function openTerminal(
  stdout: Output,
  stderr: Output,
  stdin: NodeJS.ReadStream = process.stdin,
): Terminal {
  let passing = false
  const say = (line: string): void => {
    stderr.write(`${passing ? eraseLine : ''}${line}\n`)
    passing = false
  }
  const complain = (message: string, hint?: string): void => {
    say(`certvend: ${message}`)
    if (hint !== undefined) say(`hint: ${hint}`)
  }
  return {
    interactive: stdout.isTTY === true,
    out: (text) => void stdout.write(text.endsWith('\n') ? text : `${text}\n`),
    progress(line, options = {}) {
      if (!stderr.isTTY && line === '') return
      if (!options.passing || !stderr.isTTY) return say(line)
      // One row at most: a line that wrapped could not be taken back.
      stderr.write(`${passing ? eraseLine : ''}${line.slice(0, (stderr.columns || 80) - 1)}`)
      passing = true
    },
    warn: complain,
    fail({ message, hint, docs }) {
      complain(message, hint)
      if (docs !== undefined) say(`more: ${docs}`)
    },
    async ask(question) {
      if (!stdin.isTTY || !stderr.isTTY) return undefined
      const { createInterface } = await import('node:readline')
      const lines = createInterface({ input: stdin })
      stderr.write(`${question} `)
      const answer = await new Promise<string>((resolve) => {
        lines.once('line', resolve).once('close', () => resolve('')) // the end of input is an answer, too
      })
      lines.close()
      return answer.trim()
    },
  }
}
