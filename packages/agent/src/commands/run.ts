/** `certvend run`: the daemon in the foreground, as systemd wants it. */
import { openCredentialStore, systemClock } from '@certvend/client'
import { runAgent } from '../agent.ts'
import { readEnrollment } from '../enrollment.ts'
import type { ExitCode } from '../failure.ts'
import { openLog } from '../log.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { stopOnSignals } from '../signals.ts'
import type { Terminal } from '../terminal.ts'
import { bootTokens, importToken } from '../token.ts'
import { version } from '../version.ts'

export async function run(flags: Flags, terminal: Terminal): Promise<ExitCode> {
  const { signal, release } = stopOnSignals()
  try {
    const settings = await resolveSettings(flags)
    const json = flags.json === true || !terminal.interactive
    const log = openLog((line) => terminal.out(line), { json, clock: systemClock })
    const store = await openCredentialStore(settings.stateDirectory)
    log({ event: 'agent.start', version, stateDirectory: store.directory })
    if (!store.current() && !settings.tokenFile)
      await importToken(bootTokens, { stateDirectory: settings.stateDirectory, log })
    await runAgent({
      store,
      enrollment: () => readEnrollment(settings),
      signal,
      log,
      mqtt: settings.mqtt,
      once: flags.once === true,
    })
    const message = signal.aborted ? (signal.reason as Error).message : 'published once, as asked'
    log({ event: 'agent.stop', message })
    return 0
  } finally {
    release()
  }
}
