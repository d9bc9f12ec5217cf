/** Claims in SQL: steps 1 and 3 of the life of a claim (see `registry.ts`). */
import { hashToken, type StoredToken } from '../../tokens.ts'
import { isAlarm, judgeCertificate, judgeClaim, type Question } from '../judgement.ts'
import type { ClaimOutcome, ClaimRefusal, Issued, Registry, ReserveRequest } from '../registry.ts'
import { type Rows, toDevice } from './rows.ts'
import { type Engine, get, type Row, run, type Work } from './work.ts'

/** The hash that takes the place of a token in the clear, once it was accepted. */
type Hashed = StoredToken | undefined

export function createClaims(engine: Engine, rows: Rows): Pick<Registry, 'reserve' | 'record'> {
  const { devices } = engine
  const column = devices.column
  const publicKeys = engine.table('public_keys')
  const certificates = engine.table('certificates')
  const setDevice = (assignments: string) =>
    `UPDATE ${devices.name} SET ${assignments} WHERE ${devices.hasSerial}`

  function* refuse(reason: ClaimRefusal, question: Question): Work<ClaimOutcome> {
    const { deviceSerial, publicKey, remoteAddress, at } = question
    if (isAlarm(reason)) {
      const from = remoteAddress === undefined ? {} : { remoteAddress }
      yield* rows.note({ name: reason, deviceSerial, publicKey, ...from }, at)
    }
    return { outcome: 'refused', reason }
  }

  const reserved = (row: Row): ClaimOutcome => ({
    outcome: 'reserved',
    device: toDevice(row),
    reservation: {
      deviceSerial: String(row.device_serial),
      claimNumber: Number(row.claim_number),
      publicKey: String(row.claim_public_key),
      certificateSerial: String(row.claim_certificate_serial),
      reservedAt: new Date(Number(row.claim_reserved_at)),
    },
  })

  function* issued(row: Row, certificateId: string, at: Date): Work<ClaimOutcome> {
    const certificate = yield* rows.certificate(certificateId)
    const reason = judgeCertificate(certificate, at)
    return reason
      ? { outcome: 'refused', reason }
      : { outcome: 'issued', device: toDevice(row), certificate: certificate! }
  }

  /** Why the device may not have this key. One that nobody holds is the device's from here on. */
  function* takeKey(
    { publicKey, deviceSerial }: Question,
    late: ClaimRefusal | undefined,
  ): Work<ClaimRefusal | undefined> {
    const holder = yield* get(
      `SELECT device_serial FROM ${publicKeys} WHERE public_key = :publicKey`,
      { publicKey },
    )
    if (!holder) {
      if (late) return late
      // Looked at once: somebody who takes it meanwhile makes this collide, and be done again.
      yield* run(
        `INSERT INTO ${publicKeys} (public_key, device_serial) VALUES (:publicKey, :deviceSerial)`,
        { publicKey, deviceSerial },
      )
      return undefined
    }
    if (holder.device_serial !== deviceSerial) return 'key-conflict'
    const revoked = yield* get(
      `SELECT 1 FROM ${certificates} WHERE public_key = :publicKey AND status = 'REVOKED'`,
      { publicKey },
    )
    return revoked ? 'key-revoked' : late
  }

  const asked = (row: Row | undefined, question: Question): Question =>
    row?.claim_reserved_at
      ? { ...question, reservedAt: new Date(Number(row.claim_reserved_at)) }
      : question

  /** The row after a change. */
  function* changed(deviceSerial: string): Work<Row> {
    return (yield* rows.deviceRow(deviceSerial))!
  }

  function* reserve(request: ReserveRequest, hashed: Hashed): Work<ClaimOutcome> {
    const { certificateSerial, ...rest } = request
    const { deviceSerial, publicKey, at, again, renews, remoteAddress } = request
    const question: Question = { ...rest, step: 'reserve' }
    const row = yield* rows.lockDevice(deviceSerial)
    const judged = judgeClaim(row && toDevice(row), asked(row, question))
    if (judged.standing === 'refused') return yield* refuse(judged.reason, question)
    if (judged.standing === 'certified') return yield* issued(row!, judged.certificateId, at)
    const reservation = { deviceSerial, certificateSerial, at: at.getTime() }
    if (judged.standing === 'bound') {
      if (!judged.isStale) return reserved(row!)
      yield* run(
        setDevice(
          `${column('claim_certificate_serial')} = :certificateSerial, ${column('claim_reserved_at')} = :at`,
        ),
        reservation,
      )
      return reserved(yield* changed(deviceSerial))
    }
    const reason = yield* takeKey(question, judged.late)
    if (reason) return yield* refuse(reason, question)
    const next = renews
      ? `, ${column('claim_number')} = ${column('claim_number')} + 1,
         ${column('claim_open_until')} = NULL, ${column('claim_certificates')} = 0,
         ${column('claim_first_at')} = NULL`
      : ''
    yield* run(
      setDevice(`${column('claim_public_key')} = :publicKey, ${column('claim_again')} = :again,
         ${column('claim_certificate_serial')} = :certificateSerial,
         ${column('claim_reserved_at')} = :at, ${column('changed_at')} = :at,
         ${column('claim_certificate_id')} = NULL${next}`),
      { ...reservation, publicKey, again: again ? 1 : 0 },
    )
    if (hashed && row!.token_hash === null) yield* keepHash(deviceSerial, hashed)
    const from = remoteAddress === undefined ? {} : { remoteAddress }
    const note = judged.note === undefined ? {} : { note: judged.note }
    yield* rows.note({ name: 'claim-reserved', deviceSerial, publicKey, ...from, ...note }, at)
    return reserved(yield* changed(deviceSerial))
  }

  function* keepHash(deviceSerial: string, { kind, hash }: StoredToken): Work<void> {
    const { plainToken } = devices
    const removed = engine.keepPlainTokens || !plainToken ? '' : `, ${plainToken} = NULL`
    yield* run(
      setDevice(`${column('token_kind')} = :kind, ${column('token_hash')} = :hash${removed}`),
      { deviceSerial, kind, hash },
    )
  }

  function* record(
    question: Question,
    certificateSerial: string,
    made: Issued,
  ): Work<ClaimOutcome> {
    const { deviceSerial, publicKey, at } = question
    const { certificateId } = made
    const row = yield* rows.lockDevice(deviceSerial)
    const judged = judgeClaim(row && toDevice(row), asked(row, question))
    if (judged.standing === 'refused') return yield* refuse(judged.reason, question)
    if (judged.standing === 'certified') return yield* issued(row!, judged.certificateId, at)
    if (row!.claim_certificate_serial !== certificateSerial) return reserved(row!)
    yield* run(
      setDevice(`${column('claim_certificate_id')} = :certificateId,
         ${column('claim_certificates')} = ${column('claim_certificates')} + 1,
         ${column('claim_first_at')} = COALESCE(${column('claim_first_at')}, :at),
         ${column('changed_at')} = :at`),
      { deviceSerial, certificateId, at: at.getTime() },
    )
    yield* run(
      `INSERT INTO ${certificates} (certificate_id, device_serial, certificate_serial, public_key,
         chain, status, thing_name, policy_name, not_before, not_after, issued_at, certificate_arn)
       VALUES (:certificateId, :deviceSerial, :certificateSerial, :publicKey, :chain, 'ACTIVE',
         :thingName, :policyName, :notBefore, :notAfter, :at, :certificateArn)`,
      {
        certificateId,
        certificateSerial,
        publicKey,
        deviceSerial,
        thingName: row!.thing_name,
        policyName: row!.policy_name,
        chain: JSON.stringify(made.certificateChain),
        certificateArn: made.certificateArn,
        notBefore: made.notBefore.getTime(),
        notAfter: made.notAfter.getTime(),
        at: at.getTime(),
      },
    )
    yield* rows.note({ name: 'certificate-issued', deviceSerial, publicKey, certificateId }, at)
    return yield* issued(yield* changed(deviceSerial), certificateId, at)
  }

  /** What becomes of a token in the clear; hashed outside of any transaction, for it may take long. */
  async function hash(deviceSerial: string): Promise<Hashed> {
    if (devices.plainToken === undefined) return undefined
    const row = await engine.read(() => rows.deviceRow(deviceSerial))
    const plain = row?.token_hash === null ? row.plain_token : null
    return plain ? hashToken(String(plain), 'imported') : undefined
  }

  return {
    reserve: async (request) => {
      const hashed = await hash(request.deviceSerial)
      return engine.write(() => reserve(request, hashed))
    },
    record: (reservation, made, at) => {
      const { deviceSerial, claimNumber, publicKey, certificateSerial } = reservation
      const question: Question = { deviceSerial, claimNumber, publicKey, at, step: 'record' }
      return engine.write(() => record(question, certificateSerial, made))
    },
  }
}
