/**
 * The issuer border: who signs device certificates.
 *
 * **What an implementation MUST do.** `issue` MUST make an end-entity certificate (never a CA) for the
 * public key in the request and for nothing else that the request asks for. It is called after the
 * registry wrote down the reservation, and possibly again for the same reservation, after a crash or
 * by another process: it SHOULD then make the same certificate (same serial, same dates), and MUST
 * NOT count on being called once. What it returns may be thrown away because another call was
 * faster. It MUST NOT write to the registry.
 */
import type { JudgedRequest } from '../policy.ts'
import type { Device, Issued, Reservation } from '../registry/registry.ts'

export interface Issuer {
  /** Signs the request for this device, as the reservation says. */
  issue(
    request: JudgedRequest,
    device: Device,
    reservation: Reservation,
    options: { readonly signal: AbortSignal },
  ): Promise<Issued>
  /** The CA certificates that a device certificate chains to, one PEM each (RFC 7030 section 4.1). */
  caCertificates(): Promise<readonly string[]>
}
