/**
 * AWS IoT Fleet Provisioning as one more way to enroll: by claim and by trusted user, by CSR.
 *
 * The key is made here and made durable first, as always. The claim opens one session, on which
 * CreateCertificateFromCsr and RegisterThing are asked; what they answer is judged and stored like
 * any vending server's reply. A lost certificate costs nothing: AWS deletes it unless it is
 * registered within the hour, and the same key asks for another. After a lost RegisterThing the new
 * certificate may already be in force, so it tries the door first and asks again only if that stays
 * shut. Who does not import this file does not load it.
 *
 * A crash between RegisterThing's answer and the last sync leaves a certificate at AWS that nobody
 * uses; the next boot gets another for the same key.
 *
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html
 * @module
 */
import { type Clock, systemClock } from './clock.ts'
import { type Credential, createCredential, type Issued } from './credential.ts'
import { createCertificationRequest } from './csr.ts'
import type { EnrollOptions, EnsureOptions } from './enroll.ts'
import { CertvendError, isCertvendError } from './errors.ts'
import type { FleetClaim } from './fleet-claim.ts'
import { type Circumstance, openQuestion } from './fleet-exchange.ts'
import {
  createTopic,
  isTemplateName,
  readCreated,
  readRegistered,
  refusesToken,
  registerTopic,
  rejection,
} from './fleet-messages.ts'
import { judgeVended } from './issued.ts'
import { retrying } from './retry.ts'
import { connect, type Session, type SessionOptions, type Transport } from './session.ts'
import type { CredentialStore } from './store.ts'
import { type Endpoint, isThingName } from './wire.ts'

export { createFleetClaim, type FleetClaim, readProvisioningClaim } from './fleet-claim.ts'

/** A provisioning template at AWS, and what this device brings to it. */
export interface ProvisioningTemplate {
  /** Where both sessions go, the claim's and later the device's own. */
  readonly endpoint: Endpoint
  readonly name: string
  /** The template's parameters. Default `{ SerialNumber: <device serial> }`. */
  readonly parameters?: Readonly<Record<string, string>>
  /**
   * What the template will call the thing, where the device can know. Then a lost answer is first
   * looked for at the door, and another name in the answer is refused.
   */
  readonly thingName?: string
}

/**
 * Makes a template.
 *
 * @param name 1 to 36 letters, digits, `_` and `-`.
 * @throws TypeError when a part is out of bounds, before anything is sent.
 */
export function createProvisioningTemplate(template: ProvisioningTemplate): ProvisioningTemplate {
  const { name, parameters, thingName } = template
  if (!isTemplateName(name))
    throw new TypeError('a template name is 1 to 36 letters, digits, "_" and "-"')
  if (thingName !== undefined && !isThingName(thingName))
    throw new TypeError('a thing name is 1 to 128 letters, digits, ":", "_" and "-"')
  if (!Object.values(parameters ?? {}).every((value) => typeof value === 'string'))
    throw new TypeError('the parameters of a template are strings')
  return Object.freeze({ ...template })
}

export interface FleetOptions extends Omit<EnrollOptions, 'send'> {
  /** How long each question may stay unanswered, in milliseconds. Default 10 000. */
  readonly answerMs?: number
  /** Default: MQTT.js, loaded when first used. */
  readonly transport?: Transport
  /**
   * Given the template's deviceConfiguration, if it has one, before the credential is stored: a
   * crash in between asks, and tells, again.
   */
  readonly onConfiguration?: (configuration: Readonly<Record<string, string>>) => void
}

export interface EnsureFleetOptions
  extends FleetOptions,
    Pick<EnsureOptions, 'backoff' | 'random'> {}

/**
 * Makes one attempt to enroll by a template and stores what it gains.
 *
 * As with `enroll`, the first credential of a store becomes current, and a successor is left pending
 * until it has proven itself. Keep the claim until the first session with the new credential.
 *
 * @throws {CertvendError} `ERR_CLAIM_REFUSED`, `ERR_CLAIM_SPENT`, `ERR_REQUEST_REFUSED`,
 *   `ERR_SERVER_BUSY`, `ERR_REPLY_LOST`, `ERR_REPLY_MALFORMED`, `ERR_CERTIFICATE_MISMATCH`, those of
 *   `connect` and of the store; nothing is lost by asking again. Or the signal's reason.
 */
export async function enrollByTemplate(
  store: CredentialStore,
  template: ProvisioningTemplate,
  claim: FleetClaim,
  options: FleetOptions = {},
): Promise<Credential> {
  return applicant(store, createProvisioningTemplate(template), claim, options)()
}

/**
 * The stored credential; on first boot enrolls for it by a template, asking for as long as asking
 * may help. Each attempt is a whole sequence on a session of its own.
 *
 * @throws {CertvendError} with remedy `operator` or `enroll`; or the signal's reason.
 */
export async function ensureCredentialByTemplate(
  store: CredentialStore,
  template: ProvisioningTemplate,
  claim: FleetClaim,
  options: EnsureFleetOptions = {},
): Promise<Credential> {
  const checked = createProvisioningTemplate(template)
  const stored = store.current()
  if (stored) return stored
  store.lock()
  const meanwhile = store.current() // another process may have enrolled before we had the lock
  if (meanwhile) return meanwhile
  return retrying(applicant(store, checked, claim, options), {
    ...options,
    onRetry: ({ error, waitMs }) => options.log?.({ event: 'enroll.retry', error, waitMs }),
  })
}

/** AWS's hour, less what a slow network may take, in milliseconds. */
const ownershipMs = 55 * 60_000

