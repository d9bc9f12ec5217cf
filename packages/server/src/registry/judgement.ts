/**
 * What a claim says to a key: pure, the same for every registry. Whoever asks it must write on the
 * condition that the device's row is still what was judged.
 */
import type { Certificate, ClaimRefusal, Device, ReserveRequest } from './registry.ts'

/** What is asked, besides the device. `record` asks for a key that is bound already. */
export type Question = Omit<ReserveRequest, 'certificateSerial'> & {
  readonly step: 'reserve' | 'record'
}

export type Standing =
  | { readonly standing: 'refused'; readonly reason: ClaimRefusal }
  /** Bound to this key, and nothing is recorded yet. */
  | { readonly standing: 'bound' }
  /** Bound to this key, with this certificate. */
  | { readonly standing: 'certified'; readonly certificateId: string }
  /**
   * No other key stands in the way. If the key itself may have a claim, `late` is why this one cannot
   * be had any more; absent: it can. `instead`: the key that is bound gives way.
   */
  | { readonly standing: 'open'; readonly late?: ClaimRefusal; readonly instead: boolean }

export function judgeClaim(device: Device | undefined, question: Question): Standing {
  const refused = (reason: ClaimRefusal): Standing => ({ standing: 'refused', reason })
  const { publicKey, at, step, again } = question
  if (!device || device.claim.number !== question.claimNumber) return refused('claim-gone')
  if (device.disabled) return refused('device-disabled')
  const { claim } = device
  if (claim.publicKey === publicKey)
    return claim.certificateId === undefined
      ? { standing: 'bound' }
      : { standing: 'certified', certificateId: claim.certificateId }
  if (claim.publicKey === undefined) {
    if (claim.certificateId !== undefined) return refused('claim-vended-elsewhere')
    const isLate = claim.openUntil !== undefined && claim.openUntil <= at
    return { standing: 'open', instead: false, ...(isLate && { late: 'claim-expired' }) }
  }
  if (step === 'record') return refused('claim-replaced')
  if (!claim.again || !again) return refused('claim-conflict')
  const { certificates, since } = claim.again
  const isLate =
    certificates >= again.certificates ||
    (since !== undefined && since.getTime() <= at.getTime() - again.windowMs)
  return { standing: 'open', instead: true, ...(isLate && { late: 'claim-exhausted' }) }
}

/** Why the certificate of a bound key is not handed out again, if it is not. */
export function judgeCertificate(
  certificate: Certificate | undefined,
  at: Date,
): ClaimRefusal | undefined {
  if (certificate?.status === 'REVOKED') return 'certificate-revoked'
  return certificate?.status === 'ACTIVE' && certificate.notAfter > at
    ? undefined
    : 'certificate-finished'
}

/** The refusals that are written to the audit trail and call for a person. */
export const isAlarm = (reason: ClaimRefusal): reason is 'claim-conflict' | 'key-conflict' =>
  reason === 'claim-conflict' || reason === 'key-conflict'
