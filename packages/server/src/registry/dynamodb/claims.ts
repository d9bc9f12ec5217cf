/** Claims in DynamoDB: steps 1 and 3 of the life of a claim (see `registry.ts`). */
import { hashToken } from '../../tokens.ts'
import { isAlarm, judgeCertificate, judgeClaim, type Question } from '../judgement.ts'
import {
  type Certificate,
  type ClaimOutcome,
  type ClaimRefusal,
  type Device,
  type Registry,
  registryBusy,
} from '../registry.ts'
import type { Ledger } from './ledger.ts'
import {
  column,
  fromCertificate,
  isUntouched,
  ledgerKeys,
  plainTokenOf,
  previousArn,
  toDevice,
  toReservation,
} from './rows.ts'
import type { Item } from './tables.ts'

/** Rounds before a write that others keep getting in the way of gives up, as busy. */
const rounds = 12

/** How long a key stays bound to a serial that recorded nothing for it, in seconds: a month. */
const keySeconds = 30 * 24 * 60 * 60

export function createClaims(ledger: Ledger): Pick<Registry, 'reserve' | 'record'> {
  const { tables, changes, shape, options } = ledger

  const refuse = async (reason: ClaimRefusal, question: Question): Promise<ClaimOutcome> => {
    const { deviceSerial, publicKey, remoteAddress, at } = question
    if (isAlarm(reason)) {
      const from = remoteAddress === undefined ? {} : { remoteAddress }
      await changes.note(changes.event({ name: reason, deviceSerial, publicKey, ...from }, at))
    }
    return { outcome: 'refused', reason }
  }

  const reserved = (row: Item): ClaimOutcome => ({
    outcome: 'reserved',
    device: toDevice(row, shape),
    reservation: toReservation(row, shape),
  })

  const issued = async (device: Device, id: string, at: Date): Promise<ClaimOutcome> => {
    let certificate = await ledger.certificate(id)
    if (!certificate) {
      await ledger.row(device.deviceSerial) // it still lies there: deliver it
      certificate = await ledger.certificate(id)
    }
    const reason = judgeCertificate(certificate, at)
    return reason
      ? { outcome: 'refused', reason }
      : { outcome: 'issued', device, certificate: certificate! }
  }

  /** Binds a key to a serial, for good if `forGood`. @returns false if another serial holds it */
  const holdKey = async (question: Question, forGood: boolean): Promise<boolean> => {
    const { publicKey, deviceSerial, at } = question
    const ref = { table: options.ledger, key: ledgerKeys.publicKey(publicKey) }
    const expiresAt = forGood ? undefined : Math.ceil(at.getTime() / 1000) + keySeconds
    // One that is held for good (no `expiresAt`) must not begin to expire.
    if (!forGood && (await tables.get(ref))?.deviceSerial === deviceSerial) return true
    const held = { deviceSerial }
    return (
      (await tables.update(ref, { deviceSerial, expiresAt }, held, { orAbsent: true })) !==
      undefined
    )
  }

  const judgeKey = async (question: Question): Promise<ClaimRefusal | undefined> => {
    const { publicKey, deviceSerial } = question
    const held = await tables.get({ table: options.ledger, key: ledgerKeys.publicKey(publicKey) })
    if (!held) return undefined // and then no certificate was ever recorded for it
    if (held.deviceSerial !== deviceSerial) return 'key-conflict'
    await ledger.row(deviceSerial) // a revocation may still lie there
    const certificates = await ledger.certificates(deviceSerial)
    const isRevoked = certificates.some(
      (one) => one.publicKey === publicKey && one.status === 'REVOKED',
    )
    return isRevoked ? 'key-revoked' : undefined
  }

  /** What binding the first key does to a token that stands in the clear. */
  const hashed = async (row: Item): Promise<Item> => {
    const plain = plainTokenOf(row, shape)
    if (plain === undefined || row[column('tokenHash')] !== undefined) return {}
    const { kind, hash } = await hashToken(plain, 'imported')
    if (kind === 'scrypt') await ledger.noteWeakToken()
    return {
      [column('tokenKind')]: kind,
      [column('tokenHash')]: hash,
      ...(!options.keepPlainTokens && { [shape.token]: undefined }),
    }
  }

  async function bind(row: Item, question: Question, serial: string, note: string | undefined) {
    const { deviceSerial, publicKey, at, again, renews, remoteAddress } = question
    const event = changes.event(
      {
        name: 'claim-reserved',
        deviceSerial,
        publicKey,
        ...(remoteAddress !== undefined && { remoteAddress }),
        ...(note !== undefined && { note }),
      },
      at,
    )
    const next = renews
      ? {
          [column('claimNumber')]: question.claimNumber + 1,
          [column('claimOpenUntil')]: undefined,
          [column('claimCertificates')]: undefined,
          [column('claimFirstAt')]: undefined,
        }
      : isUntouched(row) && { [column('claimNumber')]: question.claimNumber }
    return changes.change(
      ledger.device(deviceSerial),
      row,
      {
        ...next,
        ...(await hashed(row)),
        [column('claimPublicKey')]: publicKey,
        [column('claimCertificateSerial')]: serial,
        [column('claimReservedAt')]: at.getTime(),
        [column('claimCertificateId')]: undefined,
        [column('claimAgain')]: again ? true : undefined,
        [column('changedAt')]: at.getTime(),
      },
      { events: [event] },
    )
  }

  const reservedAt = (row: Item | undefined) =>
    row?.[column('claimPublicKey')] !== undefined && {
      reservedAt: toReservation(row, shape).reservedAt,
    }

  /** One round: an outcome, or undefined if the row was changed in between. */
  async function tryReserve(question: Question, serial: string) {
    const { deviceSerial, at } = question
    const row = await ledger.peek(deviceSerial)
    const device = row && toDevice(row, shape)
    const judged = judgeClaim(device, { ...question, ...reservedAt(row) })
    if (judged.standing === 'refused') return refuse(judged.reason, question)
    if (judged.standing === 'certified') return issued(device!, judged.certificateId, at)
    if (judged.standing === 'bound') {
      if (!judged.isStale) return reserved(row!)
      const renewed = {
        [column('claimCertificateSerial')]: serial,
        [column('claimReservedAt')]: at.getTime(),
      }
      const after = await changes.change(ledger.device(deviceSerial), row!, renewed, { events: [] })
      return after && reserved(after)
    }
    const reason = (await judgeKey(question)) ?? judged.late
    if (reason) return refuse(reason, question)
    // The key first: harmless if the next write then fails.
    if (!(await holdKey(question, false))) return refuse('key-conflict', question)
    const after = await bind(row!, question, serial, judged.note)
    return after && reserved(after)
  }

  async function tryRecord(question: Question, certificateSerial: string, one: Certificate) {
    const { deviceSerial, at } = question
    const row = await ledger.peek(deviceSerial)
    const device = row && toDevice(row, shape)
    const judged = judgeClaim(device, question)
    if (judged.standing === 'refused') return refuse(judged.reason, question)
    if (judged.standing === 'certified') return issued(device!, judged.certificateId, at)
    if (judged.standing === 'open') return refuse('claim-gone', question)
    if (row![column('claimCertificateSerial')] !== certificateSerial) return reserved(row!)
    if (!(await holdKey(question, true))) return refuse('key-conflict', question)
    const { certificateId, publicKey, certificateArn } = one
    const { thingName, policyName } = device!
    const item = fromCertificate({
      ...one,
      thingName,
      ...(policyName !== undefined && { policyName }),
    })
    const event = changes.event(
      { name: 'certificate-issued', deviceSerial, publicKey, certificateId },
      at,
    )
    const after = await changes.change(
      ledger.device(deviceSerial),
      row!,
      {
        [column('claimCertificateId')]: certificateId,
        [column('claimCertificates')]: Number(row![column('claimCertificates')] ?? 0) + 1,
        [column('claimFirstAt')]: row![column('claimFirstAt')] ?? at.getTime(),
        [column('changedAt')]: at.getTime(),
        ...theirColumns(row!, certificateArn, thingName, at),
      },
      { certificate: { id: changes.nextId(at), item }, events: [event] },
    )
    return after && issued(toDevice(after, shape), certificateId, at)
  }

  /** What the function before us would have written, so that it can be put back. */
  function theirColumns(row: Item, arn: string | undefined, thingName: string, at: Date): Item {
    return {
      ...(shape.certificateArn !== undefined &&
        arn !== undefined && {
          [shape.certificateArn]: arn,
          [column('arn')]: arn,
          [column('previousArn')]: previousArn(row, shape),
        }),
      ...(shape.registered !== undefined &&
        shape.thingName !== undefined && {
          [shape.registered]: 1,
          [shape.thingName]: thingName,
          iot_core_registered_on: at.toISOString(),
        }),
    }
  }

  const persist = async (round: () => Promise<ClaimOutcome | undefined>): Promise<ClaimOutcome> => {
    for (let count = 0; count < rounds; count += 1) {
      const outcome = await round()
      if (outcome) return outcome
    }
    throw registryBusy(new Error('others keep changing this device'))
  }

  return {
    reserve: ({ certificateSerial, ...request }) =>
      persist(() => tryReserve({ ...request, step: 'reserve' }, certificateSerial)),

    record: (reservation, made, at) => {
      const { deviceSerial, claimNumber, publicKey, certificateSerial } = reservation
      const question: Question = { deviceSerial, claimNumber, publicKey, at, step: 'record' }
      const certificate: Certificate = {
        ...made,
        deviceSerial,
        certificateSerial,
        publicKey,
        status: 'ACTIVE',
        thingName: '',
        issuedAt: at,
      }
      return persist(() => tryRecord(question, certificateSerial, certificate))
    },
  }
}
