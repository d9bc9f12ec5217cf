/**
 * When the credential in use is to be renewed, whether the agent does that by itself, and what became of
 * the attempts that nobody asked for.
 */
import {
  type CertvendError,
  type Clock,
  type Credential,
  type CredentialStore,
  isCertvendError,
  renewalDue,
  renewalObstacle,
  type VendingServer,
} from '@certvend/client'
import { isConfigurationError } from './failure.ts'
import { type FailedAttempt, failedAttempt, type Renewal, renewAgainAt } from './lifecycle.ts'
import { type Log, loggedFailure, loggedWait } from './log.ts'
import { waitingSuccessor } from './succession.ts'

/** What the operator says of it. */
export type Renew = 'automatically' | 'when asked'

export interface Ways {
  readonly renew: Renew
  /** Read anew each time; throws a configuration error. */
  readonly vendingServer: () => VendingServer
}

export interface Outlook {
  readonly dueAt: Date
  /** Why the agent does not do it by itself, and what a person does. */
  readonly obstacle?: { readonly message: string; readonly hint: string }
}

export function outlookOf(credential: Credential, ways: Ways, now: Date): Outlook {
  const obstacle = obstacleOf(credential, ways, now)
  if (obstacle) return { dueAt: renewalDue(credential), obstacle }
  // A key that was made elsewhere may be known elsewhere: one of the device's own takes its place.
  const isServed = credential.keyOrigin === 'server'
  return { dueAt: isServed ? credential.notBefore : renewalDue(credential) }
}

function obstacleOf(
  credential: Credential,
  { renew, vendingServer }: Ways,
  now: Date,
): Outlook['obstacle'] {
  if (renew === 'when asked')
    return { message: 'renew = "when asked" is configured', hint: 'certvend renew' }
  try {
    const refusal = renewalObstacle(credential, vendingServer(), now)
    return refusal && { message: refusal.message, hint: refusal.hint }
  } catch (error) {
    if (!isConfigurationError(error)) throw error
    return { message: error.message, hint: error.hint ?? 'certvend config check says more' }
  }
}

export interface RenewalWatch {
  /** For the decision about `credential`, which is in use; nothing where only a person renews it. */
  look(credential: Credential): Renewal | undefined
  /** Told what an attempt that nobody asked for failed by. @throws what is a defect */
  failed(credential: Credential, error: unknown): void
}

interface WatchOptions {
  readonly store: CredentialStore
  readonly ways: Ways
  readonly clock: Clock
  readonly random: () => number
  readonly log: Log
}

export function watchRenewal({ store, ways, clock, random, log }: WatchOptions): RenewalWatch {
  let last: { readonly of: string; readonly attempt: FailedAttempt } | undefined
  let complaint = ''

  function complain(obstacle: NonNullable<Outlook['obstacle']>): void {
    if (obstacle.hint !== complaint) log({ event: 'renew.needed', ...obstacle })
    complaint = obstacle.hint
  }

  const failedOf = (certificateId: string): FailedAttempt | undefined =>
    last?.of === certificateId ? last.attempt : undefined

  function retryLater(error: CertvendError, { certificateId, notAfter }: Credential): void {
    const at = clock.now()
    const attempt = failedAttempt(error, { at, draw: random() }, failedOf(certificateId))
    last = { of: certificateId, attempt }
    const waitMs = renewAgainAt(attempt, notAfter).getTime() - at.getTime()
    log({ event: 'renew.retry', ...loggedFailure(error), ...loggedWait(waitMs) })
  }

  return {
    look(credential) {
      const { certificateId, keyOrigin, notAfter: ends } = credential
      const now = clock.now()
      const due = renewalDue(credential)
      if (now < due && keyOrigin === 'device') {
        complaint = ''
        return ways.renew === 'automatically' ? { due, ends } : undefined
      }
      const { dueAt, obstacle } = outlookOf(credential, ways, now)
      if (obstacle) {
        if (now >= dueAt) complain(obstacle)
        return undefined
      }
      complaint = ''
      const failed = failedOf(certificateId)
      return { due: dueAt, ends, ...(failed ? { failed } : {}) }
    },
    failed(credential, error) {
      if (isConfigurationError(error)) return // the next look tells
      if (!isCertvendError(error)) throw error
      // What waits for its proof is told, and tried again, by the connection.
      if (!waitingSuccessor(store)) retryLater(error, credential)
    },
  }
}
