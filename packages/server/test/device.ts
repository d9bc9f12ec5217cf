/** A device as the vending machine sees it: a key pair and the requests it signs. */
import { KeyObject, webcrypto } from 'node:crypto'
import { type Extension, Pkcs10CertificateRequestGenerator } from '../src/x509.ts'

const algorithms = {
  'P-256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  'P-256 with SHA-1': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-1' },
  'P-384': { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' },
  'P-521': { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' },
  'RSA-1024': rsa(1024),
  'RSA-2048': rsa(2048),
  'RSA-3072': rsa(3072),
  'RSA-2048 with exponent 3': { ...rsa(2048), publicExponent: new Uint8Array([3]) },
  'RSA-2048 with SHA-1': { ...rsa(2048), hash: 'SHA-1' },
  Ed25519: { name: 'Ed25519' },
}

function rsa(modulusLength: number) {
  return {
    name: 'RSASSA-PKCS1-v1_5',
    modulusLength,
    publicExponent: new Uint8Array([1, 0, 1]),
    hash: 'SHA-256',
  }
}

export type KeyName = keyof typeof algorithms

export interface DeviceKey {
  readonly privateKeyPem: string
  /** A certification request, PEM, for `subject` (a CN, or names of its own). */
  csr(
    subject: string | readonly Record<string, string[]>[],
    extensions?: readonly Extension[],
  ): Promise<string>
}

export async function makeDeviceKey(name: KeyName = 'P-256'): Promise<DeviceKey> {
  const algorithm = algorithms[name]
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair
  return {
    privateKeyPem: KeyObject.from(keys.privateKey)
      .export({ type: 'pkcs8', format: 'pem' })
      .toString(),
    async csr(subject, extensions = []) {
      const request = await Pkcs10CertificateRequestGenerator.create({
        name: typeof subject === 'string' ? [{ CN: [subject] }] : [...subject],
        keys,
        signingAlgorithm: algorithm,
        extensions: [...extensions],
      })
      return `${request.toString('pem')}\n`
    },
  }
}
