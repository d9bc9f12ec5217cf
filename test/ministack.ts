/** MiniStack's IoT, as `npm run test:aws` started it: where it is, and how a thing is made there. */
import { randomUUID } from 'node:crypto'

/** Of the control plane; absent outside of `npm run test:aws`. */
export const url: string | undefined = process.env.MINISTACK_URL
/** Of the mutual-TLS broker. */
export const address = `localhost:${process.env.MINISTACK_MQTT_PORT}`

/** PEM of what vouches for the broker. */
export const fetchAnchors = async (): Promise<string> =>
  (await fetch(`${url}/_ministack/iot/ca.pem`)).text()

/** Calls the IoT control plane; MiniStack reads the region from the signature and does not check it. */
export async function aws(
  method: string,
  path: string,
  body?: unknown,
): Promise<Record<string, unknown>> {
  const reply = await fetch(`${url}${path}`, {
    method,
    headers: {
      authorization:
        'AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/iot/aws4_request, SignedHeaders=host, Signature=0',
      'content-type': 'application/json',
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await reply.text()
  if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${text}`)
  return text ? JSON.parse(text) : {}
}

export interface Thing {
  readonly thingName: string
  readonly certificateId: string
  readonly certificatePem: string
  readonly privateKey: string
}

/** CreateThing, CreateKeysAndCertificate, AttachThingPrincipal. */
export async function makeThing(thingName = `thing-${randomUUID()}`): Promise<Thing> {
  await aws('POST', `/things/${thingName}`, {})
  const made = await aws('POST', '/keys-and-certificate?setAsActive=true')
  const { PrivateKey } = made.keyPair as Record<string, string>
  return {
    thingName,
    certificateId: made.certificateId as string,
    certificatePem: made.certificatePem as string,
    privateKey: PrivateKey as string,
  }
}
