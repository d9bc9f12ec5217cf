/** The vending machine as a deployed function has it: DynamoDB, AWS IoT, and the old URLs that were asked for. */
import { type Endpoint, paths } from '@certvend/client/wire'
import { second } from '../clock.ts'
import { createHandler } from '../handler.ts'
import { createAwsIotIssuer } from '../issuer/aws-iot.ts'
import { createOwnCaIssuer } from '../issuer/aws-iot-own-ca.ts'
import { openCa } from '../issuer/ca-key.ts'
import { amazonTrustAnchors, createIotEndpoint } from '../issuer/iot-endpoint.ts'
import type { Issuer } from '../issuer/issuer.ts'
import { createLambda, type Lambda } from '../lambda.ts'
import { createLegacyFront, withLegacy } from '../legacy/front.ts'
import type { Parts } from './parts.ts'

/** Asks AWS for the CA and for the endpoint, if the settings do not have them. */
export async function openVending(parts: Parts): Promise<Lambda> {
  const { settings, registry, clock, log } = parts
  const [issuer, endpoint] = await Promise.all([openIssuer(parts), openEndpoint(parts)])
  const options = { registry, issuer, endpoint, clock, log }
  const handler = createHandler(options)
  const own = { paths: [...Object.values(paths), '/healthz'] }
  const { dialects: routes, shadow } = settings
  if (routes.length === 0) return createLambda(handler, own)
  const shadows = shadow ? await import('../legacy/iot-shadows.ts') : undefined
  const front = createLegacyFront({
    ...options,
    routes,
    ...(shadows && { shadows: shadows.openShadows() }),
  })
  const answerDirect = (fields: Readonly<Record<string, unknown>>) => front.answerDirect(fields)
  return createLambda(withLegacy(front, handler), { ...own, answerDirect })
}

async function openIssuer({ settings, iot, gate }: Parts): Promise<Issuer> {
  const { issuer, policyName, ca, caCertificateId, validityMs } = settings
  if (ca === undefined) return createAwsIotIssuer({ iot, gate, policyName })
  const certificate = async (): Promise<string> => {
    const signal = AbortSignal.timeout(10 * second)
    const input = { certificateId: caCertificateId }
    const { certificateDescription } = await iot.call('DescribeCACertificate', input, { signal })
    return certificateDescription?.certificatePem ?? ''
  }
  return createOwnCaIssuer({
    iot,
    gate,
    policyName,
    validityMs,
    ca: await openCa(ca, certificate),
    registration: issuer === 'aws-iot-jitr' ? 'just-in-time' : 'without-ca',
  })
}

async function openEndpoint({ settings, iot }: Parts): Promise<Endpoint> {
  const { mqttHost, mqttPort: port, mqttAlpn: alpn, mqttAnchors } = settings
  const where = { port, ...(alpn !== undefined && { alpn }) }
  return mqttHost === undefined
    ? createIotEndpoint(iot, where)()
    : { host: mqttHost, ...where, trustAnchors: [...(mqttAnchors ?? amazonTrustAnchors())] }
}
