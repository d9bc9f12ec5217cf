/**
 * What an old protocol's request comes to: authenticated like any other, a key made here, and a
 * certificate from the same registry and the same issuer.
 *
 * A device that did not get its answer asks again, with nothing to show but its token. For a day after
 * the first certificate it gets another one, a few times over. Two are in force at a time: the newest, and
 * the one that has connected or, as long as none has, the oldest; what came in between is retired. Once the
 * newest has connected it is the only one. Then its claim is spent until an operator re-arms the device.
 */
import { type Endpoint, isDeviceSerial } from '@certvend/client/wire'
import type { Authenticate } from '../authentication.ts'
import { day, second } from '../clock.ts'
import { createCertify, type EnrollmentOptions, refusals } from '../enrollment.ts'
import type { Problem } from '../problem.ts'
import type { Claim, ClaimRefusal, Device } from '../registry/registry.ts'
import type { Asked, LegacyDialect, Vended } from './dialect.ts'
import { createMakeKey, type MakeKey } from './made-key.ts'
import { rootCaOf, unixPem } from './root-ca.ts'

export interface VendOptions extends EnrollmentOptions {
  readonly endpoint: Endpoint
  /**
   * The ARN of a certificate that was issued without one, from its certificateId. By default one in
   * the shape of AWS IoT's that names no account: clients take ids out of ARNs.
   */
  readonly certificateArn?: (certificateId: string) => string
  readonly makeKey?: MakeKey
}

/** How long after its first certificate a claim gives another, in milliseconds. */
export const againMs: number = day

export type Vending =
  | { readonly ok: true; readonly vended: Vended }
  | { readonly ok: false; readonly problem: Problem }

export type Vend = (
  asked: Asked,
  remoteAddress: string,
  dialect: Pick<LegacyDialect, 'certificates' | 'fleet'>,
) => Promise<Vending>

const arnOfNoAccount = (id: string): string => `arn:aws:iot:local:000000000000:cert/${id}`

const tooBusy: Problem = {
  code: 'busy',
  detail: 'too many keys are being made',
  retryAfterMs: 10 * second,
}

export function createVend(options: VendOptions, authenticate: Authenticate): Vend {
  const {
    registry,
    endpoint,
    clock,
    certificateArn = arnOfNoAccount,
    makeKey = createMakeKey(),
  } = options
  const certify = createCertify(options)
  const inTurn = createTurns()
  let rootCa: string | undefined

  return async ({ deviceSerial, token }, remoteAddress, dialect) => {
    // What cannot be a serial is looked for all the same, so that it takes as long.
    const claimant = { deviceSerial, token, remoteAddress }
    const known = await authenticate(claimant, { fleet: dialect.fleet ?? false })
    if (!known.ok || !isDeviceSerial(deviceSerial)) return known.ok ? stranger : known
    const again = { certificates: dialect.certificates, windowMs: againMs }
    rootCa ??= rootCaOf(endpoint) // before anything is spent: it throws where there is none

    return inTurn(deviceSerial, async (hasWaited) => {
      const device = hasWaited ? await registry.find(deviceSerial) : known.device
      if (device?.claim.number !== known.device.claim.number) return stranger
      const refusal = foresee(device, again, clock.now())
      if (refusal) return { ok: false, problem: refusals[refusal] }
      const made = await makeKey(deviceSerial)
      if (!made) return { ok: false, problem: tooBusy }
      const enrollment = await certify({ device, remoteAddress, again }, made.request)
      if (!enrollment.ok) return enrollment
      const { certificateId, certificateChain, thingName } = enrollment.certificate
      const vended: Vended = {
        thingName,
        certificateId,
        certificateArn: enrollment.certificate.certificateArn ?? certificateArn(certificateId),
        certificatePem: unixPem(certificateChain[0]!),
        keyPair: made.key,
        rootCa: rootCa!,
        endpoint: endpoint.host,
      }
      return { ok: true, vended }
    })
  }
}

const stranger: Vending = { ok: false, problem: refusals['claim-gone'] }

/**
 * Why the registry would refuse any key, where that can be seen beforehand: a key costs a tenth of a
 * second of work, and whoever asks for ever would have one made every time. An alarm is the
 * registry's to raise, so a claim that a key of the device's own has spent goes there.
 */
function foresee(
  device: Device,
  again: { readonly certificates: number; readonly windowMs: number },
  now: Date,
): ClaimRefusal | undefined {
  const { claim } = device
  if (device.disabled) return 'device-disabled'
  if (claim.publicKey === undefined) return foreseeOpen(claim, now)
  if (!claim.again) return undefined
  const { certificates, since } = claim.again
  const isOver = since !== undefined && now.getTime() - since.getTime() >= again.windowMs
  return isOver || certificates >= again.certificates ? 'claim-exhausted' : undefined
}

function foreseeOpen(claim: Claim, now: Date): ClaimRefusal | undefined {
  if (claim.certificateId !== undefined) return 'claim-vended-elsewhere'
  return claim.openUntil && claim.openUntil <= now ? 'claim-expired' : undefined
}

/**
 * One piece of work per device at a time: of two requests at once the second would take the first
 * one's place while its certificate is being made. The work is told whether it had to wait.
 */
function createTurns() {
  const last = new Map<string, Promise<unknown>>()
  return async <T>(deviceSerial: string, work: (hasWaited: boolean) => Promise<T>): Promise<T> => {
    const before = last.get(deviceSerial)
    const mine = before
      ? before.then(
          () => work(true),
          () => work(true),
        )
      : work(false)
    last.set(deviceSerial, mine)
    try {
      return await mine
    } finally {
      if (last.get(deviceSerial) === mine) last.delete(deviceSerial)
    }
  }
}
