/**
 * Certvend's own protocol, version 1: paths, media types, shapes and judges. No I/O.
 *
 * JSON over HTTPS with the operations and status semantics of EST (RFC 7030) and problem documents
 * (RFC 9457). Client and server share this file; see `docs/protocol.md`.
 */
import * as v from 'valibot'

/** Request targets, relative to the vending server's URL. */
export const paths = {
  /** POST {@link EnrollRequest} with `Authorization: Bearer <token>` (RFC 7030 section 4.2). */
  enroll: '/v1/enroll',
  /** POST {@link EnrollRequest}, authenticated by the present credential (RFC 7030 section 4.2.2). */
  reenroll: '/v1/reenroll',
  /** POST {@link RetireRequest}, authenticated by the certificate that is given up. */
  retire: '/v1/retire',
  /** GET {@link CaCertificates} (RFC 7030 section 4.1); anchors, never pins. */
  cacerts: '/v1/cacerts',
} as const

/** The URL of one of {@link paths} below the vending server's, whose own path is a prefix. */
export function resolve(server: URL, path: string): URL {
  const url = new URL(server)
  // Set, not parsed: a path of the server's that begins with two slashes is no host.
  url.pathname = server.pathname.replace(/\/+$/, '') + path
  return url
}

/** Of our own protocol: JSON, and problem documents (RFC 9457). */
export const mediaTypes = { json: 'application/json', problem: 'application/problem+json' } as const

/** Largest request body a server reads and largest reply a client reads, in bytes. */
export const limits: { readonly requestBytes: number; readonly replyBytes: number } = {
  requestBytes: 16 * 1024,
  replyBytes: 256 * 1024,
}

/**
 * A device serial: 1 to 64 characters (RFC 5280 ub-common-name) of letters, digits, `:`, `_`, `-`
 * and `.`, starting with a letter or digit. Nothing that means something to a path, a topic or a shell.
 */
const deviceSerialPattern = /^[A-Za-z0-9][A-Za-z0-9:._-]{0,63}$/
/** AWS IoT's rule for thing names: `[a-zA-Z0-9:_-]{1,128}`. */
const thingNamePattern = /^[A-Za-z0-9:_-]{1,128}$/
/** A bearer token: RFC 6750's b64token, 8 to 512 characters. */
const tokenPattern = /^[A-Za-z0-9\-._~+/]{8,511}=*$/

/** 1 to 64 letters, digits and `.:_-`, the first a letter or a digit. */
export const isDeviceSerial = (value: unknown): value is string =>
  typeof value === 'string' && deviceSerialPattern.test(value)
/** AWS IoT's rule: 1 to 128 letters, digits and `:_-`. */
export const isThingName = (value: unknown): value is string =>
  typeof value === 'string' && thingNamePattern.test(value)
/** RFC 6750's b64token of 8 to 512 characters. */
export const isToken = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= 512 && tokenPattern.test(value)

const pem = (label: string) =>
  v.pipe(
    v.string(),
    v.check(
      (text) =>
        text.startsWith(`-----BEGIN ${label}-----`) &&
        text.trimEnd().endsWith(`-----END ${label}-----`),
      `not one PEM ${label}`,
    ),
    v.check((text) => text.split('-----BEGIN ').length === 2, `more than one PEM block`),
  )

const certificates = v.pipe(v.array(pem('CERTIFICATE')), v.minLength(1), v.maxLength(10))

const host = v.pipe(v.string(), v.regex(/^[A-Za-z0-9.:-]{1,253}$/, 'not a host name'))

const Endpoint = v.object({
  /** Host name or IP address of the MQTT server. */
  host,
  /** TCP port, 1 to 65535. */
  port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
  /** ALPN protocol to ask for, such as `x-amzn-mqtt-ca` on port 443. */
  alpn: v.optional(v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,64}$/))),
  /** The only CAs that may vouch for the MQTT server, one PEM each. */
  trustAnchors: certificates,
})

/** Whether `value` is the address part of an {@link Endpoint}. */
export const isEndpointAddress = (value: unknown): boolean =>
  v.is(v.omit(Endpoint, ['trustAnchors']), value)

const EnrollRequestSchema = v.object({
  deviceSerial: v.pipe(v.string(), v.regex(deviceSerialPattern, 'not a device serial')),
  /** PKCS#10, PEM (RFC 2986). */
  csr: v.pipe(pem('CERTIFICATE REQUEST'), v.maxLength(12 * 1024)),
})

const EnrollReplySchema = v.object({
  deviceSerial: v.pipe(v.string(), v.regex(deviceSerialPattern, 'not a device serial')),
  thingName: v.pipe(v.string(), v.regex(thingNamePattern, 'not a thing name')),
  /** SHA-256 of the end-entity certificate's DER, lower-case hex: AWS IoT's certificateId. */
  certificateId: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'not 64 hex digits')),
  /** End entity first, one PEM each; a lone end entity is normal. */
  certificateChain: certificates,
  endpoint: Endpoint,
})

