/**
 * A dialect: how one kind of vending machine is asked and how it answers. No I/O.
 *
 * A dialect knows bytes, not trust: what it reads is judged by `issued.ts` whatever the dialect, and
 * whether it may be asked again is decided by `unrepeatable.ts`. `docs/dialects.md` is made of this.
 */
import type { Claim } from '../claim.ts'
import { CertvendError, type ErrorCode, type Remedy } from '../errors.ts'
import { parseRetryAfter } from '../retry.ts'
import type { SendRequest, SendResponse } from '../send.ts'
import { quote } from '../verdict.ts'
import type { Endpoint } from '../wire.ts'
import type { DialectName } from './choice.ts'

/** What asking twice does, which steers every retry. */
export type Repeat =
  /** No certificate is destroyed by it, and an answer is always to be had. */
  | 'safe'
  /** Every accepted request destroys the certificate of the one before. */
  | 'replaces'
  /** One answer only; a lost one needs an operator. */
  | 'never'

export interface Ask {
  /** The vending server's URL. */
  readonly url: URL
  readonly claim: Claim
  /** PKCS#10 PEM for our key; empty where the vending machine makes the key. */
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
  /** PEM: PKCS#8 or PKCS#1, where the vending machine made the key. */
  readonly privateKey?: string
  readonly endpoint: Endpoint
}

export interface Reading {
  /** For messages. */
  readonly host: string
  readonly now: Date
  readonly deviceSerial: string
  /** The token: left out of every message, whatever the server echoes. */
  readonly secret: string
}

/** One thing that a vending machine says instead of a certificate. */
export interface Refusal {
  /** What it says, word for word: a text, or a code. */
  readonly said: string
  /** Only with this status, where the words alone could mean something else. */
  readonly status?: number
  /** When it says so. */
  readonly means: string
  readonly code: ErrorCode
  /** Default: the code's. */
  readonly remedy?: Remedy
  /** What a person does; `{serial}` stands for the device serial. Default: the code's. */
  readonly hint?: string
  /** What the request may have left on the other side. After `nothing` it may be repeated. */
  readonly leaves: 'nothing' | 'something'
}

export interface Dialect {
  readonly name: DialectName
  readonly repeat: Repeat
  /** Where the private key is made. */
  readonly keyOrigin: 'device' | 'server'
  readonly refusals: readonly Refusal[]
  /** What a person resets when an answer was lost, where that is needed; `{serial}` as in a hint. */
  readonly reset?: string
  /**
   * The one request that is sent for a certificate.
   *
   * @throws TypeError when the claim cannot be said in this dialect
   */
  request(ask: Ask): SendRequest
  /** The refusal that a response is, if it is a known one. */
  recognise(response: SendResponse): Refusal | undefined
  /** The content of a reply that is none; throws a CertvendError with the code and remedy that fit. */
  read(response: SendResponse, reading: Reading): Vended
}

export const addressed = (text: string, deviceSerial: string): string =>
  text.replaceAll('{serial}', deviceSerial)

/** What a known refusal is to the caller. */
export function refusalError(
  { said, code, remedy, hint }: Refusal,
  { headers, status }: SendResponse,
  { host, now, deviceSerial, secret }: Reading,
): CertvendError {
  const retryAt = parseRetryAfter(headers['retry-after'], now)
  return new CertvendError(code, `${host} answered ${status}: ${quote(said, secret)}`, {
    ...(remedy ? { remedy } : {}),
    ...(hint ? { hint: addressed(hint, deviceSerial) } : {}),
    ...(retryAt ? { retryAt } : {}),
  })
}
