/**
 * Whether a caller is the device that it says it is: by the device's own token, by a certificate of
 * the device's that it has shown or, where the protocol knows such a thing, by the token of the
 * device's fleet.
 *
 * Whoever is refused hears the same words at the same price: an unknown serial, a row without a token
 * and a wrong token are one case, as are an unknown certificate, another device's, and one that is
 * not in force any more.
 */
import { type Clock, second } from './clock.ts'
import { createFailureTable, type FailureLimits } from './failures.ts'
import type { Problem } from './problem.ts'
import { type Certificate, type Device, isInForce, type Registry } from './registry/registry.ts'
import { createTokenJudge, type TokenJudge } from './tokens.ts'

export interface AuthenticationOptions {
  readonly registry: Registry
  readonly clock: Clock
  /** Compares tokens; the real one by default. */
  readonly judgeToken?: TokenJudge
  readonly failures?: FailureLimits
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

export type Authentication =
  | { readonly ok: true; readonly device: Device }
  | { readonly ok: false; readonly problem: Problem }

/** Counts whose token is refused. */
export type Authenticate = (
  claimant: Claimant,
  options?: {
    /** Whether the token of the device's fleet will do as well. */
    readonly fleet?: boolean
  },
) => Promise<Authentication>

const notAuthenticated: Problem = {
  code: 'claim-refused',
  detail: 'the device serial and the token do not belong together',
}

const notJudged: Problem = {
  code: 'busy',
  detail: 'too many tokens are being judged',
  retryAfterMs: 10 * second,
}

export const certificateRefused: Problem = {
  code: 'certificate-refused',
  detail: 'no certificate of this device that is in force was shown in the TLS handshake',
}

/** Whether the certificate that a caller has shown is `deviceSerial`'s and in force. */
async function judgeShown(
  registry: Registry,
  { deviceSerial, shown }: Pick<Claimant, 'deviceSerial' | 'shown'>,
  now: Date,
): Promise<Certificate | undefined> {
  const certificate = shown === undefined ? undefined : await registry.findCertificate(shown)
  const fits = certificate?.deviceSerial === deviceSerial && isInForce(certificate, now)
  return fits ? certificate : undefined
}

export function createAuthenticate(options: AuthenticationOptions): Authenticate {
  const { registry, clock, judgeToken = createTokenJudge() } = options
  const countFailure = createFailureTable(options.failures)

  return async (claimant, { fleet = false } = {}) => {
    const { deviceSerial, token = '', remoteAddress } = claimant
    const device = await registry.find(deviceSerial)
    if (claimant.shown !== undefined) {
      const certificate = await judgeShown(registry, claimant, clock.now())
      return certificate && device
        ? { ok: true, device }
        : { ok: false, problem: certificateRefused }
    }
    const weakTokensExist = () => registry.hasWeakTokens()
    const isDevice = await judgeToken(token, device?.claim.token, weakTokensExist)
    let isFleet: boolean | undefined = false
    if (fleet) {
      const found = await registry.findFleet(device?.fleet ?? '')
      isFleet = await judgeToken(token, found?.token, weakTokensExist)
    }
    if (device && (isDevice || isFleet)) return { ok: true, device }
    if (isDevice === undefined || isFleet === undefined) return { ok: false, problem: notJudged }
    const waitMs = countFailure(remoteAddress, deviceSerial, clock.now())
    const problem: Problem =
      waitMs === undefined
        ? notAuthenticated
        : {
            code: 'too-many-attempts',
            detail: 'too many failed attempts for this device serial from this address',
            retryAfterMs: waitMs,
          }
    return { ok: false, problem }
  }
}
