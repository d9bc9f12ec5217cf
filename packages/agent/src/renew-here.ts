/** A renewal by the command itself, where no agent runs: the same steps, and the proof is one session. */
import {
  type CertvendError,
  type Credential,
  type CredentialStore,
  connect,
  isCertvendError,
  systemClock,
} from '@certvend/client'
import { readEnrollment, readVendingServer } from './enrollment.ts'
import type { Errand } from './errands.ts'
import { renew } from './renewal.ts'
import type { Settings } from './settings.ts'
import { waitingSuccessor } from './succession.ts'
import type { Terminal } from './terminal.ts'
import { inWords } from './wording.ts'

export interface HereOptions {
  readonly settings: Settings
  readonly environment: NodeJS.ProcessEnv
  readonly terminal: Terminal
  readonly signal: AbortSignal
}

/** @throws as `renew` */
export function renewHere(
  store: CredentialStore,
  errand: Extract<Errand, { do: 'renew' }>,
  { settings, environment, terminal, signal }: HereOptions,
): Promise<Credential> {
  return renew(errand, {
    store,
    enrollment: (token) => readEnrollment(settings, environment, token),
    vendingServer: () => readVendingServer(settings),
    signal,
    clock: systemClock,
    log: (event) => {
      if (event.event !== 'renew.failed') terminal.progress(inWords(event)) // that is the end of it
    },
    prove: () => prove(store, terminal, signal),
  })
}

async function prove(
  store: CredentialStore,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<CertvendError | undefined> {
  store.lock() // first of all: a session of ours would end that of an agent that did not answer
  const successor = waitingSuccessor(store)
  if (!successor) return undefined
  const { host, port } = successor.endpoint
  terminal.progress(`opening a session at ${host}:${port} with the new certificate`)
  try {
    const session = await connect(successor, { signal })
    store.promote()
    await session.close()
    return undefined
  } catch (error) {
    if (signal.aborted || !isCertvendError(error)) throw error
    return error
  }
}
