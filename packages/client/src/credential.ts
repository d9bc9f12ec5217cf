/** A credential: private key, certificate chain and endpoint, indivisible. */
import { carries, certificateId, notAfter, notBefore, readCertificates } from './certificate.ts'
import { readKey, type StoredKey } from './key.ts'
import type { VendedBy } from './vending-server.ts'
import type { Endpoint } from './wire.ts'

/** Private key, certificate chain and endpoint: what a device opens sessions with, indivisible. */
export interface Credential {
  /** Number of the generation in the store, counted from 1; 0 for one that lies in none. */
  readonly generation: number
  readonly deviceSerial: string
  /** AWS IoT's thing name; also the MQTT client id. */
  readonly thingName: string
  /** SHA-256 of the end-entity certificate's DER, lower-case hex. */
  readonly certificateId: string
  readonly privateKey: StoredKey
  /** Where the private key was made; `server`: elsewhere, by a vending machine of old or in a factory. */
  readonly keyOrigin: 'device' | 'server'
  /** Where it came from; absent when it was made by other means, or by an older release. */
  readonly vendedBy?: VendedBy
  /** PEM, end entity first. */
  readonly certificateChain: string
  readonly notBefore: Date
  readonly notAfter: Date
  readonly endpoint: Endpoint
  readonly issuedAt: Date
}

/** A certificate and its key as PEM, made elsewhere. */
export interface CredentialParts {
  /** The thing name, and so the MQTT client id. */
  readonly thingName: string
  /** PEM, end entity first; with its CA after it where the MQTT server needs that. */
  readonly certificateChain: string
  /** PEM: PKCS#8, PKCS#1 or SEC 1, not encrypted; or a key in a token, by `openPkcs11Key`. */
  readonly privateKey: string | StoredKey
  readonly endpoint: Endpoint
  /** Default: the thing name. */
  readonly deviceSerial?: string
}

/**
 * Makes a credential of what a factory, or the AWS console, has put on a device. It is in no store.
 *
 * @throws TypeError when a part cannot be read or the key is another certificate's; the message
 *   never holds the key.
 */
export function createCredential({
  thingName,
  certificateChain,
  privateKey,
  endpoint,
  deviceSerial = thingName,
}: CredentialParts): Credential {
  const chain = readCertificates(certificateChain)
  const endEntity = chain[0]!
  const key = typeof privateKey === 'string' ? readKey(privateKey) : privateKey
  if (!carries(endEntity, key.publicKey))
    throw new TypeError('the private key is not the one of the first certificate')
  return {
    generation: 0,
    deviceSerial,
    thingName,
    certificateId: certificateId(endEntity),
    privateKey: key,
    keyOrigin: 'server',
    certificateChain: chain.map(String).join(''),
    notBefore: notBefore(endEntity),
    notAfter: notAfter(endEntity),
    endpoint,
    issuedAt: notBefore(endEntity),
  }
}

/** What a vending server's reply adds to a key, judged. */
export type Issued = Omit<Credential, 'generation' | 'privateKey' | 'notBefore' | 'notAfter'>

/** That a request was sent with this generation's key; secret-free. */
export interface RequestRecord {
  readonly dialect: string
  /** SHA-256 of the vending URL, hex. */
  readonly urlHash: string
  readonly sentAt: Date
  readonly attempts: number
  /** What came of it is not known: it may have issued, and must not be repeated just so. */
  readonly unanswered?: boolean
  /** The earliest next attempt, when one was agreed. */
  readonly notBefore?: Date
}

/** A credential in the making: a key that was requested, or a whole successor to be proven. */
export type Pending =
  | {
      readonly state: 'requested'
      readonly generation: number
      readonly privateKey: StoredKey
      readonly request?: RequestRecord
    }
  | { readonly state: 'issued'; readonly generation: number; readonly credential: Credential }
