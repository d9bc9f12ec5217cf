/** A device as tests need one: a credential made by hand, for a broker that a test made. */
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import type { Credential } from '@certvend/client'
import { type Certified, certificateIdOf } from './pki.ts'

export function credentialFor(
  device: Certified,
  endpoint: Credential['endpoint'],
  more: Partial<Credential> = {},
): Credential {
  const key = createPrivateKey(device.privateKey)
  const { validFrom, validTo } = new X509Certificate(device.certificate)
  return {
    generation: 1,
    deviceSerial: device.name,
    thingName: device.name,
    certificateId: certificateIdOf(device.certificate),
    privateKey: {
      publicKey: createPublicKey(key),
      sign: () => Promise.reject(new Error('TLS signs by itself')),
      toPem: () => device.privateKey,
    },
    keyOrigin: 'device',
    certificateChain: device.certificate,
    notBefore: new Date(validFrom),
    notAfter: new Date(validTo),
    issuedAt: new Date(validFrom),
    endpoint,
    ...more,
  }
}
