/**
 * One enrollment after its request was judged: authenticate, reserve, issue, record, activate.
 *
 * The registry's conditional writes decide between callers; see `registry/registry.ts`. A crash
 * between any two steps is repaired by the next request with the same key. Single flight within this
 * process only saves signatures when one request arrives many times at once.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { activate } from './activation.ts'
import { type AuthenticationOptions, type Claimant, createAuthenticate } from './authentication.ts'
import { randomCertificateSerial } from './certificate.ts'
import { second } from './clock.ts'
import { type Issuer, isIssuerBusy, issuerBusy } from './issuer/issuer.ts'
import type { Log } from './log.ts'
import type { JudgedRequest } from './policy.ts'
import type { Problem } from './problem.ts'
import type {
  Certificate,
  ClaimOutcome,
  ClaimRefusal,
  Device,
  ReserveRequest,
} from './registry/registry.ts'

export interface EnrollmentOptions extends AuthenticationOptions {
  readonly issuer: Issuer
  readonly log: Log
  /** Waits for a slot of the rate gate that is near, in milliseconds; a timer by default. */
  readonly wait?: (ms: number) => Promise<unknown>
  /** How long an issuer may take, in milliseconds; 20 seconds by default. */
  readonly issueTimeoutMs?: number
}

export type Enrollment =
  | { readonly ok: true; readonly device: Device; readonly certificate: Certificate }
  | { readonly ok: false; readonly problem: Problem }

export type Enroll = (claimant: Claimant, request: JudgedRequest) => Promise<Enrollment>

/** What is known of whoever was authenticated. */
export interface Caller extends Pick<ReserveRequest, 'again' | 'renews'> {
  readonly device: Device
  readonly remoteAddress: string
}

export const refusals: Readonly<Record<ClaimRefusal, Problem>> = {
  'claim-gone': {
    code: 'claim-refused',
    detail: 'the claim was replaced while it was being used',
  },
  'claim-expired': {
    code: 'claim-refused',
    detail: 'the token was not used within its time; the device must be re-armed again',
  },
  'device-disabled': { code: 'device-disabled', detail: 'the operator disabled this device' },
  'certificate-revoked': {
    code: 'certificate-revoked',
    detail: 'the certificate for this key is revoked',
  },
  'certificate-finished': {
    code: 'claim-spent',
    detail: 'the certificate for this claim has expired or is inactive; re-arm the device',
  },
  'claim-conflict': {
    code: 'claim-spent',
    detail: 'the claim was used with another key; the operator has been alarmed',
  },
  'claim-exhausted': {
    code: 'claim-spent',
    detail: 'the claim was answered as often, or for as long, as it may be; re-arm the device',
  },
  'claim-vended-elsewhere': {
    code: 'claim-spent',
    detail: 'the device had its certificate before it was imported; re-arm the device',
  },
  'claim-replaced': {
    code: 'busy',
    detail: 'another request of this device was faster',
    retryAfterMs: 5 * second,
  },
  'key-revoked': {
    code: 'key-revoked',
    detail: 'a certificate for this key was revoked; the device must make another key',
  },
  'key-conflict': { code: 'key-in-use', detail: 'another device holds this key' },
  'claim-open': {
    code: 'claim-open',
    detail:
      'the device is re-armed, or another request of its is not finished; use the token, or ask again later',
  },
}

export function createEnroll(options: EnrollmentOptions): Enroll {
  const authenticate = createAuthenticate(options)
  const certify = createCertify(options)
  return async (claimant, request) => {
    const authenticated = await authenticate(claimant)
    if (!authenticated.ok) return authenticated
    const { device } = authenticated
    const renews = claimant.shown !== undefined
    return certify({ device, remoteAddress: claimant.remoteAddress, renews }, request)
  }
}

/** Why the rate gate sends a caller away: it is no fault, and no line in the log. */
const queued = 'others come first'

