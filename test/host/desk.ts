/**
 * A desk in front of the machine: types what the page says as root or as somebody, and keeps the shell
 * from one block to the next, with its directory and what was exported or defined in it.
 */
import fs from 'node:fs'
import path from 'node:path'
import type { Machine } from '../gateway/machine.ts'
import { type Block, type Command, commandsOf } from './page.ts'

export interface Typed extends Command {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface Desk {
  /** A new shell, which knows nothing of the one before; root's by default. */
  login(user?: string): void
  /** Types a block: `#` as root, `$` as `user`. @returns each command with what came of it */
  type(block: Block, options?: TypeOptions): Promise<readonly Typed[]>
  /** One line, which must succeed. @returns what it printed, without blanks around it */
  must(line: string, user?: string): Promise<string>
  /** One line that may fail. */
  try(line: string, user?: string): Promise<Typed>
  /** Writes a file of the machine's. */
  put(
    file: string,
    text: string,
    options?: { readonly mode?: number; readonly owner?: string },
  ): Promise<void>
}

export interface TypeOptions {
  readonly user?: string
  /** What is typed on the keyboard while a command reads it. */
  readonly keyboard?: string
  /** What the page cannot know, by what stands for it there. */
  readonly instead?: Readonly<Record<string, string>>
}

/** What a shell remembers. */
const remembered = /^(export \w|\w+\(\) )/

export function openDesk(machine: Machine): Desk {
  const shells = new Map<string, { directory: string; kept: string }>()
  const script = '/var/tmp/typed'

  async function run(command: Command, user: string, keyboard = ''): Promise<Typed> {
    const shell = shells.get(user) ?? { directory: '~', kept: '' }
    shells.set(user, shell)
    const lines = `${shell.kept}cd ${shell.directory}\nset -e -o pipefail\n${command.line}\npwd >&9\n`
    fs.writeFileSync(path.join(machine.root, script), lines)
    fs.writeFileSync(path.join(machine.root, `${script}.keys`), keyboard)
    const { code, stdout, stderr } = await machine.run(
      `: > ${script}.at; exec 9>${script}.at; cat ${script}.keys | runuser -l ${user} -c 'bash ${script}'`,
    )
    const at = fs.readFileSync(path.join(machine.root, `${script}.at`), 'utf8').trim()
    if (at !== '') shell.directory = at
    if (remembered.test(command.line)) shell.kept += `${command.line}\n`
    return { ...command, code, out: stdout, err: stderr }
  }

  const line = (text: string): Command => ({ prompt: '#', line: text, prints: '' })
  const failed = ({ line: typed, code, out, err }: Typed): Error =>
    new Error(`exit code ${code} from\n${typed}\n${out}${err}`)

  const desk: Desk = {
    login: (user = 'root') => void shells.delete(user),
    async type(block, { user = 'root', keyboard, instead = {} } = {}) {
      const typed: Typed[] = []
      for (const command of commandsOf(block)) {
        const words = Object.entries(instead).reduce(
          (text, [before, after]) => text.replaceAll(before, after),
          command.line,
        )
        const who = command.prompt === '#' ? 'root' : user
        const done = await run({ ...command, line: words }, who, keyboard)
        if (done.code !== 0) throw failed(done)
        if (command.prints !== '' && done.out !== command.prints)
          throw new Error(`${words}\nprints ${done.out}\nand not   ${command.prints}`)
        typed.push(done)
      }
      return typed
    },
    try: (text, user = 'root') => run(line(text), user),
    async must(text, user = 'root') {
      const done = await run(line(text), user)
      if (done.code !== 0) throw failed(done)
      return done.out.trim()
    },
    async put(file, text, { mode = 0o644, owner } = {}) {
      const at = path.join(machine.root, file)
      fs.mkdirSync(path.dirname(at), { recursive: true })
      fs.writeFileSync(at, text)
      fs.chmodSync(at, mode)
      if (owner) await desk.must(`chown ${owner} /${file}`)
    },
  }
  return desk
}
