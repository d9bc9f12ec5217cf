/**
 * Private keys, behind a border that a file and a hardware token both fill.
 *
 * A key signs and names its public half; nothing else is asked of it. Key material leaves a
 * {@link FileKey} only as PEM for the store and for TLS, never through inspection or JSON.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto'
import type { PinFile } from './pin-file.ts'

/** P-256 is the default: 3000 times cheaper to make than RSA-2048 and accepted everywhere. */
export type KeyAlgorithm = 'P-256' | 'P-384' | 'RSA-2048' | 'RSA-3072' | 'Ed25519'

/** Every {@link KeyAlgorithm}, the default first. */
export const keyAlgorithms: readonly KeyAlgorithm[] = [
  'P-256',
  'P-384',
  'RSA-2048',
  'RSA-3072',
  'Ed25519',
]

/** Hash that goes with a signature; `null` where the algorithm brings its own (Ed25519). */
export type Digest = 'sha256' | 'sha384' | null

/** What enrollment needs of a key, wherever it lives. */
export interface PrivateKey {
  readonly publicKey: KeyObject
  /** Signs `data`: ECDSA as DER, RSA as PKCS#1 v1.5, Ed25519 pure. */
  sign(data: Uint8Array, digest: Digest): Promise<Uint8Array>
}

/** A credential's key: in the store itself, or in a token of which the store holds the name. */
export interface StoredKey extends PrivateKey {
  /**
   * PKCS#8 PEM: for the store and the TLS context only.
   *
   * @throws TypeError for a key in a token, naming what can use it.
   */
  toPem(): string
}

/** A key that lies in the credential store. */
export type FileKey = StoredKey

/** A key in a PKCS#11 token. */
export interface Pkcs11Key extends StoredKey {
  /** RFC 7512, with the module and the file that holds the PIN; never a PIN. */
  readonly uri: string
  readonly pin: PinFile
}

/** Whether the key lies in a token, so that nobody has its bytes. */
export const isPkcs11Key = (key: StoredKey): key is Pkcs11Key => 'uri' in key

function fileKey(key: KeyObject): FileKey {
  return {
    publicKey: createPublicKey(key),
    sign: async (data, digest) => sign(digest, data, key),
    toPem: () => key.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}

/** Makes a key. RSA takes about 0.2 s on a desktop and seconds on a small board. */
export function generateKey(algorithm: KeyAlgorithm = 'P-256'): FileKey {
  switch (algorithm) {
    case 'P-256':
    case 'P-384':
      return fileKey(generateKeyPairSync('ec', { namedCurve: algorithm }).privateKey)
    case 'RSA-2048':
      return fileKey(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey)
    case 'RSA-3072':
      return fileKey(generateKeyPairSync('rsa', { modulusLength: 3072 }).privateKey)
    case 'Ed25519':
      return fileKey(generateKeyPairSync('ed25519').privateKey)
    default:
      throw new RangeError(`keyAlgorithm must be one of ${keyAlgorithms.join(', ')}`)
  }
}

/**
 * Reads a PEM private key (PKCS#8, PKCS#1 or SEC 1).
 *
 * @throws TypeError without the text or OpenSSL's words, which may quote it.
 */
export function readKey(pem: string): FileKey {
  try {
    return fileKey(createPrivateKey(pem))
  } catch {
    throw new TypeError('not an unencrypted PEM private key')
  }
}
