/**
 * AWS's side of Fleet Provisioning, played by a session of ours that answers on the topics of the
 * API, and behaves as it is told to.
 */
import { type Session, systemClock } from '@certvend/client'
import type { Door } from './iot-door.ts'
import { type Certified, certificateIdOf, certifyRequest } from './pki.ts'

export type Operation = 'create' | 'register'
/** Honestly; not at all; not at all after the deed; by cutting the line after it; by repeating the token; or so. */
export type Manner =
  | 'honest'
  | 'silent'
  | 'lost'
  | 'cut'
  | 'echo'
  | { readonly accepted: unknown }
  | { readonly rejected: unknown }

export interface Asked {
  readonly operation: Operation
  readonly request: Record<string, unknown>
}

export interface Responder {
  /** What was asked, oldest first. */
  readonly asked: readonly Asked[]
  /** How each question is answered in turn; honestly when none is left. */
  manners: Manner[]
  /** Where certificates become known; forgets everything else. */
  restart(door: Door): void
}

const createTopic = '$aws/certificates/create-from-csr/json'

export const tokenRefusal = {
  statusCode: 400,
  errorCode: 'InvalidCertificateOwnershipToken',
  errorMessage: 'Certificate ownership token is invalid.',
}

/** Answers on `cloud` for the template `name`, whose things are called `gw-<SerialNumber>`. */
export async function openResponder(
  cloud: Session,
  name: string,
  iotCa: Certified,
): Promise<Responder> {
  let door: Door | undefined
  let asked: Asked[] = []
  /** Ownership tokens that serve, and the certificate of each. */
  const tokens = new Map<string, string>()

  async function answer({ operation, request }: Asked): Promise<object> {
    if (operation === 'create') {
      const certificatePem = await certifyRequest(
        request.certificateSigningRequest as string,
        'AWS IoT Certificate',
        { issuer: iotCa },
      )
      const certificateId = certificateIdOf(certificatePem)
      door?.certificates.set(certificateId, { status: 'PENDING_ACTIVATION', policyFrom: undefined })
      const certificateOwnershipToken = `token-${tokens.size}-${certificateId}`
      tokens.set(certificateOwnershipToken, certificateId)
      return { accepted: { certificateId, certificatePem, certificateOwnershipToken } }
    }
    const token = request.certificateOwnershipToken as string
    const certificateId = tokens.get(token)
    if (certificateId === undefined) return { rejected: tokenRefusal }
    tokens.delete(token)
    door?.certificates.set(certificateId, { status: 'ACTIVE', policyFrom: systemClock.now() })
    const { SerialNumber } = request.parameters as Record<string, string>
    return { accepted: { thingName: `gw-${SerialNumber}`, deviceConfiguration: { site: 'north' } } }
  }

  async function respond(operation: Operation, topic: string): Promise<void> {
    const questions = await cloud.subscribe(topic)
    void (async () => {
      for await (const { payload } of questions) {
        const question = { operation, request: JSON.parse(Buffer.from(payload).toString()) }
        asked.push(question)
        const manner = responder.manners.shift() ?? 'honest'
        if (manner === 'silent') continue
        const reply = await (manner === 'echo'
          ? { rejected: { errorMessage: question.request.certificateOwnershipToken } }
          : typeof manner === 'string'
            ? answer(question)
            : manner)
        if (manner === 'cut') door?.dropConnections()
        if (manner === 'lost' || manner === 'cut') continue
        for (const [suffix, content] of Object.entries(reply))
          await cloud.publish(
            `${topic}/${suffix}`,
            typeof content === 'string' ? content : JSON.stringify(content),
          )
      }
    })()
  }

  const responder: Responder = {
    get asked() {
      return asked
    },
    manners: [],
    restart(at) {
      door = at
      asked = []
      responder.manners = []
      tokens.clear()
    },
  }
  await respond('create', createTopic)
  await respond('register', `$aws/provisioning-templates/${name}/provision/json`)
  return responder
}
