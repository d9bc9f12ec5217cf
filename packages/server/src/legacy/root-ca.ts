/**
 * The `RootCA` that the old protocols hand out beside the certificate: what the MQTT server is judged
 * by. Taken from Node's own list or from the endpoint's anchors; never fetched.
 */
import { X509Certificate } from 'node:crypto'
import { rootCertificates } from 'node:tls'
import type { Endpoint } from '@certvend/client/wire'

/** SHA-256 of Amazon Root CA 1, which IoT Core's Data-ATS endpoints chain to: https://www.amazontrust.com/repository/ */
const amazonRootCa1 =
  '8E:CD:E6:88:4F:3D:87:B1:12:5B:A3:1A:C3:FC:B1:3D:70:16:DE:7F:57:CC:90:4F:E1:CB:97:C6:AE:98:19:6E'

const isIotCore = (host: string): boolean =>
  /^[^.]+-ats\.iot\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$/i.test(host)

/**
 * PEM, LF line ends: Amazon Root CA 1 for AWS IoT Core, else the endpoint's own anchors.
 *
 * @throws Error if this Node.js was built without Amazon Root CA 1
 */
export function rootCaOf({ host, trustAnchors }: Endpoint): string {
  const anchors = isIotCore(host)
    ? rootCertificates.filter((pem) => new X509Certificate(pem).fingerprint256 === amazonRootCa1)
    : trustAnchors
  if (anchors.length === 0) throw new Error('this Node.js does not know Amazon Root CA 1')
  return anchors.map(unixPem).join('')
}

/** With LF at every line's end, the last one too, as AWS writes its PEM. */
export const unixPem = (pem: string): string => `${pem.replaceAll(/\r\n?/g, '\n').trimEnd()}\n`
