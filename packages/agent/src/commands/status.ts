/** `certvend status`: what the running agent says, else what the state directory says. */
import { systemClock } from '@certvend/client'
import { waysOf } from '../enrollment.ts'
import type { ExitCode } from '../failure.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { ask } from '../socket.ts'
import { checkOf, readStatus, type StatusDocument, statusInWords } from '../status.ts'
import type { Terminal } from '../terminal.ts'

export async function status(flags: Flags, terminal: Terminal): Promise<ExitCode> {
  const settings = await resolveSettings(flags)
  const { stateDirectory, socketDirectory, consumers } = settings
  const now = systemClock.now()
  const answer = await ask(socketDirectory, 'query', { do: 'status' })
  const found = answer?.ok
    ? (answer.result as StatusDocument)
    : await readStatus(stateDirectory, now, waysOf(settings))
  const handedOn = consumers.length > 0 ? await import('../consumers.ts') : undefined
  const record = handedOn?.readConsumersRecord(handedOn.consumersPlaces.record)
  const document = record ? { ...found, consumers: record } : found
  const words = (record?.consumers ?? []).map(
    (result) => `consumer      ${handedOn?.resultInWords(result)}\n`,
  )
  terminal.out(
    flags.json
      ? JSON.stringify(document, undefined, 2)
      : statusInWords(document, now) + words.join(''),
  )
  return flags.check ? checkOf(document) : document.state === 'unreadable' ? 3 : 0
}