/** A certificate that is ours for an hour, unless it is registered. */
interface Held {
  readonly generation: number
  readonly issued: Omit<Issued, 'thingName'>
  readonly token: string
  readonly until: Date
  /** Whether RegisterThing was asked and the answer never came. */
  asked: boolean
}

/** Attempts, one per call, that remember between them the certificate that they hold. */
function applicant(
  store: CredentialStore,
  template: ProvisioningTemplate,
  claim: FleetClaim,
  options: FleetOptions,
): () => Promise<Credential> {
  const { clock = systemClock, signal, log = () => {}, deadlineMs, transport } = options
  const { proxy, proxyAnchors } = options
  const circumstance: Circumstance = { clock, answerMs: options.answerMs ?? 10_000, signal }
  const connection = {
    clock,
    ...(signal ? { signal } : {}),
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
    ...(transport ? { transport } : {}),
    ...(proxy === undefined ? {} : { proxy }),
    ...(proxyAnchors ? { proxyAnchors } : {}),
  }
  const { deviceSerial } = claim
  const { endpoint, thingName: expected } = template
  let held: Held | undefined

  function keep(thingName: string, { issued }: Held): Credential {
    const credential = store.issue({ ...issued, thingName })
    log({ event: 'enroll.done', thingName, certificateId: issued.certificateId })
    return credential
  }

  return async () => {
    signal?.throwIfAborted()
    const before = store.pending()
    const pending = store.begin(options.key ?? options.keyAlgorithm)
    if (pending.generation !== before?.generation)
      log({ event: 'enroll.key', generation: pending.generation })
    const { privateKey: key } = pending
    if (held && (held.generation !== pending.generation || clock.now() >= held.until))
      held = undefined
    if (held?.asked && expected !== undefined) {
      const { certificateChain } = held.issued
      const parts = { thingName: expected, certificateChain, privateKey: key, endpoint }
      if (await opens(createCredential(parts), connection)) return keep(expected, held)
    }

    log({ event: 'enroll.request', host: endpoint.host })
    const session = await openClaimSession(claim, endpoint, connection)
    try {
      const create = await openQuestion(session, createTopic, circumstance)
      const register = await openQuestion(session, registerTopic(template.name), circumstance)
      if (!held) {
        const csr = await createCertificationRequest(key, deviceSerial)
        const answer = await create.ask({ certificateSigningRequest: csr })
        if (!answer.accepted)
          throw rejection(answer.payload, { operation: 'CreateCertificateFromCsr', secret: '' })
        const created = readCreated(answer.payload)
        const { certificateId, certificatePem, certificateOwnershipToken: token } = created
        const now = clock.now()
        const issued = judgeVended(
          { thingName: deviceSerial, certificateId, certificateChain: [certificatePem], endpoint },
          { deviceSerial, key, now },
        )
        const until = new Date(now.getTime() + ownershipMs)
        held = { generation: pending.generation, issued, token, until, asked: false }
      }
      const { token } = held
      held.asked = true
      const parameters = template.parameters ?? { SerialNumber: deviceSerial }
      const answer = await register.ask({ certificateOwnershipToken: token, parameters })
      held.asked = false
      if (!answer.accepted) {
        if (refusesToken(answer.payload)) held = undefined
        throw rejection(answer.payload, { operation: 'RegisterThing', secret: token })
      }
      const { thingName, deviceConfiguration } = readRegistered(answer.payload)
      if (expected !== undefined && thingName !== expected)
        throw new CertvendError(
          'ERR_CERTIFICATE_MISMATCH',
          `the template named the thing ${thingName}, not ${expected}`,
          { hint: 'correct the thing name that this device expects, or the template' },
        )
      if (Object.keys(deviceConfiguration).length > 0)
        options.onConfiguration?.(deviceConfiguration)
      return keep(thingName, held)
    } finally {
      await session.close()
    }
  }
}

/** Opens the one session that the claim is for. */
async function openClaimSession(
  claim: FleetClaim,
  endpoint: Endpoint,
  connection: SessionOptions & { readonly clock: Clock },
): Promise<Session> {
  const { deviceSerial: thingName, certificateChain, privateKey, expiresAt } = claim
  const now = connection.clock.now()
  const hint =
    "ask the installer's app for a fresh claim (a trusted user's lasts 5 minutes), or see that the claim certificate is ACTIVE and its policy allows iot:Connect for this client id"
  if (now >= expiresAt)
    throw new CertvendError(
      'ERR_CLAIM_REFUSED',
      `the provisioning claim ended on ${expiresAt.toISOString()}; this device's clock says ${now.toISOString()}`,
      { hint },
    )
  try {
    const parts = { thingName, certificateChain, privateKey, endpoint }
    return await connect(createCredential(parts), connection)
  } catch (cause) {
    if (isCertvendError(cause, 'ERR_CREDENTIAL_REFUSED'))
      throw new CertvendError('ERR_CLAIM_REFUSED', `the claim: ${cause.message}`, { cause, hint })
    if (isCertvendError(cause, 'ERR_SESSION_REFUSED'))
      throw new CertvendError('ERR_SESSION_REFUSED', `the claim: ${cause.message}`, { cause, hint })
    throw cause
  }
}

/** Whether the MQTT server lets this credential in. */
async function opens(credential: Credential, connection: SessionOptions): Promise<boolean> {
  try {
    const session = await connect(credential, connection)
    await session.close()
    return true
  } catch (error) {
    if (
      isCertvendError(error, 'ERR_SESSION_REFUSED') ||
      isCertvendError(error, 'ERR_CREDENTIAL_REFUSED')
    )
      return false
    throw error
  }
}