/** What follows authentication: a certificate for the key in the request, or the reason why not. */
export function createCertify(
  options: EnrollmentOptions,
): (caller: Caller, request: JudgedRequest) => Promise<Enrollment> {
  const { registry, issuer, clock, log } = options
  const { wait = pause } = options
  const issueTimeoutMs = options.issueTimeoutMs ?? 20 * second
  const flights = new Map<string, Promise<ClaimOutcome>>()

  /**
   * Reserve, issue, record, until the registry holds a certificate for the key or says no; then see
   * that it opens sessions. One that has opened a session is handed out again without any of that.
   */
  async function settle(reserve: ReserveRequest, request: JudgedRequest): Promise<ClaimOutcome> {
    let outcome = await registry.reserve(reserve)
    if (!isUnfinished(outcome)) return outcome
    await admit(reserve.again ? reserve.deviceSerial : reserve.publicKey)
    // A reservation is renewed at most once an hour, so a second round is rare and a third absurd.
    for (let round = 0; outcome.outcome === 'reserved' && round < 3; round += 1) {
      const { device, reservation } = outcome
      const signal = AbortSignal.timeout(issueTimeoutMs)
      const issued = await issuer.issue(request, device, reservation, { signal })
      outcome = await registry.record(reservation, issued, clock.now())
      if (outcome.outcome === 'refused' && outcome.reason === 'claim-replaced')
        outcome = await registry.reserve({ ...reserve, at: clock.now() })
    }
    if (outcome.outcome === 'issued') {
      const signal = AbortSignal.timeout(issueTimeoutMs)
      const { certificate, device } = outcome
      const how = { signal, at: clock.now(), again: reserve.again !== undefined }
      await activate({ registry, issuer }, certificate, device, how)
    }
    return outcome
  }

  const isUnfinished = (outcome: ClaimOutcome): boolean =>
    outcome.outcome === 'reserved' ||
    (outcome.outcome === 'issued' &&
      issuer.activate !== undefined &&
      outcome.certificate.confirmedAt === undefined)

  /** A slot is reserved for who comes back: the key, or the device whose next key is another one. */
  async function admit(comer: string): Promise<void> {
    const turn = issuer.admit?.(comer, clock.now())
    if (!turn) return
    if (!turn.admitted) throw issuerBusy(turn.retryAfterMs, queued)
    if (turn.waitMs > 0) await wait(turn.waitMs)
  }

  const busy = (detail: string, retryAfterMs: number): Enrollment => ({
    ok: false,
    problem: { code: 'busy', detail, retryAfterMs },
  })

  return async ({ device, remoteAddress, again, renews = false }, request) => {
    const { deviceSerial } = device
    const { publicKey } = request
    const claimNumber = device.claim.number
    const reserve: ReserveRequest = {
      deviceSerial,
      claimNumber,
      publicKey,
      certificateSerial: randomCertificateSerial(),
      at: clock.now(),
      remoteAddress,
      ...(again && { again }),
      ...(renews && { renews }),
    }
    const flight = `${deviceSerial} ${claimNumber} ${publicKey} ${renews}`
    const settled = flights.get(flight) ?? settle(reserve, request)
    flights.set(flight, settled)
    let outcome: ClaimOutcome
    try {
      outcome = await settled.finally(() => flights.delete(flight))
    } catch (error) {
      if (!isIssuerBusy(error)) throw error
      const isQueued = error.cause === queued
      if (!isQueued)
        log({ level: 'error', event: 'issuer-busy', deviceSerial, reason: error.message })
      return busy(
        isQueued ? 'certificates are being made for others' : 'certificates cannot be made now',
        error.retryAfterMs,
      )
    }
    if (outcome.outcome === 'issued')
      return { ok: true, device: outcome.device, certificate: outcome.certificate }
    if (outcome.outcome === 'reserved')
      return busy('the certificate is still being made', 5 * second)
    const { reason } = outcome
    if (reason === 'claim-conflict' || reason === 'key-conflict')
      log({ level: 'alarm', event: reason, deviceSerial, publicKey, remoteAddress })
    return { ok: false, problem: refusals[reason] }
  }
}
