/**
 * Claims in the embedded registry: steps 1 and 3 of the life of a claim (see `registry.ts`).
 *
 * In each, one UPDATE carries all the conditions and decides; what it did not let through is then
 * explained from the row, within the same transaction.
 */
import {
  type ClaimOutcome,
  type ClaimRefusal,
  type Device,
  type Registry,
  type ReserveRequest,
  reservationMs,
} from './registry.ts'
import type { Rows } from './rows.ts'
import type { Sql } from './sql.ts'

export function createClaims(sql: Sql, rows: Rows): Pick<Registry, 'reserve' | 'record'> {
  const { get, run, write } = sql
  const { note, device, certificate } = rows

  const isRevokedKey = (publicKey: string): boolean =>
    get(`SELECT 1 FROM certificates WHERE public_key = :publicKey AND status = 'REVOKED'`, {
      publicKey,
    }) !== undefined

  /** What the claim says to this key, when no condition let a write through. */
  const judge = (
    request: Omit<ReserveRequest, 'certificateSerial'>,
    step: 'reserve' | 'record',
  ): ClaimOutcome => {
    const refused = (reason: ClaimRefusal) => ({ outcome: 'refused', reason }) as const
    const { deviceSerial, publicKey, at } = request
    const found = device(deviceSerial)
    if (!found || found.claim.number !== request.claimNumber) return refused('claim-gone')
    if (found.disabled) return refused('device-disabled')
    const { claim } = found
    if (claim.publicKey === publicKey) {
      if (!claim.certificateId) return reserved(found)
      const held = certificate(claim.certificateId)
      if (held?.status === 'REVOKED') return refused('certificate-revoked')
      return held?.status === 'ACTIVE' && held.notAfter > at
        ? { outcome: 'issued', device: found, certificate: held }
        : refused('certificate-finished')
    }
    const alarm = (name: 'claim-conflict' | 'key-conflict') => {
      const { remoteAddress } = request
      note({ name, deviceSerial, publicKey, ...(remoteAddress && { remoteAddress }) }, at)
      return refused(name)
    }
    if (claim.publicKey && step === 'record') return refused('claim-replaced')
    if (request.renews && !claim.certificateId) return refused('claim-open')
    if (claim.publicKey && !request.renews && !(claim.again && request.again))
      return alarm('claim-conflict')
    if (claim.certificateId && !claim.publicKey && !request.renews)
      return refused('claim-vended-elsewhere')
    const holder = get('SELECT device_serial FROM public_keys WHERE public_key = :publicKey', {
      publicKey,
    })
    if (holder && holder.device_serial !== deviceSerial) return alarm('key-conflict')
    if (isRevokedKey(publicKey)) return refused('key-revoked')
    return refused(claim.publicKey ? 'claim-exhausted' : 'claim-expired')
  }

  const reserved = (found: Device): ClaimOutcome => {
    const row = get(
      `SELECT claim_public_key, claim_certificate_serial, claim_reserved_at FROM devices
       WHERE device_serial = :deviceSerial`,
      { deviceSerial: found.deviceSerial },
    )!
    return {
      outcome: 'reserved',
      device: found,
      reservation: {
        deviceSerial: found.deviceSerial,
        claimNumber: found.claim.number,
        publicKey: String(row.claim_public_key),
        certificateSerial: String(row.claim_certificate_serial),
        reservedAt: new Date(Number(row.claim_reserved_at)),
      },
    }
  }

  return {
    reserve: (request) =>
      write(() => {
        const { deviceSerial, publicKey, at, again } = request
        const renews = request.renews ? 1 : 0
        const values = {
          deviceSerial,
          claimNumber: request.claimNumber,
          publicKey,
          certificateSerial: request.certificateSerial,
          at: at.getTime(),
          again: again ? 1 : 0,
          limit: again?.certificates,
          window: again && at.getTime() - again.windowMs,
          renews,
          stale: at.getTime() - reservationMs,
        }
        const wasBound = device(deviceSerial)?.claim.publicKey !== undefined
        const bound = run(
          `UPDATE devices SET claim_public_key = :publicKey, claim_again = :again,
             claim_certificate_serial = :certificateSerial, claim_reserved_at = :at, changed_at = :at,
             claim_certificate_id = NULL, claim_number = claim_number + :renews,
             claim_certificates = CASE WHEN :renews THEN 0 ELSE claim_certificates END,
             claim_first_at = CASE WHEN :renews THEN NULL ELSE claim_first_at END,
             claim_open_until = CASE WHEN :renews THEN NULL ELSE claim_open_until END
           WHERE device_serial = :deviceSerial AND claim_number = :claimNumber AND disabled = 0
             AND ((NOT :renews AND claim_public_key IS NULL AND claim_certificate_id IS NULL
                 AND (claim_open_until IS NULL OR claim_open_until > :at))
               OR (:again AND claim_again AND claim_public_key <> :publicKey
                 AND claim_certificates < :limit
                 AND (claim_first_at IS NULL OR claim_first_at > :window))
               OR (:renews AND claim_public_key IS NOT :publicKey
                 AND (claim_certificate_id IS NOT NULL OR claim_reserved_at <= :stale)))
             AND NOT EXISTS (SELECT 1 FROM public_keys
               WHERE public_key = :publicKey AND device_serial <> :deviceSerial)
             AND NOT EXISTS (SELECT 1 FROM certificates
               WHERE public_key = :publicKey AND status = 'REVOKED')`,
          values,
        )
        if (bound === 1) {
          run('INSERT OR IGNORE INTO public_keys VALUES (:publicKey, :deviceSerial)', {
            publicKey,
            deviceSerial,
          })
          const { remoteAddress } = request
          note(
            {
              name: 'claim-reserved',
              deviceSerial,
              publicKey,
              ...(remoteAddress && { remoteAddress }),
              ...(renews ? { note: 'by certificate' } : wasBound && { note: 'asked again' }),
            },
            at,
          )
        } else {
          run(
            `UPDATE devices SET claim_certificate_serial = :certificateSerial, claim_reserved_at = :at
             WHERE device_serial = :deviceSerial AND claim_number = :claimNumber
               AND claim_public_key = :publicKey AND claim_certificate_id IS NULL AND disabled = 0
               AND claim_reserved_at <= :stale`,
            values,
          )
        }
        return judge({ ...request, claimNumber: request.claimNumber + bound * renews }, 'reserve')
      }),

    record: (reservation, issued, at) =>
      write(() => {
        const { deviceSerial, claimNumber, publicKey, certificateSerial } = reservation
        const { certificateId } = issued
        const recorded = run(
          `UPDATE devices SET claim_certificate_id = :certificateId, changed_at = :at,
             claim_certificates = claim_certificates + 1,
             claim_first_at = COALESCE(claim_first_at, :at)
           WHERE device_serial = :deviceSerial AND claim_number = :claimNumber AND disabled = 0
             AND claim_public_key = :publicKey AND claim_certificate_serial = :certificateSerial
             AND claim_certificate_id IS NULL`,
          {
            deviceSerial,
            claimNumber,
            publicKey,
            certificateSerial,
            certificateId,
            at: at.getTime(),
          },
        )
        if (recorded === 1) {
          run(
            `INSERT INTO certificates (certificate_id, device_serial, certificate_serial, public_key,
               chain, status, thing_name, policy_name, not_before, not_after, issued_at, certificate_arn)
             SELECT :certificateId, device_serial, :certificateSerial, :publicKey,
               :chain, 'ACTIVE', thing_name, policy_name, :notBefore, :notAfter, :at, :certificateArn
             FROM devices WHERE device_serial = :deviceSerial`,
            {
              certificateId,
              certificateSerial,
              publicKey,
              deviceSerial,
              chain: JSON.stringify(issued.certificateChain),
              certificateArn: issued.certificateArn,
              notBefore: issued.notBefore.getTime(),
              notAfter: issued.notAfter.getTime(),
              at: at.getTime(),
            },
          )
          note({ name: 'certificate-issued', deviceSerial, publicKey, certificateId }, at)
        }
        return judge({ deviceSerial, claimNumber, publicKey, at }, 'record')
      }),
  }
}
