/**
 * What a claim says to a key: pure, the same for every registry. Whoever asks it must write on the
 * condition that the device's row is still what was judged.
 */
import {
  type Certificate,
  type ClaimRefusal,
  type Device,
  type ReserveRequest,
  reservationMs,
} from './registry.ts'

/** What is asked, besides the device. `record` asks for a key that is bound already. */
export type Question = Omit<ReserveRequest, 'certificateSerial'> & {
  readonly step: 'reserve' | 'record'
  /** When the key that is bound was bound, if one is. */
  readonly reservedAt?: Date
}

export type Standing =
  | { readonly standing: 'refused'; readonly reason: ClaimRefusal }
  /** Bound to this key, and nothing is recorded yet. `isStale`: it must be reserved anew. */
  | { readonly standing: 'bound'; readonly isStale: boolean }
  /** Bound to this key, with this certificate. */
  | { readonly standing: 'certified'; readonly certificateId: string }
  /**
   * No other key stands in the way. If the key itself may have a claim, `late` is why this one cannot
   * be had any more; absent: it can. `note` is for the audit trail.
   */
  | { readonly standing: 'open'; readonly late?: ClaimRefusal; readonly note?: string }

export function judgeClaim(device: Device | undefined, question: Question): Standing {
  const refused = (reason: ClaimRefusal): Standing => ({ standing: 'refused', reason })
  const { publicKey, at, step, again, renews, reservedAt } = question
  if (!device || device.claim.number !== question.claimNumber) return refused('claim-gone')
  if (device.disabled) return refused('device-disabled')
  const { claim } = device
  const isStale = reservedAt !== undefined && at.getTime() - reservedAt.getTime() >= reservationMs
  if (claim.publicKey === publicKey)
    return claim.certificateId === undefined
      ? { standing: 'bound', isStale }
      : { standing: 'certified', certificateId: claim.certificateId }
  if (step === 'record') return refused(claim.publicKey ? 'claim-replaced' : 'claim-gone')
  const isLate = claim.openUntil !== undefined && claim.openUntil <= at
  if (renews) {
    const isOver = claim.publicKey === undefined ? isLate : isStale
    const isInUse = claim.certificateId === undefined && !isOver
    return isInUse ? refused('claim-open') : { standing: 'open', note: 'by certificate' }
  }
  if (claim.publicKey === undefined) {
    if (claim.certificateId !== undefined) return refused('claim-vended-elsewhere')
    return { standing: 'open', ...(isLate && { late: 'claim-expired' }) }
  }
  if (!claim.again || !again) return refused('claim-conflict')
  const { certificates, since } = claim.again
  const isExhausted =
    certificates >= again.certificates ||
    (since !== undefined && since.getTime() <= at.getTime() - again.windowMs)
  return { standing: 'open', note: 'asked again', ...(isExhausted && { late: 'claim-exhausted' }) }
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
