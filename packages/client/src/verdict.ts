/**
 * What a vending server's response means in our own protocol: the value, or a typed error.
 *
 * Pure. Status and problem code decide together; anything that is not our protocol (a proxy's page,
 * a captive portal) is `ERR_REPLY_MALFORMED` and says what it looked like.
 */
import { CertvendError, type ErrorCode } from './errors.ts'
import { parseRetryAfter } from './retry.ts'
import type { SendResponse } from './send.ts'
import { mediaTypes, type Parsed, type ProblemCode, parseProblem, problemCode } from './wire.ts'

const meaning: Readonly<Record<ProblemCode, ErrorCode>> = {
  'malformed-request': 'ERR_REQUEST_REFUSED',
  'csr-refused': 'ERR_REQUEST_REFUSED',
  'claim-refused': 'ERR_CLAIM_REFUSED',
  'certificate-refused': 'ERR_CREDENTIAL_REFUSED',
  'device-disabled': 'ERR_CLAIM_REFUSED',
  'certificate-revoked': 'ERR_CLAIM_REFUSED',
  'not-found': 'ERR_REQUEST_REFUSED',
  'method-not-allowed': 'ERR_REQUEST_REFUSED',
  'claim-spent': 'ERR_CLAIM_SPENT',
  'claim-open': 'ERR_REQUEST_REFUSED',
  'key-in-use': 'ERR_KEY_REFUSED',
  'key-revoked': 'ERR_KEY_REFUSED',
  'request-too-large': 'ERR_REQUEST_REFUSED',
  'unsupported-media-type': 'ERR_REQUEST_REFUSED',
  'too-many-attempts': 'ERR_SERVER_BUSY',
  internal: 'ERR_SERVER_BUSY',
  busy: 'ERR_SERVER_BUSY',
}

export const mediaType = (response: SendResponse): string =>
  (response.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''

/** Whether a word is `secret`, as it is or in the dress of a header, a URL, JSON or a dump. */
const holds = (word: string, secret: string): boolean =>
  [
    word,
    word.replaceAll('\\', ''),
    word.replace(/(?:%|\\x|\\u00)([0-9a-f]{2})/gi, (_, hex) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    ),
    Buffer.from(word, 'base64').toString('latin1'),
    Buffer.from(word, 'hex').toString('latin1'),
  ].some((text) => text.includes(secret))

/** Printable ASCII of a server's own words, capped, without the secret that it may echo. */
export const quote = (text: string, secret?: string): string =>
  (secret
    ? text.replace(/[^\s"'<>(),;:{}]+/g, (word) => (holds(word, secret) ? '[redacted]' : word))
    : text
  )
    .replace(/[^\x20-\x7e]+/g, ' ')
    .slice(0, 200)

const leadsTo = (location: string | undefined, secret?: string): string =>
  location && URL.canParse(location) ? ` to ${quote(new URL(location).host, secret)}` : ''

const webPage =
  'a web page of a reverse proxy, a load balancer or another site: check the vending URL with its path, and what stands before the vending server'

/**
 * Judges a response.
 *
 * @throws {CertvendError} `ERR_DEFERRED`, `ERR_SERVER_BUSY`, `ERR_CLAIM_REFUSED`, `ERR_CLAIM_SPENT`,
 *   `ERR_REQUEST_REFUSED`, `ERR_REPLY_MALFORMED`
 */
export function judgeReply<T>(
  response: SendResponse,
  parse: (body: Uint8Array) => Parsed<T>,
  { host, now, secret }: { host: string; now: Date; secret?: string },
): T {
  const { status, headers } = response
  const retryAt = parseRetryAfter(headers['retry-after'], now)
  const when = retryAt ? { retryAt } : {}
  const type = mediaType(response)
  if (status === 202)
    throw new CertvendError(
      'ERR_DEFERRED',
      `${host} accepted the request and has not decided it yet`,
      when,
    )
  if (status >= 300 && status < 400)
    throw new CertvendError(
      'ERR_REPLY_MALFORMED',
      `${host} answered with a redirect${leadsTo(headers.location, secret)} (${status}), which is never followed`,
      { hint: 'check the vending URL: it must be the one that answers, not one that forwards' },
    )
  if (status === 200 && type === mediaTypes.json) {
    const parsed = parse(response.body)
    if (parsed.ok) return parsed.value
    throw new CertvendError(
      'ERR_REPLY_MALFORMED',
      `the reply of ${host} is not as agreed: ${parsed.reason}`,
    )
  }
  const problem = type === mediaTypes.problem ? parseProblem(response.body) : undefined
  if (problem?.ok) {
    const code = problemCode(problem.value.type)
    const words = quote(problem.value.detail ?? problem.value.title ?? problem.value.type, secret)
    if (code) throw new CertvendError(meaning[code], `${host} refused: ${words} (${code})`, when)
    if (status >= 500 || status === 429)
      throw new CertvendError('ERR_SERVER_BUSY', `${host} answered ${status}: ${words}`, when)
    throw new CertvendError('ERR_REQUEST_REFUSED', `${host} answered ${status}: ${words}`)
  }
  if (status === 429 || status === 502 || status === 503 || status === 504)
    throw new CertvendError('ERR_SERVER_BUSY', `${host} answered ${status}`, when)
  throw new CertvendError(
    'ERR_REPLY_MALFORMED',
    `${host} answered ${status} with ${quote(type, secret) || 'no media type'}, not with the vending protocol`,
    type === 'text/html' ? { hint: webPage } : {},
  )
}
