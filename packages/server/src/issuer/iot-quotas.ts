/**
 * Calls per second that AWS IoT allows an account in a region, for the calls that a device costs. These
 * are the defaults; AWS raises them on request (Service Quotas), and then `rates` says so.
 *
 * @see https://docs.aws.amazon.com/general/latest/gr/iot-core.html
 */
import type { Rates } from '../rate-gate.ts'

/** Calls per second, by operation. */
export const iotRates: Rates = {
  AddThingToThingGroup: 10,
  AttachPolicy: 15,
  AttachThingPrincipal: 15,
  CreateCertificateFromCsr: 15,
  CreatePolicy: 10,
  CreateThing: 15,
  DeleteCertificate: 10,
  DescribeCertificate: 10,
  DetachPolicy: 15,
  DetachThingPrincipal: 15,
  ListAttachedPolicies: 15,
  ListCertificates: 10,
  ListPrincipalThings: 10,
  RegisterCertificate: 10,
  RegisterCertificateWithoutCA: 10,
  UpdateCertificate: 10,
}

/**
 * A part of them, for one of several processes that share an account.
 *
 * @throws RangeError if the share is not above 0 and at most 1
 */
export function shareOf(rates: Rates, share: number): Rates {
  if (!(share > 0 && share <= 1)) throw new RangeError('a share is above 0 and at most 1')
  return Object.fromEntries(Object.entries(rates).map(([name, rate]) => [name, rate * share]))
}