const RetireRequestSchema = v.object({
  deviceSerial: v.pipe(v.string(), v.regex(deviceSerialPattern, 'not a device serial')),
})

const RetiredSchema = v.object({
  /** What opens no session any more. */
  certificateId: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'not 64 hex digits')),
})

const CaCertificatesSchema = v.object({
  /** The CA that issues device certificates, one PEM each; none where AWS IoT's own signs, which it names to nobody. */
  deviceCa: v.pipe(v.array(pem('CERTIFICATE')), v.maxLength(10)),
  /** The MQTT server's anchors, one PEM each. */
  trustAnchors: certificates,
})

const ProblemSchema = v.object({
  type: v.string(),
  title: v.optional(v.string()),
  status: v.optional(v.number()),
  detail: v.optional(v.string()),
})

/** The MQTT server: host, port, ALPN name if it wants one, and the CAs (PEM) that vouch for it. */
export type Endpoint = v.InferOutput<typeof Endpoint>
/** Body of `POST /v1/enroll` and `/v1/reenroll`: device serial, certification request (PEM). */
export type EnrollRequest = v.InferOutput<typeof EnrollRequestSchema>
/** Their success: the chain (PEM, end entity first), and where it opens sessions. */
export type EnrollReply = v.InferOutput<typeof EnrollReplySchema>
/** Body of `POST /v1/retire`. */
export type RetireRequest = v.InferOutput<typeof RetireRequestSchema>
/** Its success. */
export type Retired = v.InferOutput<typeof RetiredSchema>
/** Success of `GET /v1/cacerts`, PEM: the device CA, the MQTT server's anchors; never pins. */
export type CaCertificates = v.InferOutput<typeof CaCertificatesSchema>
/** A problem document (RFC 9457). */
export type Problem = v.InferOutput<typeof ProblemSchema>

/** Every problem that a vending server reports, with its status. `type` is {@link problemType}. */
export const problems = {
  'malformed-request': 400,
  'csr-refused': 400,
  'claim-refused': 401,
  'certificate-refused': 401,
  'device-disabled': 403,
  'certificate-revoked': 403,
  'not-found': 404,
  'method-not-allowed': 405,
  'claim-spent': 409,
  'claim-open': 409,
  'key-in-use': 409,
  'key-revoked': 409,
  'request-too-large': 413,
  'unsupported-media-type': 415,
  'too-many-attempts': 429,
  internal: 500,
  busy: 503,
} as const satisfies Record<string, number>
/** A code of {@link problems}: the end of the `type` of a problem document. */
export type ProblemCode = keyof typeof problems

const problemPrefix = 'urn:certvend:problem:'
/** The `type` member for a code: a URN that ends in the code. */
export const problemType = (code: ProblemCode): string => problemPrefix + code
/** The code in a problem's `type`, if it is one of ours. */
export function problemCode(type: string): ProblemCode | undefined {
  const code = type.startsWith(problemPrefix) ? type.slice(problemPrefix.length) : ''
  return Object.hasOwn(problems, code) ? (code as ProblemCode) : undefined
}

/** A value, or one sentence that says what is wrong and where; never the offending content itself. */
export type Parsed<T> = { ok: true; value: T } | { ok: false; reason: string }

function parse<T>(schema: v.GenericSchema<unknown, T>, body: Uint8Array): Parsed<T> {
  let json: unknown
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    return { ok: false, reason: 'not JSON' }
  }
  const result = v.safeParse(schema, json)
  if (result.success) return { ok: true, value: result.output }
  const issue = result.issues[0]
  const where = v.getDotPath(issue)
  const expected =
    issue.type === 'check' || issue.type === 'regex'
      ? issue.message
      : `expected ${issue.expected ?? 'another value'}`
  return { ok: false, reason: where ? `${where}: ${expected}` : expected }
}

export const parseEnrollRequest = (body: Uint8Array): Parsed<EnrollRequest> =>
  parse(EnrollRequestSchema, body)
export const parseEnrollReply = (body: Uint8Array): Parsed<EnrollReply> =>
  parse(EnrollReplySchema, body)
export const parseRetireRequest = (body: Uint8Array): Parsed<RetireRequest> =>
  parse(RetireRequestSchema, body)
export const parseRetired = (body: Uint8Array): Parsed<Retired> => parse(RetiredSchema, body)
export const parseCaCertificates = (body: Uint8Array): Parsed<CaCertificates> =>
  parse(CaCertificatesSchema, body)
export const parseProblem = (body: Uint8Array): Parsed<Problem> => parse(ProblemSchema, body)
