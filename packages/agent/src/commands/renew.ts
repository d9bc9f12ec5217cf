/** `certvend renew`: another key and certificate, by the ones in use; they stay until the new ones are proven. */
import { openCredentialStore } from '@certvend/client'
import type { ExitCode } from '../failure.ts'
import { proxyPlace } from '../proxy.ts'
import { renewHere } from '../renew-here.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { untilStopped } from '../signals.ts'
import { type CredentialDocument, describeCredential } from '../status.ts'
import type { Terminal } from '../terminal.ts'
import { hasAgent, throughAgent } from '../through-agent.ts'
import { shown } from './enroll.ts'

export async function renew(
  flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const settings = await resolveSettings(flags, environment)
  proxyPlace(environment)
  const { stateDirectory, socketDirectory } = settings
  if (await hasAgent(socketDirectory)) {
    const told = await throughAgent(socketDirectory, { do: 'renew' })
    terminal.out(shown(told as CredentialDocument, stateDirectory, flags))
    return 0
  }
  const store = await openCredentialStore(stateDirectory)
  try {
    return await untilStopped(terminal, async (signal) => {
      const options = { settings, environment, terminal, signal }
      const credential = await renewHere(store, { do: 'renew', by: 'credential' }, options)
      terminal.out(shown(describeCredential(credential), store.directory, flags))
      return 0
    })
  } finally {
    store.close()
  }
}
