/**
 * What AWS IoT tells of by events, handled the same way however often it is told.
 *
 * - `$aws/events/certificates/registered/<caCertificateId>`: a certificate of our CA connected for the
 *   first time and waits as PENDING_ACTIVATION (just-in-time registration). It is activated if, and only
 *   if, the registry recorded this very certificate and lets it in. AWS tells again at each connect, while it waits.
 * - `$aws/events/presence/connected/<clientId>`: a certificate opened a session. The first one of a new
 *   certificate retires what it replaces.
 *
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/auto-register-device-cert.html
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/life-cycle-events.html
 */
import { type Books, confirm, restore, wantedStatus } from '../activation.ts'
import { type Clock, second } from '../clock.ts'
import type { Log } from '../log.ts'
import type { Waiting } from './issuer.ts'

export interface EventTools extends Books {
  readonly clock: Clock
  readonly log: Log
  /** How long one event may take, in milliseconds; 20 seconds by default. */
  readonly timeoutMs?: number
}

export type RegisteredOutcome =
  /** It opens sessions now. */
  | 'activated'
  /** Recorded, and not let in: revoked, replaced, or its device is disabled or removed. */
  | 'refused'
  /** Never recorded here. It stays PENDING_ACTIVATION, and the audit trail says so, once. */
  | 'unknown'

const id = /^[0-9a-f]{64}$/

/** A field that is 64 hex digits. @throws TypeError */
function idIn(event: unknown, field: string): string {
  const value = (event as Record<string, unknown> | null)?.[field]
  if (typeof value !== 'string' || !id.test(value))
    throw new TypeError(`not an event of AWS IoT's: ${field} is not 64 hex digits`)
  return value
}

const waiting = (tools: EventTools): Waiting => ({
  signal: AbortSignal.timeout(tools.timeoutMs ?? 20 * second),
})

/**
 * Activates a certificate that registered itself.
 *
 * @throws TypeError if the event is another one; what the issuer throws, as busy when the event is to
 *   be handled again
 */
export async function handleRegistered(
  event: unknown,
  tools: EventTools,
): Promise<RegisteredOutcome> {
  const { registry, issuer, clock, log } = tools
  const certificateId = idIn(event, 'certificateId')
  const caCertificateId = idIn(event, 'caCertificateId')
  const options = waiting(tools)
  const certificate = await registry.findCertificate(certificateId)
  if (!certificate) {
    const isNew = await registry.noteUnknown(certificateId, caCertificateId, clock.now())
    if (isNew) log({ level: 'alarm', event: 'certificate-unknown', certificateId })
    return 'unknown'
  }
  const { deviceSerial, thingName } = certificate
  const device = await registry.find(deviceSerial)
  const wanted = wantedStatus(certificate, device)
  if (wanted !== 'ACTIVE' || !device) {
    await issuer.withdraw?.(certificate, wanted === 'ACTIVE' ? 'INACTIVE' : wanted, options)
    log({ event: 'activation-refused', deviceSerial, certificateId, reason: wanted })
    return 'refused'
  }
  if (!(await restore(tools, certificate, device, options))) return 'refused'
  log({ event: 'activated', deviceSerial, thingName, certificateId })
  return 'activated'
}

/**
 * Confirms the certificate of a session that was opened.
 *
 * @returns whether this was its first session
 * @throws as {@link handleRegistered}
 */
export async function handlePresence(event: unknown, tools: EventTools): Promise<boolean> {
  const { clock, log } = tools
  if ((event as { eventType?: unknown } | null)?.eventType !== 'connected') return false
  const { principalIdentifier } = event as { principalIdentifier?: unknown }
  // Sessions of people and of Lambda functions carry other principals.
  if (typeof principalIdentifier !== 'string' || !id.test(principalIdentifier)) return false
  const first = await confirm(tools, principalIdentifier, { ...waiting(tools), at: clock.now() })
  if (first) log({ event: 'confirmed', certificateId: principalIdentifier })
  return first
}
