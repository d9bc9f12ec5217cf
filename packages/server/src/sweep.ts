/**
 * The sweep: goes through the certificates that AWS IoT holds and makes them agree with the registry.
 *
 * - An *orphan* was made for a key of ours and never recorded: its answer was lost, or another was
 *   faster. It is INACTIVE, without thing and policy, and known by its key. It is removed.
 * - What was *replaced* is removed too; the registry keeps its history. What was revoked stays, so that
 *   nobody registers it again.
 * - What is ACTIVE and not let in by the registry is withdrawn; what is let in and not ACTIVE is
 *   activated: a command or a request was cut off.
 * - Of two that are ACTIVE for longer than the overlap, one is retired: the newer if it has opened no session
 *   and the older has; the older if nobody told us of any session. That one was used is never noted here.
 *
 * Certificates that are nobody's here are not touched. Everything is repeatable; what cannot be removed yet
 * (AWS detaches in its own time) is left for the next time, and so is a device whose row AWS refuses, and a
 * certificate or a row that cannot be read. The youngest come first: a sweep that is cut off has seen the
 * orphans. Rate-gated, so that enrolling goes first.
 */
import { createHash, X509Certificate } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { type Books, restore, retire, wantedStatus } from './activation.ts'
import { type Clock, day, hour, later } from './clock.ts'
import { unless } from './issuer/iot-books.ts'
import { type Iot, isRefusal } from './issuer/iot-client.ts'
import { isIssuerBusy, type Waiting } from './issuer/issuer.ts'
import type { RateGate } from './rate-gate.ts'
import { type Certificate, isInForce, isRegistryBusy } from './registry/registry.ts'

export interface SweepTools extends Books {
  readonly iot: Iot
  readonly clock: Clock
  /** Each call takes its place in here. Without it nothing waits. */
  readonly gate?: RateGate
}

export interface SweepOptions extends Waiting {
  /** Say what would be done, and change nothing. */
  readonly dryRun?: boolean
  /** Younger certificates are left alone: their request may still be running. One hour by default. */
  readonly ageMs?: number
  /** Orphans are looked for among certificates younger than this; 30 days by default. */
  readonly windowMs?: number
  /** How long two certificates of one device may be ACTIVE; 7 days by default. */
  readonly overlapMs?: number
  /** Told of each certificate that something is done about. */
  readonly onStep?: (step: SweepStep) => void
}

export type SweepAction = 'removed' | 'withdrawn' | 'activated' | 'retired' | 'left'

/** What a step is about. */
interface Swept {
  readonly certificateId: string
  /** Absent where it could not be found out. */
  readonly deviceSerial?: string
}

export interface SweepStep extends Swept {
  readonly action: SweepAction
  /** `orphan`, `replaced`, AWS's reason, the error that left it, … */
  readonly why: string
}

export interface SweepReport extends Readonly<Record<SweepAction, number>> {
  /** Certificates that AWS listed. */
  readonly seen: number
}

interface Listed {
  readonly certificateId: string
  readonly certificateArn: string
  readonly status: string
  readonly createdAt: Date
}

