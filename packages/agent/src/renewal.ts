/**
 * A successor for the credential in use: another key, another certificate, proven by a session, and
 * only then put in the other's place. Whatever fails on the way, what works stays in use.
 */
import {
  CertvendError,
  type Clock,
  type Credential,
  type CredentialStore,
  dialectNames,
  type EnrollOptions,
  enroll,
  isCertvendError,
  reenroll,
  type Send,
  type VendingServer,
} from '@certvend/client'
import type { Enrollment } from './enrollment.ts'
import type { Errand } from './errands.ts'
import { configurationError } from './failure.ts'
import { type Log, loggedFailure } from './log.ts'
import { waitingSuccessor } from './succession.ts'

export interface RenewalOptions {
  readonly store: CredentialStore
  readonly enrollment: (token?: string) => Enrollment
  readonly vendingServer: () => VendingServer
  readonly signal: AbortSignal
  readonly log: Log
  readonly clock: Clock
  readonly deadlineMs?: number
  readonly send?: Send
  /** Lets the successor open a session, and promotes it; what it failed by, or nothing. */
  readonly prove: () => Promise<CertvendError | undefined>
}

/** What a server says of a certificate, not of the way to it. */
const isRefusal = ({ code }: CertvendError): boolean =>
  /^ERR_(SESSION_REFUSED|CREDENTIAL_REFUSED|CREDENTIAL_EXPIRED|CERTIFICATE_MISMATCH)$/.test(code)

/**
 * Whether the vending machine gives it once more to who asks again. What others give is the only
 * copy of its key, and a door that is shut today may open tomorrow.
 */
async function isHadAgain({ keyOrigin, vendedBy }: Credential): Promise<boolean> {
  if (keyOrigin === 'device') return true
  const name = dialectNames.find((one) => one === vendedBy?.dialect)
  if (!name) return false
  const { loadDialect } = await import('@certvend/client/dialects')
  return (await loadDialect({ name })).repeat === 'safe'
}

/**
 * One attempt. A successor that already waits is proven first; only one that the server refuses gives
 * way to another, and one that cannot be had a second time only when somebody says so.
 *
 * @throws {CertvendError} as `enroll` and `connect`; a configuration error when there is nothing to renew
 */
export async function renew(
  errand: Extract<Errand, { do: 'renew' }>,
  options: RenewalOptions,
): Promise<Credential> {
  const { store, log, prove } = options
  if (!store.current())
    throw configurationError(
      'there is no credential to renew',
      'certvend enroll gets the first one',
    )
  const successor = waitingSuccessor(store)
  if (successor) {
    const failure = await prove()
    if (!failure) return store.current() as Credential
    if (!isRefusal(failure)) throw notYet(failure)
    const isGivenUp = errand.by === 'claim' && errand.discard
    if (!isGivenUp && !(await isHadAgain(successor))) throw kept(failure)
    store.discard()
  }
  try {
    await ask(errand, options)
  } catch (error) {
    if (isCertvendError(error) && !options.signal.aborted)
      log({ event: 'renew.failed', ...loggedFailure(error) })
    throw error
  }
  const failure = await prove()
  if (failure) throw notYet(failure)
  return store.current() as Credential
}

/** One that waits for its proof is not lost, and is not asked for again. */
const notYet = (failure: CertvendError): CertvendError =>
  new CertvendError(
    failure.code,
    `the new certificate is stored and has opened no session yet: ${failure.message}`,
    {
      cause: failure,
      remedy: 'retry',
      hint: 'the one before stays in use meanwhile, and the new one is tried again by itself',
    },
  )

/** One that is refused, and is not to be had a second time. */
const kept = (failure: CertvendError): CertvendError =>
  new CertvendError(
    failure.code,
    `nobody was asked: a new certificate waits whose only private key is here, and it opens no session: ${failure.message}`,
    {
      cause: failure,
      remedy: 'operator',
      hint: 'activate it at the MQTT server; once you have seen that it will never do: certvend enroll --again --discard',
    },
  )

async function ask(
  errand: Extract<Errand, { do: 'renew' }>,
  { store, enrollment, vendingServer, signal, log, clock, deadlineMs, send }: RenewalOptions,
): Promise<void> {
  const options: EnrollOptions = {
    signal,
    clock,
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
    ...(send ? { send } : {}),
    log: (event) => {
      if (event.event !== 'enroll.retry') log(event)
    },
  }
  if (errand.by === 'credential') {
    await reenroll(store, vendingServer(), options)
    return
  }
  const { server, claim } = enrollment(errand.token)
  await enroll(store, server, claim, { ...options, again: true }) // a person has decided
}
