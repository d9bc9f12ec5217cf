/** `certvend reload`: the running agent reads its configuration again. */
import { configurationError, type ExitCode } from '../failure.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { ask } from '../socket.ts'
import type { Terminal } from '../terminal.ts'

/** @throws a configuration error, here and now, when what it would read cannot be used */
export async function reload(flags: Flags, terminal: Terminal): Promise<ExitCode> {
  const { socketDirectory } = await resolveSettings(flags)
  const answer = await ask(socketDirectory, 'control', { do: 'reload' })
  if (!answer?.ok)
    throw configurationError(
      answer?.message ?? `no agent answers this user in ${socketDirectory}`,
      'is it running, and are you root? systemctl status certvend',
    )
  terminal.progress('the agent reads its configuration again')
  return 0
}
