/**
 * A page of `docs/` as its reader meets it: numbered steps, with blocks to type, to write into a file, or
 * to compare with. Whoever rehearses the page takes every block; {@link Page.left} says what was left out.
 */
import fs from 'node:fs'

export interface Block {
  /** The number of its step, or the heading above it. */
  readonly step: string
  readonly language: string
  readonly text: string
}

export interface Command {
  /** `#`: root. `$`: whoever it is for. */
  readonly prompt: '#' | '$'
  readonly line: string
  /** What the page says that it prints. */
  readonly prints: string
}

export interface Page {
  readonly text: string
  /** The blocks of a step, in order. @throws Error if there is none */
  take(step: string): readonly Block[]
  /** Blocks that nobody took. */
  left(): readonly Block[]
}

export function readPage(file: string | URL): Page {
  const blocks: (Block & { taken?: true })[] = []
  let step = ''
  let open: { language: string; indent: number; lines: string[] } | undefined
  const text = fs.readFileSync(file, 'utf8')
  for (const line of text.split('\n')) {
    const fence = /^( *)```(\w*)$/.exec(line)
    if (fence && open) {
      blocks.push({ step, language: open.language, text: `${open.lines.join('\n')}\n` })
      open = undefined
    } else if (fence) open = { language: fence[2] ?? '', indent: fence[1]?.length ?? 0, lines: [] }
    else if (open) open.lines.push(line.slice(open.indent))
    else step = /^(\d+)\. /.exec(line)?.[1] ?? /^#+ (.*)/.exec(line)?.[1] ?? step
  }
  return {
    text,
    take(wanted) {
      const found = blocks.filter((block) => block.step === wanted)
      if (found.length === 0) throw new Error(`the page has no block in ${wanted}`)
      for (const block of found) block.taken = true
      return found
    },
    left: () => blocks.filter(({ taken }) => !taken),
  }
}

/** What a block of `console` has one type, with lines that go on behind a backslash. */
export function commandsOf({ text }: Block): readonly Command[] {
  const commands: { prompt: '#' | '$'; line: string; prints: string }[] = []
  for (const line of text.trimEnd().split('\n')) {
    const last = commands.at(-1)
    const [, prompt, words = ''] = /^([#$]) (.*)/.exec(line) ?? []
    if (prompt === '#' || prompt === '$') commands.push({ prompt, line: words, prints: '' })
    else if (last?.line.endsWith('\\') && last.prints === '') last.line += `\n${line}`
    else if (last) last.prints += `${line}\n`
    else throw new Error(`no prompt before: ${line}`)
  }
  return commands
}
