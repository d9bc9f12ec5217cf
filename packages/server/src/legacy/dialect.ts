/**
 * How one old vending machine was asked and how it answered. No I/O: a dialect reads what came and
 * writes what goes out; `vend.ts` decides in between.
 *
 * What a success looks like is kept to the letter, because devices in the field parse it. Refusals
 * keep the old texts too; their HTTP status tells the truth wherever an old client cannot see it.
 */
import { type ProblemCode, problems } from '@certvend/client/wire'

export type LegacyName =
  | 'awslabs-2018'
  | 'awslabs-2020'
  | 'iot-atlas'
  | 'gateway-2021'
  | 'express-2017'

/** A request, whichever door it came through. */
export interface LegacyRequest {
  readonly method: string
  readonly query: URLSearchParams
  readonly headers: Headers
  /** UTF-8; empty if there is none. */
  readonly body: string
}

/** Who asks, as far as the request says so. */
export interface Asked {
  readonly deviceSerial: string
  readonly token: string
}

export interface LegacyAnswer {
  readonly status: number
  readonly contentType: string
  readonly body: string
  readonly headers?: Readonly<Record<string, string>>
  /** What a function without proxy integration returns instead. */
  readonly raw?: unknown
}

/** A certificate with the key that was made for it. PEM, LF line ends. */
export interface Vended {
  readonly thingName: string
  /** SHA-256 of the DER, 64 lower-case hex digits. */
  readonly certificateId: string
  /** The shape of AWS IoT's, whoever issued it. */
  readonly certificateArn: string
  /** The end entity alone: no old client expects a chain. */
  readonly certificatePem: string
  readonly keyPair: MadeKey
  /** What the MQTT server is to be judged by. */
  readonly rootCa: string
  /** Host of the MQTT server. */
  readonly endpoint: string
}

export interface MadeKey {
  /** SubjectPublicKeyInfo. */
  readonly publicKey: string
  /** PKCS#1 (`BEGIN RSA PRIVATE KEY`), as AWS IoT makes them. */
  readonly privateKey: string
}

export interface LegacyDialect {
  readonly name: LegacyName
  /** The last segments of its URL's path; a stage or base path may stand before them. */
  readonly path: string
  /** The method that asks for a certificate. */
  readonly method: 'GET' | 'POST'
  /**
   * How many certificates one claim is given within a day, to a device that did not get the ones
   * before: 1 where many devices share a token, so that the first to come is the only one.
   */
  readonly certificates: number
  /** Whether a token may be the device's fleet's. */
  readonly fleet?: true
  /** Who asks; undefined if the request does not say. */
  read(request: LegacyRequest): Asked | undefined
  /** What serial and token are called in an event without proxy integration, if it had such. */
  readonly direct?: readonly [serial: string, token: string]
  accept(vended: Vended): LegacyAnswer
  /** `malformed-request` is what {@link read} could not read. */
  refuse(code: ProblemCode): LegacyAnswer
  /** The answer to any other method on its path. */
  turnAway(method: string, now: Date): LegacyAnswer
}

/**
 * The status that tells the truth about a refusal. 403 where RFC 9110 would have 401, which has to name
 * a scheme (section 15.5.2) that these protocols do not have.
 */
export const honest = (code: ProblemCode): number => (problems[code] === 401 ? 403 : problems[code])

/** A text that can name something: not empty, at most 512 characters. */
export const named = (value: unknown): string =>
  typeof value === 'string' && value.length <= 512 ? value : ''

/** Undefined without a serial. A missing token stays an empty one: it is judged, and never matches. */
export const askedBy = (deviceSerial: unknown, token: unknown): Asked | undefined =>
  named(deviceSerial) ? { deviceSerial: named(deviceSerial), token: named(token) } : undefined

/** The members of a JSON object in `text`; none if it is something else. */
export function members(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : {}
  } catch {
    return {}
  }
}

/** The one value of a query parameter; undefined if it is missing, or there are two to choose from. */
export function only(query: URLSearchParams, name: string): string | undefined {
  const values = query.getAll(name)
  return values.length === 1 ? values[0] : undefined
}

export const json = (status: number, value: unknown, indent?: string): LegacyAnswer => ({
  status,
  contentType: 'application/json',
  body: JSON.stringify(value, null, indent),
  raw: value,
})

/** What AWS IoT's CreateKeysAndCertificate returned, which two of the old machines handed on. */
export const createdKeys = (vended: Vended) => ({
  certificateArn: vended.certificateArn,
  certificateId: vended.certificateId,
  certificatePem: vended.certificatePem,
  keyPair: { PublicKey: vended.keyPair.publicKey, PrivateKey: vended.keyPair.privateKey },
})
