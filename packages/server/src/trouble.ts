/** What a caller hears when something failed here; the error's own words are for the log alone. */
import { second } from './clock.ts'
import { isIssuerBusy } from './issuer/issuer.ts'
import type { Problem } from './problem.ts'
import { isRegistryBusy } from './registry/registry.ts'

export const registryDown: Problem = {
  code: 'busy',
  detail: 'the registry does not answer now',
  retryAfterMs: 2 * second,
}

export const problemOf = (error: unknown): Problem =>
  isRegistryBusy(error)
    ? registryDown
    : isIssuerBusy(error)
      ? {
          code: 'busy',
          detail: 'certificates are being made for others',
          retryAfterMs: error.retryAfterMs,
        }
      : {
          code: 'internal',
          detail: 'see the log of the vending server',
          retryAfterMs: 30 * second,
        }
