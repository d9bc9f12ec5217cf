/** `certvend status`: what the running agent says, else what the state directory says. */
import { systemClock } from '@certvend/client'
import type { ExitCode } from '../failure.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { ask } from '../socket.ts'
import { checkOf, readStatus, type StatusDocument, statusInWords } from '../status.ts'
import type { Terminal } from '../terminal.ts'

export async function status(flags: Flags, terminal: Terminal): Promise<ExitCode> {
  const { stateDirectory, socketDirectory } = await resolveSettings(flags)
  const now = systemClock.now()
  const answer = await ask(socketDirectory, 'query', 'status')
  const document = answer?.ok
    ? (answer.result as StatusDocument)
    : await readStatus(stateDirectory, now)
  terminal.out(flags.json ? JSON.stringify(document, undefined, 2) : statusInWords(document, now))
  return flags.check ? checkOf(document) : document.state === 'unreadable' ? 3 : 0
}
