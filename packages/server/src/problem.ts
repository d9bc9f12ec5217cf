/**
 * Problem documents ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)): what is refused is a value
 * here, and becomes a response in one place.
 */
import { mediaTypes, type ProblemCode, problems, problemType } from '@certvend/client/wire'

/** A refusal. */
export interface Problem {
  readonly code: ProblemCode
  /** One sentence for a person; never a caller's own content. */
  readonly detail: string
  /** When to ask again, in milliseconds from now; goes out as `Retry-After`. */
  readonly retryAfterMs?: number
  /** Further response headers. */
  readonly headers?: Readonly<Record<string, string>>
}

const titles: Record<ProblemCode, string> = {
  'malformed-request': 'The request cannot be read',
  'csr-refused': 'The certification request is not acceptable',
  'claim-refused': 'The claim is not accepted',
  'certificate-refused': 'The certificate is not accepted',
  'device-disabled': 'The device is disabled',
  'certificate-revoked': 'The certificate is revoked',
  'not-found': 'There is nothing here',
  'method-not-allowed': 'The method is not allowed here',
  'claim-spent': 'The claim is spent',
  'claim-open': 'The claim is open',
  'key-in-use': 'The key belongs to another device',
  'key-revoked': 'The key is revoked',
  'request-too-large': 'The request is too large',
  'unsupported-media-type': 'The media type is not supported',
  'too-many-attempts': 'Too many failed attempts',
  internal: 'The vending server failed',
  busy: 'The vending server is busy',
}

const base = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }

/** The one renderer of refusals. */
export function renderProblem(problem: Problem): Response {
  const { code, detail } = problem
  const document = { type: problemType(code), title: titles[code], status: problems[code], detail }
  return new Response(`${JSON.stringify(document)}\n`, {
    status: problems[code],
    headers: {
      ...base,
      'content-type': mediaTypes.problem,
      // RFC 9110 section 11.6.1: a 401 names the scheme.
      ...(problems[code] === 401 && { 'www-authenticate': 'Bearer' }),
      ...(problem.retryAfterMs !== undefined && {
        'retry-after': String(Math.max(1, Math.ceil(problem.retryAfterMs / 1000))),
      }),
      ...problem.headers,
    },
  })
}

/** The one renderer of answers. */
export const renderJson = (value: unknown): Response =>
  new Response(`${JSON.stringify(value)}\n`, {
    status: 200,
    headers: { ...base, 'content-type': mediaTypes.json },
  })
