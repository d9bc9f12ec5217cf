/** `certvend status`: what the state directory says, for people or as JSON. */
import { systemClock } from '@certvend/client'
import type { ExitCode } from '../failure.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { readStatus, statusInWords } from '../status.ts'
import type { Terminal } from '../terminal.ts'

export async function status(flags: Flags, terminal: Terminal): Promise<ExitCode> {
  const { stateDirectory } = await resolveSettings(flags)
  const now = systemClock.now()
  const document = await readStatus(stateDirectory, now)
  terminal.out(flags.json ? JSON.stringify(document, undefined, 2) : statusInWords(document, now))
  return document.state === 'unreadable' ? 3 : 0
}
