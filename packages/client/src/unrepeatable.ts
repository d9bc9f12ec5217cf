/**
 * Requests that must not be repeated just so: when they may go out at all, that one is written down
 * before it does, and what a lost answer comes to.
 *
 * - `replaces`: an accepted request destroys the certificate of the one before. None goes out while a
 *   credential is held that may still work, nor while an earlier one may still be at work over there
 *   and would destroy what the next one gains.
 * - `never`: after a request of which nothing is known, only a person can say that it may be repeated.
 */
import type { Credential, RequestRecord } from './credential.ts'
import { addressed, type Dialect, type Refusal } from './dialects/dialect.ts'
import { CertvendError } from './errors.ts'
import type { CredentialStore } from './store.ts'
import { urlHash, type VendingServer } from './vending-server.ts'

/**
 * How long a request may still be at work after it was sent, in milliseconds: a function behind API
 * Gateway is stopped after 15 s as these are set up, and after 29 s in any case.
 */
const atWorkMs = 60_000

export interface Asking {
  readonly store: CredentialStore
  readonly server: VendingServer
  readonly dialect: Dialect
  readonly deviceSerial: string
  /** A person has decided: what is held no longer works, or the vending machine was reset. */
  readonly again: boolean
}

/** The record of a request to the same server, if one is kept. */
function recorded({ store, server }: Asking): RequestRecord | undefined {
  const pending = store.pending()
  const request = pending?.state === 'requested' ? pending.request : undefined
  return request?.urlHash === urlHash(server) ? request : undefined
}

const day = (date: Date): string => date.toISOString().slice(0, 10)

/**
 * Judges whether a request may go out, before anything is made for it.
 *
 * @throws {CertvendError} `ERR_REQUEST_REFUSED` while it would destroy a credential that may still
 *   work; `ERR_REPLY_LOST` while an earlier one may still be at work (with `retryAt`), or must not be
 *   repeated
 */
export function permit(asking: Asking, now: Date): void {
  const { store, dialect, again } = asking
  if (dialect.repeat === 'safe') return
  const current = store.current()
  if (dialect.repeat === 'replaces' && current && !again && now <= current.notAfter)
    throw wouldDestroy(current)
  const request = recorded(asking)
  if (!request?.unanswered) return
  if (dialect.repeat === 'never') {
    if (again) return
    throw new CertvendError(
      'ERR_REPLY_LOST',
      `a request was sent on ${day(request.sentAt)} and its answer was lost; this vending machine gives one answer only`,
      { remedy: 'operator', hint: instruction(asking) },
    )
  }
  const over = new Date(request.sentAt.getTime() + atWorkMs)
  if (now >= over) return
  // By a clock that was set back since, the request would never be over: count from now.
  if (now < request.sentAt) store.recordRequest({ ...request, sentAt: now })
  const retryAt = now < request.sentAt ? new Date(now.getTime() + atWorkMs) : over
  throw new CertvendError(
    'ERR_REPLY_LOST',
    'the request before this one may still be at work, and would destroy the certificate of the next',
    { retryAt },
  )
}

const wouldDestroy = ({ certificateId, thingName }: Credential): CertvendError =>
  new CertvendError(
    'ERR_REQUEST_REFUSED',
    `not asked: this vending machine destroys the certificate of ${thingName} (${certificateId}) before it makes another, and it may still work`,
    {
      hint: 'once you have seen that it no longer does: certvend enroll --again',
    },
  )

/** What a person does after a lost answer: the rows and resources by name, then the device. */
const instruction = ({ dialect, deviceSerial }: Asking): string =>
  `${addressed(dialect.reset ?? '', deviceSerial)}; then on the device: certvend enroll --again`

/**
 * Writes down that a request goes out now.
 *
 * @throws {CertvendError} `ERR_STORE_UNWRITABLE`, and nothing may be sent
 */
export function recordSending(asking: Asking, now: Date): void {
  const { store, server, dialect } = asking
  if (dialect.repeat === 'safe') return
  store.recordRequest({
    dialect: dialect.name,
    urlHash: urlHash(server),
    sentAt: now,
    attempts: (recorded(asking)?.attempts ?? 0) + 1,
    unanswered: true,
  })
}

/** Writes down that a request came to nothing, so that it may be repeated. */
export function recordRefusal(asking: Asking, refusal: Refusal): void {
  const request = recorded(asking)
  if (!request?.unanswered || refusal.leaves === 'something') return
  const { unanswered: _, ...rest } = request
  try {
    asking.store.recordRequest(rest)
  } catch (failure) {
    // Then it stays unanswered, and a person is asked.
    if (!(failure instanceof CertvendError)) throw failure
  }
}

/**
 * An attempt that failed, in the light of what it may have used up: where one answer is all there is,
 * and it may have been this, trying again does not help.
 */
export function spent(asking: Asking, error: CertvendError): CertvendError {
  if (asking.dialect.repeat !== 'never' || !recorded(asking)?.unanswered) return error
  // The reset in a refusal's own hint is the more exact one.
  const told = error.remedy === 'operator' && error.hint.includes(asking.deviceSerial)
  return new CertvendError(error.code, error.message, {
    cause: error,
    remedy: 'operator',
    hint: told ? `${error.hint}; then on the device: certvend enroll --again` : instruction(asking),
  })
}