/** Rejects as busy when AWS cannot be reached; what was done until then stays done. */
export async function sweep(tools: SweepTools, options: SweepOptions): Promise<SweepReport> {
  const { registry, issuer, clock } = tools
  const { ageMs = hour, windowMs = 30 * day, overlapMs = 7 * day, dryRun = false } = options
  const iot = paced(tools)
  const now = clock.now()
  const counts = { removed: 0, withdrawn: 0, activated: 0, retired: 0, left: 0 }
  const retired = new Set<string>()

  const say = (action: SweepAction, { certificateId, deviceSerial }: Swept, why: string): void => {
    counts[action] += 1
    options.onStep?.({ action, certificateId, ...(deviceSerial && { deviceSerial }), why })
  }
  /** One bad certificate, or row, must not keep the sweep from all the others. */
  const leave = (about: Swept, error: unknown): void => {
    if (isIssuerBusy(error) || isRegistryBusy(error) || options.signal.aborted) throw error
    say('left', about, isRefusal(error) ? error.refusal : (error as Error).message)
  }
  const step = async (
    action: SweepAction,
    about: Swept,
    why: string,
    work: () => Promise<unknown>,
  ): Promise<void> => {
    try {
      if (!dryRun) await work()
    } catch (error) {
      return leave(about, error)
    }
    say(action, about, why)
  }

  async function judge(listed: Listed): Promise<void> {
    const known = await registry.findCertificate(listed.certificateId)
    const age = now.getTime() - listed.createdAt.getTime()
    if (!known) {
      if (listed.status === 'INACTIVE' && age >= ageMs && age <= windowMs) await judgeOrphan(listed)
      return
    }
    const device = await registry.find(known.deviceSerial)
    const wanted = wantedStatus(known, device)
    if (wanted === 'ACTIVE') {
      if (listed.status === 'ACTIVE') {
        if (age >= overlapMs) await judgeOverlap(known)
      } else if (age >= ageMs && device)
        await step('activated', known, listed.status, () => restore(tools, known, device, options))
      return
    }
    if (retired.has(known.certificateId)) return // it goes with the next sweep
    if (listed.status !== wanted)
      await step('withdrawn', known, wanted, async () => issuer.withdraw?.(known, wanted, options))
    if (known.status === 'INACTIVE' && age >= ageMs)
      await step('removed', known, 'replaced', () => remove(listed))
  }

  /** Judges a certificate and what is older: whatever is newer was met before, or is not in AWS yet. */
  async function judgeOverlap(known: Certificate): Promise<void> {
    if (known.confirmedAt || later(known.issuedAt, overlapMs) > now) return
    const all = await registry.certificates(known.deviceSerial)
    const proven = all.find((one) => one.confirmedAt && isInForce(one, now))
    if (proven?.certificateId === known.certificateId) return
    const surplus = proven
      ? [known]
      : all.filter((one) => one.status === 'ACTIVE' && one.issuedAt < known.issuedAt)
    for (const one of surplus)
      await step('retired', one, 'the overlap is over', async () => {
        await retire(tools, one, { ...options, at: now })
        retired.add(one.certificateId)
      })
  }

  async function judgeOrphan(listed: Listed): Promise<void> {
    const { certificateId } = listed
    const { certificateDescription } =
      (await iot
        .call('DescribeCertificate', { certificateId }, options)
        .catch(unless('ResourceNotFoundException'))) ?? {}
    if (!certificateDescription?.certificatePem) return
    const deviceSerial = await registry.keyHolder(keyOf(certificateDescription.certificatePem))
    if (deviceSerial === undefined) return
    await step('removed', { certificateId, deviceSerial }, 'orphan', () => remove(listed))
  }

  async function remove({ certificateId, certificateArn: arn }: Listed): Promise<void> {
    const { policies = [] } = await iot.call('ListAttachedPolicies', { target: arn }, options)
    for (const { policyName } of policies)
      await iot.call('DetachPolicy', { policyName, target: arn }, options)
    const { things = [] } = await iot.call('ListPrincipalThings', { principal: arn }, options)
    for (const thingName of things)
      await iot.call('DetachThingPrincipal', { thingName, principal: arn }, options)
    await iot.call('DeleteCertificate', { certificateId }, options)
  }

  let seen = 0
  for await (const listed of everyCertificate(iot, options)) {
    seen += 1
    await judge(listed).catch((error: unknown) => leave(listed, error))
  }
  return { seen, ...counts }
}

/** SHA-256 of the public key in a certificate, hex: its name in the registry. */
const keyOf = (pem: string): string =>
  createHash('sha256')
    .update(new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex')

/** Newest first. */
async function* everyCertificate(iot: Iot, options: Waiting): AsyncGenerator<Listed> {
  let marker: string | undefined
  do {
    const input = { pageSize: 250, ascendingOrder: false, ...(marker && { marker }) }
    const page = await iot.call('ListCertificates', input, options)
    for (const { certificateId, certificateArn, status, creationDate } of page.certificates ?? [])
      if (certificateId && certificateArn && status && creationDate)
        yield { certificateId, certificateArn, status, createdAt: creationDate }
    marker = page.nextMarker
  } while (marker)
}

/** Every call waits for its place at the gate, and for as long as AWS is busy. */
function paced({ iot, gate, clock }: SweepTools): Iot {
  if (!gate) return iot
  return {
    ...iot,
    async call(name, input, options) {
      for (let attempt = 0; ; attempt += 1) {
        const waitMs = gate.take({ [name]: 1 }, clock.now())
        if (waitMs > 0) await pause(waitMs, undefined, options)
        try {
          return await iot.call(name, input, options)
        } catch (error) {
          if (!isIssuerBusy(error) || attempt >= 3) throw error
          await pause(error.retryAfterMs, undefined, options)
        }
      }
    },
  }
}
