/**
 * The issuer border: who signs device certificates, and who makes them valid where devices connect.
 *
 * **What an implementation MUST do.** `issue` MUST make an end-entity certificate (never a CA) for the
 * public key in the request and for nothing else that the request asks for. It is called after the
 * registry wrote down the reservation, and possibly again for the same reservation, after a crash or
 * by another process: it SHOULD then make the same certificate (same serial, same dates), and MUST
 * NOT count on being called once. What it returns may be thrown away because another call was
 * faster: until it was recorded, a certificate MUST NOT open a session anywhere. An issuer MUST NOT
 * write to the registry.
 *
 * Where the MQTT server asks nobody but its own books (AWS IoT), a recorded certificate is written into
 * them by `activate` and taken out by `withdraw`. Both MUST be repeatable from any state that an
 * earlier call, cut off anywhere, has left.
 */
import type { JudgedRequest } from '../policy.ts'
import type { Turn } from '../rate-gate.ts'
import type { Certificate, Device, Issued, Reservation } from '../registry/registry.ts'

export interface Waiting {
  readonly signal: AbortSignal
}

/** The border to whoever signs certificates, and to where devices connect with them. */
export interface Issuer {
  /**
   * Whether the work of `issue` and `activate` may begin now. Absent: always.
   *
   * @param comer whom a slot is reserved for
   */
  admit?(comer: string, now: Date): Turn
  /** Signs the request for this device, as the reservation says. Rejects as busy: {@link isIssuerBusy}. */
  issue(
    request: JudgedRequest,
    device: Device,
    reservation: Reservation,
    options: Waiting,
  ): Promise<Issued>
  /** Makes a recorded certificate open sessions. Absent: it does so from {@link Issuer.issue} on. */
  activate?(certificate: Certificate, device: Device, options: Waiting): Promise<void>
  /**
   * Makes a certificate open sessions that did so before, or that AWS has registered by itself. Absent:
   * as {@link Issuer.activate}.
   */
  restore?(certificate: Certificate, device: Device, options: Waiting): Promise<void>
  /**
   * Makes a certificate open no session any more, and ends the one it has. Absent: who admits
   * sessions reads the registry. A certificate that is not there is withdrawn.
   */
  withdraw?(
    certificate: Pick<Certificate, 'certificateId'>,
    status: 'INACTIVE' | 'REVOKED',
    options: Waiting,
  ): Promise<void>
  /** The CA certificates that a device certificate chains to, one PEM each (RFC 7030 section 4.1). */
  caCertificates(): Promise<readonly string[]>
}

const busy = 'ERR_ISSUER_BUSY'

/** The error for "not now": a quota is used up, or the issuer cannot be reached. */
export const issuerBusy = (retryAfterMs: number, cause: unknown): Error =>
  Object.assign(
    new Error(`the issuer is busy: ${cause instanceof Error ? cause.message : cause}`, { cause }),
    { code: busy, retryAfterMs },
  )

/** Whether it is "not now": the same request is answered after `retryAfterMs` milliseconds. */
export const isIssuerBusy = (error: unknown): error is Error & { readonly retryAfterMs: number } =>
  error instanceof Error && (error as NodeJS.ErrnoException).code === busy
