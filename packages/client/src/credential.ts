/** A credential: private key, certificate chain and endpoint, indivisible. */
import type { FileKey } from './key.ts'
import type { Endpoint } from './wire.ts'

export interface Credential {
  /** Number of the generation in the store, counted from 1. */
  readonly generation: number
  readonly deviceSerial: string
  /** AWS IoT's thing name; also the MQTT client id. */
  readonly thingName: string
  /** SHA-256 of the end-entity certificate's DER, lower-case hex. */
  readonly certificateId: string
  readonly privateKey: FileKey
  /** Where the private key was made; `server` only by the vending machines of old. */
  readonly keyOrigin: 'device' | 'server'
  /** PEM, end entity first. */
  readonly certificateChain: string
  readonly notBefore: Date
  readonly notAfter: Date
  readonly endpoint: Endpoint
  readonly issuedAt: Date
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
  /** The earliest next attempt, when one was agreed. */
  readonly notBefore?: Date
}

/** A credential in the making: a key that was requested, or a whole successor to be proven. */
export type Pending =
  | {
      readonly state: 'requested'
      readonly generation: number
      readonly privateKey: FileKey
      readonly request?: RequestRecord
    }
  | { readonly state: 'issued'; readonly generation: number; readonly credential: Credential }
