/** A credential as a store would hold it, for what looks at its facts alone: there are no files. */
import { generateKeyPairSync, sign } from 'node:crypto'
import type { Credential } from '@certvend/client'

const key = generateKeyPairSync('ec', { namedCurve: 'P-256' })

/** Valid for a year from `issuedAt`, with a key that the device made. */
export function heldCredential(issuedAt: Date): Credential {
  const held: Partial<Credential> = {
    generation: 1,
    deviceSerial: 'GW-1',
    thingName: 'GW-1',
    certificateId: '0'.repeat(64),
    keyOrigin: 'device',
    privateKey: {
      publicKey: key.publicKey,
      sign: async (data, digest) => sign(digest, data, key.privateKey),
      toPem: () => key.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    },
    issuedAt,
    notBefore: issuedAt,
    notAfter: new Date(issuedAt.getTime() + 365 * 86_400_000),
    endpoint: { host: 'mqtt.example.com', port: 8883, trustAnchors: [] },
  }
  return held as Credential
}
