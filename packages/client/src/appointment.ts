/**
 * A vending server's `Retry-After`, kept across restarts in `request.json`.
 *
 * Only a moment an hour or more away is worth a write; a nearer one is kept in memory.
 */
import type { RequestRecord } from './credential.ts'
import { CertvendError } from './errors.ts'
import type { CredentialStore } from './store.ts'
import { urlHash, type VendingServer } from './vending-server.ts'

const worthWritingMs = 60 * 60_000

/** Writes down when to ask again, if `error` says so and it is far away. */
export function rememberAppointment(
  store: CredentialStore,
  server: VendingServer,
  { error, earlier, now }: { error: unknown; earlier: RequestRecord | undefined; now: Date },
): void {
  if (!(error instanceof CertvendError) || !error.retryAt) return
  if (error.retryAt.getTime() - now.getTime() < worthWritingMs) return
  try {
    store.recordRequest({
      dialect: server.dialect.name,
      urlHash: urlHash(server),
      sentAt: now,
      attempts: (earlier?.attempts ?? 0) + 1,
      ...(earlier?.unanswered ? { unanswered: true } : {}),
      notBefore: error.retryAt,
    })
  } catch (failure) {
    // `error` still binds this process; a disk that fails is told when a credential must be stored.
    if (!(failure instanceof CertvendError)) throw failure
  }
}

/** @throws {CertvendError} `ERR_SERVER_BUSY` before the moment that was agreed with this server. */
export function keepAppointment(
  request: RequestRecord | undefined,
  server: VendingServer,
  now: Date,
): void {
  if (request?.urlHash !== urlHash(server)) return
  const { sentAt, notBefore } = request
  // A clock that shows a time before the request was sent says nothing about the appointment.
  if (!notBefore || now < sentAt || now >= notBefore) return
  throw new CertvendError(
    'ERR_SERVER_BUSY',
    `the vending server asked not to be asked before ${notBefore.toISOString()}`,
    { retryAt: notBefore },
  )
}
