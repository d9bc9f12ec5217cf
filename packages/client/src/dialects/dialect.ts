/**
 * A dialect: how one kind of vending machine is asked and how it answers. No I/O.
 *
 * A dialect knows bytes, not trust: what it reads is judged by `issued.ts` whatever the dialect.
 */
import type { Claim } from '../claim.ts'
import type { SendRequest, SendResponse } from '../send.ts'
import type { Endpoint } from '../wire.ts'

/** What asking twice does, which steers every retry. */
export type Repeat =
  /** The same request gets the same answer. */
  | 'safe'
  /** Every accepted request destroys the certificate of the one before. */
  | 'replaces'
  /** One answer only; a lost one needs an operator. */
  | 'never'

export interface Ask {
  /** The vending server's URL. */
  readonly url: URL
  readonly claim: Claim
  /** PKCS#10 PEM for our key; unused where the vending machine makes the key. */
  readonly csr: string
}

/** What a reply holds, in one shape; nothing of it is trusted yet. */
export interface Vended {
  readonly deviceSerial?: string
  readonly thingName: string
  /** SHA-256 of the DER, lower-case hex, where the dialect gives it. */
  readonly certificateId?: string
  /** One PEM each, end entity first. */
  readonly certificateChain: readonly string[]
  readonly endpoint: Endpoint
}

export interface Reading {
  /** For messages. */
  readonly host: string
  readonly now: Date
  /** The token: left out of every message, whatever the server echoes. */
  readonly secret: string
}

export interface Dialect {
  readonly name: string
  readonly repeat: Repeat
  /** The one request that is sent for a certificate. */
  request(ask: Ask): SendRequest
  /** The reply's content; throws a CertvendError with the code and remedy that fit. */
  read(response: SendResponse, reading: Reading): Vended
}
