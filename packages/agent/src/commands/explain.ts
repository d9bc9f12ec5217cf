/** `certvend explain`: the last failure in one sentence, and what it rests on. */
import { CertvendError } from '@certvend/client'
import { explainEpisode, explanationInWords } from '../explanation.ts'
import type { ExitCode } from '../failure.ts'
import type { Episode } from '../journal.ts'
import { journalFile, readJournal } from '../journal-file.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { ask } from '../socket.ts'
import type { StatusDocument } from '../status.ts'
import type { Terminal } from '../terminal.ts'

/** @throws {CertvendError} `ERR_STORE_UNREADABLE` when no agent answers and the journal is not this user's */
export async function explain(flags: Flags, terminal: Terminal): Promise<ExitCode> {
  const { stateDirectory, socketDirectory } = await resolveSettings(flags)
  const answer = await ask(socketDirectory, 'query', { do: 'status' })
  const status = answer?.ok ? (answer.result as StatusDocument) : undefined
  // The agent remembers what is not on disk yet.
  const episode = status ? status.lastFailure : lastOf(stateDirectory)
  const explanation = explainEpisode(episode, status?.live)
  terminal.out(
    flags.json ? JSON.stringify(explanation, undefined, 2) : explanationInWords(explanation),
  )
  return 0
}

function lastOf(stateDirectory: string): Episode | undefined {
  try {
    return readJournal(stateDirectory).at(-1)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new CertvendError(
      'ERR_STORE_UNREADABLE',
      `cannot read ${journalFile(stateDirectory)} (${code})`,
      { cause },
    )
  }
}
