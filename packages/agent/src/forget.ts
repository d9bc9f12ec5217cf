/**
 * Factory reset of a running agent: says goodbye where it is heard, then removes everything.
 *
 * The vending machine is told while there is a key to tell it with, and it revokes the certificate.
 * Where it does not hear us, nothing is held up: the key is destroyed all the same.
 */
import {
  type Clock,
  type Credential,
  type CredentialStore,
  isCertvendError,
  retire,
  type Send,
  type VendingServer,
} from '@certvend/client'
import { isConfigurationError } from './failure.ts'
import { type Log, loggedFailure } from './log.ts'

export interface ForgetOptions {
  readonly vendingServer: () => VendingServer
  readonly signal: AbortSignal
  readonly clock: Clock
  readonly log: Log
  /** Ends the session that is open, for good. */
  readonly leave: () => Promise<void> | undefined
  readonly send?: Send
}

/** Secret-free. */
export interface Forgotten {
  readonly stateDirectory: string
  /** Who it was, if anybody. */
  readonly deviceSerial?: string
  readonly certificateId?: string
  /** Whether the vending machine has revoked the certificate. */
  readonly told: boolean
  /** Why not. */
  readonly untold?: string
}

/** A vending machine that does not answer holds nobody up for longer, in milliseconds. */
const deadlineMs = 10_000

/** @throws {CertvendError} `ERR_STORE_UNWRITABLE`; what was not removed can be asked for again */
export async function forget(store: CredentialStore, options: ForgetOptions): Promise<Forgotten> {
  const credential = store.current()
  await options.leave()
  const untold = credential ? await tell(credential, options) : 'there was no certificate'
  store.erase()
  options.log({ event: 'forget.done', stateDirectory: store.directory })
  return {
    stateDirectory: store.directory,
    ...(credential && {
      deviceSerial: credential.deviceSerial,
      certificateId: credential.certificateId,
    }),
    told: untold === undefined,
    ...(untold === undefined ? {} : { untold }),
  }
}

/** Why the vending machine does not know, or nothing when it does. */
export async function tell(
  credential: Credential,
  { vendingServer, signal, clock, log, send }: Omit<ForgetOptions, 'leave'>,
): Promise<string | undefined> {
  try {
    await retire(credential, vendingServer(), {
      signal,
      clock,
      deadlineMs,
      ...(send ? { send } : {}),
    })
    return undefined
  } catch (error) {
    if (signal.aborted || (!isCertvendError(error) && !isConfigurationError(error))) throw error
    if (isCertvendError(error)) log({ event: 'forget.untold', ...loggedFailure(error) })
    return error.message
  }
}
