/** Where devices of an AWS account connect: its own MQTT host, and who vouches for that. */
import { X509Certificate } from 'node:crypto'
import { rootCertificates } from 'node:tls'
import type { Endpoint } from '@certvend/client/wire'
import { second } from '../clock.ts'
import type { Iot } from './iot-client.ts'

/**
 * SHA-256 of the DER, as https://www.amazontrust.com/repository/ has it: Amazon Root CA 1 (RSA) and 3
 * (ECC). Amazon holds 2 and 4 in reserve. Recognised in Node's own list, so that nothing is fetched.
 *
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/server-authentication.html
 */
const amazonRoots = new Set([
  '8E:CD:E6:88:4F:3D:87:B1:12:5B:A3:1A:C3:FC:B1:3D:70:16:DE:7F:57:CC:90:4F:E1:CB:97:C6:AE:98:19:6E',
  '18:CE:6C:FE:7B:F1:4E:60:B2:E3:47:B8:DF:E8:68:CB:31:D0:2E:BB:3A:DA:27:15:69:F5:03:43:B4:6D:B3:A4',
])

/** Amazon Root CA 1 and 3, one PEM each. */
export const amazonTrustAnchors = (): readonly string[] =>
  rootCertificates
    .filter((root) => amazonRoots.has(new X509Certificate(root).fingerprint256))
    .map((root) => `${root.trim()}\n`)

export interface EndpointSettings {
  /** 8883 by default. */
  readonly port?: number
  /** Default: `x-amzn-mqtt-ca` on port 443, where IoT Core listens for several protocols. */
  readonly alpn?: string
  /** Default: Amazon Root CA 1 and 3. */
  readonly trustAnchors?: readonly string[]
}

/** Asks AWS for the account's host (`iot:Data-ATS`) once, when it is first needed; a failure is not kept. */
export function createIotEndpoint(
  iot: Iot,
  settings: EndpointSettings = {},
): () => Promise<Endpoint> {
  const { port = 8883, trustAnchors = amazonTrustAnchors() } = settings
  const alpn = settings.alpn ?? (port === 443 ? 'x-amzn-mqtt-ca' : undefined)
  let known: Promise<Endpoint> | undefined
  const ask = async (): Promise<Endpoint> => {
    const signal = AbortSignal.timeout(10 * second)
    const input = { endpointType: 'iot:Data-ATS' }
    const { endpointAddress } = await iot.call('DescribeEndpoint', input, { signal })
    if (!endpointAddress) throw new Error('AWS named no MQTT endpoint')
    // Emulators put their port behind the name.
    const host = endpointAddress.replace(/:\d+$/, '')
    return { host, port, ...(alpn !== undefined && { alpn }), trustAnchors: [...trustAnchors] }
  }
  return () => {
    known ??= ask().catch((error: unknown) => {
      known = undefined
      throw error
    })
    return known
  }
}
