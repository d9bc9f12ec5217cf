/** Questions to a person at a terminal; only `certvend init` asks any. */
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'

export interface Questions {
  /**
   * One line, without the spaces around it. `hidden`: what is typed is not shown.
   *
   * @throws {@link Stopped} at Ctrl-C, Ctrl-D or the end of the input
   */
  ask(text: string, options?: { readonly hidden?: boolean }): Promise<string>
  /** Yes or no; Enter is `otherwise`. */
  confirm(text: string, otherwise: boolean): Promise<boolean>
  close(): void
}

/** The person went away. */
export interface Stopped extends Error {
  readonly stopped: true
}

export const isStopped = (error: unknown): error is Stopped =>
  error instanceof Error && 'stopped' in error

export interface Ends {
  readonly input: NodeJS.ReadableStream & { readonly isTTY?: boolean }
  readonly output: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number }
}

export function openQuestions({ input, output }: Ends): Questions {
  let hidden = false
  const shown = new Writable({
    write(chunk, _encoding, done) {
      if (!hidden) output.write(chunk)
      done()
    },
  })
  const lines = createInterface({ input, output: shown, terminal: true, historySize: 0 })
  let gone = false
  let stop = (): void => {}
  const onGone = (): void => {
    gone = true
    stop()
  }
  lines.once('close', onGone).once('SIGINT', () => lines.close())

  function ask(text: string, { hidden: secret = false } = {}): Promise<string> {
    return new Promise((resolve, reject) => {
      stop = () => {
        hidden = false
        output.write('\n')
        reject(Object.assign(new Error('stopped; nothing was written'), { stopped: true as const }))
      }
      if (gone) return stop()
      if (secret) output.write(text)
      hidden = secret
      lines.once('line', (line: string) => {
        if (hidden) output.write('\n')
        hidden = false
        resolve(line.trim())
      })
      lines.setPrompt(secret ? '' : text)
      lines.prompt()
    })
  }

  return {
    ask,
    async confirm(text, otherwise) {
      for (;;) {
        const answer = (await ask(`${text} ${otherwise ? '[Y/n]' : '[y/N]'} `)).toLowerCase()
        if (answer === '') return otherwise
        if (/^y(es)?$/.test(answer)) return true
        if (/^no?$/.test(answer)) return false
      }
    },
    close() {
      lines.removeListener('close', onGone)
      lines.close()
    },
  }
}
