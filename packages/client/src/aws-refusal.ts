/**
 * What the end of an SDK connection means. The SDK's words are few: where it gives the same one to a
 * server that is not trusted and to one that hung up, the server is looked at with Node's TLS, which
 * says why.
 */
import type { Line, SdkFailure } from './aws-crt.ts'
import { type Clock, systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { dial } from './dial.ts'
import { CertvendError, type ErrorCode } from './errors.ts'
import { type Patience, within } from './patience.ts'
import type { ProxyOptions } from './proxy.ts'
import { refused } from './refusal.ts'
import { parseTrustAnchors } from './trust.ts'

/** Whether a request failed because its connection did. */
export const isLoss = ({ code }: SdkFailure): boolean =>
  /^AWS_IO_|CANCELLED|DISCONNECT|CONNECTION|NOT_CONNECTED|OFFLINE|HANGUP|USER_REQUESTED_STOP|CLIENT_TERMINATED/.test(
    code,
  )

/** MQTT 5 section 3.14.2.1: Session taken over. */
const takenOver = 142

/** Why an open connection ended. */
export function endOf(failure: SdkFailure, place: string): CertvendError {
  const { code, reason } = failure
  const message =
    reason === takenOver
      ? 'another connection with this client id took the session over'
      : reason !== undefined
        ? `the server ended the session (reason ${reason})`
        : `the connection to ${place} ended${code ? ` (${code})` : ''}`
  return new CertvendError('ERR_SESSION_LOST', message, { cause: failure })
}

interface Attempt extends ProxyOptions {
  readonly patience: Patience
  readonly place: string
  readonly clock: Clock
}

/** s2n holds a failed verification back for 10 to 30 s; after so many milliseconds it is doubted. */
const doubtAfterMs = 3000

/**
 * Waits for CONNACK; resolves with whether the server held a session.
 *
 * @throws {CertvendError} as `connect`; or the signal's reason
 */
export async function answered(
  line: Line,
  credential: Credential,
  attempt: Attempt,
): Promise<boolean> {
  const { patience, place, clock } = attempt
  const settled = new AbortController()
  try {
    return await within(patience, (either) => {
      either.addEventListener('abort', () => settled.abort(either.reason), { once: true })
      return Promise.race([
        line.connect(),
        rejectedBy(settled.signal),
        doubted(credential, attempt, settled.signal),
      ])
    })
  } catch (error) {
    void line.leave()
    patience.signal?.throwIfAborted()
    if (patience.deadline.aborted)
      throw new CertvendError(
        'ERR_TIMEOUT',
        `${place} did not answer within ${patience.deadlineMs / 1000} s`,
      )
    if (error instanceof CertvendError) throw error
    const failure = error as SdkFailure
    const seen = isVague(failure) ? await look(credential, attempt, patience.signal) : undefined
    throw seen ?? judge(failure, place, clock.now())
  } finally {
    settled.abort()
  }
}

const rejectedBy = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })

/** Rejects with what is wrong with a server that keeps silent; never resolves. */
async function doubted(
  credential: Credential,
  attempt: Attempt,
  settled: AbortSignal,
): Promise<never> {
  await systemClock.wait(doubtAfterMs, settled)
  const seen = await look(credential, attempt, settled)
  if (seen?.code === 'ERR_SERVER_UNTRUSTED' || seen?.code === 'ERR_CLOCK') throw seen
  return rejectedBy(settled)
}

/**
 * Looks at the server with Node's TLS. The device's certificate is not shown, so this can only tell
 * what is wrong on the way there.
 */
async function look(
  { endpoint }: Credential,
  { patience, clock, ...proxies }: Attempt,
  signal: AbortSignal | undefined,
): Promise<CertvendError | undefined> {
  const { host, port, alpn, trustAnchors } = endpoint
  const anchors = parseTrustAnchors(trustAnchors)
  const destination = { host, port, alpn, anchors, anchorsAre: 'trust anchor' } as const
  try {
    const { socket } = await dial(
      destination,
      { ...patience, signal },
      { ...proxies, now: clock.now() },
    )
    socket.destroy()
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof CertvendError && error.code !== 'ERR_TIMEOUT') return error
  }
  return undefined
}

/** A reset can overtake the alert that explains it. */
const hangups = /SOCKET_CLOSED|UNEXPECTED_HANGUP|BROKEN_PIPE|WRITE_FAILURE|SOCKET_NOT_CONNECTED/
/** Whether the SDK's word fits several faults, which a look can tell apart. */
const isVague = ({ code }: SdkFailure): boolean =>
  code === 'AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE' || /PROXY/.test(code) || hangups.test(code)

/** Why no session came about, by the SDK's word for it. */
function judge(failure: SdkFailure, place: string, now: Date): CertvendError {
  const { code, reason } = failure
  const is = (ours: ErrorCode, message: string): CertvendError =>
    new CertvendError(ours, message, { cause: failure })
  if (reason !== undefined && reason !== 0)
    return refused(Object.assign(new Error(failure.message), { code: reason }), {
      place,
      secured: true,
      now,
    })
  if (/TLS_ERROR_READ_FAILURE|ALERT/.test(code))
    return is('ERR_CREDENTIAL_REFUSED', `${place} refused this device's certificate (${code})`)
  if (/TIMEOUT$/.test(code) && !code.includes('SOCKET'))
    return is('ERR_TIMEOUT', `${place} did not answer (${code})`)
  if (/PROTOCOL_ERROR/.test(code))
    return is(
      'ERR_SESSION_REFUSED',
      `${place} refused the connection (CONNACK; the SDK does not tell its code)`,
    )
  if (hangups.test(code))
    return is('ERR_SESSION_REFUSED', `${place} closed the connection before CONNACK`)
  return is('ERR_NETWORK', `cannot reach ${place}${code ? ` (${code})` : `: ${failure.message}`}`)
}
