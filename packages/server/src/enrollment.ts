/**
 * One enrollment after its request was judged: authenticate, reserve, issue, record, activate.
 *
 * The registry's conditional writes decide between callers; see `registry/registry.ts`. A crash
 * between any two steps is repaired by the next request with the same key. Single flight within this
 * process only saves signatures when one request arrives many times at once.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { activate } from './activation.ts'
import { type Clock, second } from './clock.ts'
import { type CountFailure, createFailureTable, type FailureLimits } from './failures.ts'
import { type Issuer, isIssuerBusy, issuerBusy } from './issuer/issuer.ts'
import type { Log } from './log.ts'
import { randomCertificateSerial } from './pki.ts'
import type { JudgedRequest } from './policy.ts'
import type { Problem } from './problem.ts'
import {
  type Certificate,
  type ClaimOutcome,
  type ClaimRefusal,
  type Device,
  isInForce,
  type Registry,
  type ReserveRequest,
} from './registry/registry.ts'
import { createTokenJudge, type TokenJudge } from './tokens.ts'

export interface EnrollmentOptions {
  readonly registry: Registry
  readonly issuer: Issuer
  readonly clock: Clock
  readonly log: Log
  /** Compares tokens; the real one by default. */
  readonly judgeToken?: TokenJudge
  readonly failures?: FailureLimits
  /** How long an issuer may take, in milliseconds; 20 seconds by default. */
  readonly issueTimeoutMs?: number
}

/** What a caller says who it is. */
export interface Claimant {
  readonly deviceSerial: string
  /** Absent if the request brought none. */
  readonly token?: string
  /** Instead of a token: the id of the certificate whose key the TLS handshake has proven. */
  readonly shown?: string
  readonly remoteAddress: string
}

export type Enrollment =
  | { readonly ok: true; readonly device: Device; readonly certificate: Certificate }
  | { readonly ok: false; readonly problem: Problem }

export type Enroll = (claimant: Claimant, request: JudgedRequest) => Promise<Enrollment>

const refusals: Record<ClaimRefusal, Problem> = {
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

/** The same words whether the certificate is unknown, another device's, or not in force any more. */
export const certificateRefused: Problem = {
  code: 'certificate-refused',
  detail: 'no certificate of this device that is in force was shown in the TLS handshake',
}

/** Whether the certificate that a caller has shown is `deviceSerial`'s and in force. */
export async function judgeShown(
  registry: Registry,
  { deviceSerial, shown }: Pick<Claimant, 'deviceSerial' | 'shown'>,
  now: Date,
): Promise<Certificate | undefined> {
  const certificate = shown === undefined ? undefined : await registry.findCertificate(shown)
  const fits = certificate?.deviceSerial === deviceSerial && isInForce(certificate, now)
  return fits ? certificate : undefined
}

/** The same words whether the device is unknown, has no token, or the token is another one. */
const notAuthenticated: Problem = {
  code: 'claim-refused',
  detail: 'the device serial and the token do not belong together',
}

export function createEnroll(options: EnrollmentOptions): Enroll {
  const { registry, issuer, clock, log, judgeToken = createTokenJudge() } = options
  const issueTimeoutMs = options.issueTimeoutMs ?? 20 * second
  const countFailure: CountFailure = createFailureTable(options.failures)
  const flights = new Map<string, Promise<ClaimOutcome>>()

  async function authenticate(claimant: Claimant): Promise<Device | undefined> {
    const device = await registry.find(claimant.deviceSerial)
    if (claimant.shown !== undefined)
      return (await judgeShown(registry, claimant, clock.now())) && device
    const matches = await judgeToken(claimant.token ?? '', device?.claim.token, () =>
      registry.hasWeakTokens(),
    )
    return matches ? device : undefined
  }

  function refuseStranger(claimant: Claimant): Problem {
    const waitMs = countFailure(claimant.remoteAddress, claimant.deviceSerial, clock.now())
    return waitMs === undefined
      ? notAuthenticated
      : {
          code: 'too-many-attempts',
          detail: 'too many failed attempts for this device serial from this address',
          retryAfterMs: waitMs,
        }
  }

  /**
   * Reserve, issue, record, until the registry holds a certificate for the key or says no; then see
   * that it opens sessions. One that has opened a session is handed out again without any of that.
   */
  async function settle(reserve: ReserveRequest, request: JudgedRequest): Promise<ClaimOutcome> {
    let outcome = await registry.reserve(reserve)
    if (!isUnfinished(outcome)) return outcome
    await admit(reserve.publicKey)
    // A reservation is renewed at most once an hour, so a second round is rare and a third absurd.
    for (let round = 0; outcome.outcome === 'reserved' && round < 3; round += 1) {
      const { device, reservation } = outcome
      const signal = AbortSignal.timeout(issueTimeoutMs)
      const issued = await issuer.issue(request, device, reservation, { signal })
      outcome = await registry.record(reservation, issued, clock.now())
    }
    if (outcome.outcome === 'issued') {
      const signal = AbortSignal.timeout(issueTimeoutMs)
      const { certificate, device } = outcome
      await activate({ registry, issuer }, certificate, device, { signal, at: clock.now() })
    }
    return outcome
  }

  const isUnfinished = (outcome: ClaimOutcome): boolean =>
    outcome.outcome === 'reserved' ||
    (outcome.outcome === 'issued' &&
      issuer.activate !== undefined &&
      outcome.certificate.confirmedAt === undefined)

  async function admit(publicKey: string): Promise<void> {
    const turn = issuer.admit?.(publicKey, clock.now())
    if (!turn) return
    if (!turn.admitted) throw issuerBusy(turn.retryAfterMs, 'others come first')
    if (turn.waitMs > 0) await pause(turn.waitMs)
  }

  const busy = (detail: string, retryAfterMs: number): Enrollment => ({
    ok: false,
    problem: { code: 'busy', detail, retryAfterMs },
  })

  return async (claimant, request) => {
    const { deviceSerial, remoteAddress } = claimant
    const { publicKey } = request
    const device = await authenticate(claimant)
    const renews = claimant.shown !== undefined
    if (!device)
      return { ok: false, problem: renews ? certificateRefused : refuseStranger(claimant) }
    const claimNumber = device.claim.number
    const reserve: ReserveRequest = {
      deviceSerial,
      claimNumber,
      publicKey,
      certificateSerial: randomCertificateSerial(),
      at: clock.now(),
      remoteAddress,
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
      return busy('certificates are being made for others', error.retryAfterMs)
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

/** How long a busy registry asks for, in milliseconds. */
export const busyRetryMs: number = 2 * second
