/**
 * Whether a caller is the device that it says it is: by the device's own token or, where the protocol
 * knows such a thing, by the token of the device's fleet.
 *
 * Whoever is refused hears the same words at the same price: an unknown serial, a row without a token
 * and a wrong token are one case.
 */
import type { Clock } from './clock.ts'
import { createFailureTable, type FailureLimits } from './failures.ts'
import type { Problem } from './problem.ts'
import type { Device, Registry } from './registry/registry.ts'
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
  readonly remoteAddress: string
}

export type Authentication =
  | { readonly ok: true; readonly device: Device }
  | { readonly ok: false; readonly problem: Problem }

/** Counts who is refused. */
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

export function createAuthenticate(options: AuthenticationOptions): Authenticate {
  const { registry, clock, judgeToken = createTokenJudge() } = options
  const countFailure = createFailureTable(options.failures)

  return async ({ deviceSerial, token = '', remoteAddress }, { fleet = false } = {}) => {
    const device = await registry.find(deviceSerial)
    const weakTokensExist = () => registry.hasWeakTokens()
    const isDevice = await judgeToken(token, device?.claim.token, weakTokensExist)
    let isFleet = false
    if (fleet) {
      const found = await registry.findFleet(device?.fleet ?? '')
      isFleet = await judgeToken(token, found?.token, weakTokensExist)
    }
    if (device && (isDevice || isFleet)) return { ok: true, device }
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
