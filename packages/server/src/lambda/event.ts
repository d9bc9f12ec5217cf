/**
 * What API Gateway hands to a function and takes back: payload formats 2.0 (HTTP APIs) and 1.0 (REST
 * APIs, and HTTP APIs told so), and the events of the older vending machines that had no proxy
 * integration. No I/O.
 *
 * @see https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
 */

/** One call, whichever format it came in. */
export interface Call {
  readonly method: string
  /** Path and query, percent-encoded, as the caller sent them or to the same effect. */
  readonly target: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly body: Buffer
  /** From API Gateway's own context, which no caller writes. */
  readonly remoteAddress: string
  /** PEM, where the API's domain asks for mutual TLS and API Gateway has verified it. */
  readonly clientCertificate?: string
}

export type Event =
  | { readonly form: 'proxy'; readonly call: Call }
  /** A mapping template made it: the old parameters lie on top, the answer is not wrapped. */
  | { readonly form: 'direct'; readonly fields: Readonly<Record<string, unknown>> }
  | { readonly form: 'unknown' }

/** What a proxy integration answers, in both formats. */
export interface Result {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  readonly isBase64Encoded: false
}

/** The parameters that the old mapping templates write; API Gateway's own events have none of these. */
const oldParameters = ['serialNumber', 'deviceToken', 'device_uid', 'device_token']

/** Tells what an event is. Never throws, whatever it is given. */
export function readEvent(event: unknown): Event {
  if (!isRecord(event)) return { form: 'unknown' }
  // First: awslabs' template of 2018 pastes the query into JSON without escaping it, so a caller can
  // add keys and try to write API Gateway's context, and with it an address, by himself.
  if (oldParameters.some((name) => Object.hasOwn(event, name)))
    return { form: 'direct', fields: event }
  const context = event.requestContext
  if (!isRecord(context)) return { form: 'unknown' }
  const call = isRecord(context.http)
    ? readFormat2(event, context.http)
    : isRecord(context.identity)
      ? readFormat1(event, context.identity)
      : undefined
  return call ? { form: 'proxy', call } : { form: 'unknown' }
}

function readFormat2(event: Fields, http: Fields): Call | undefined {
  if (typeof http.method !== 'string' || typeof event.rawPath !== 'string') return undefined
  const query = typeof event.rawQueryString === 'string' ? event.rawQueryString : ''
  return {
    method: http.method,
    target: event.rawPath + (query && `?${query}`),
    headers: pairs(event.headers),
    body: readBody(event),
    remoteAddress: text(http.sourceIp),
    ...shown((event.requestContext as Fields).authentication),
  }
}

function readFormat1(event: Fields, identity: Fields): Call | undefined {
  if (typeof event.httpMethod !== 'string' || typeof event.path !== 'string') return undefined
  const { multiValueQueryStringParameters, queryStringParameters } = event
  const several = pairs(multiValueQueryStringParameters)
  // Decoded once by API Gateway, so encoded again here.
  const sent = several.length > 0 ? several : pairs(queryStringParameters)
  const query = new URLSearchParams(sent).toString()
  // Here the stage is left out of `path` and stands in the context's; a URL is known by both.
  const { path: whole } = event.requestContext as Fields
  const isOfOne =
    typeof whole === 'string' && event.path.startsWith('/') && whole.endsWith(event.path)
  const path = isOfOne ? whole : event.path
  const severalHeaders = pairs(event.multiValueHeaders)
  return {
    method: event.httpMethod,
    target: path + (query && `?${query}`),
    headers: severalHeaders.length > 0 ? severalHeaders : pairs(event.headers),
    body: readBody(event),
    remoteAddress: text(identity.sourceIp),
    ...shown(identity),
  }
}

/** The client certificate in API Gateway's context: `clientCert.clientCertPem`. */
function shown(authentication: unknown): { clientCertificate?: string } {
  const found = isRecord(authentication) && authentication.clientCert
  const clientCertificate = isRecord(found) ? text(found.clientCertPem) : ''
  return clientCertificate ? { clientCertificate } : {}
}

type Fields = Readonly<Record<string, unknown>>

const isRecord = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const text = (value: unknown): string => (typeof value === 'string' ? value : '')

/** Name and value of each entry, of each item where an entry holds a list. */
function pairs(entries: unknown): [string, string][] {
  if (!isRecord(entries)) return []
  return Object.entries(entries).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value])
      .filter((item) => typeof item === 'string')
      .map((item): [string, string] => [name, item]),
  )
}

const readBody = (event: Fields): Buffer =>
  Buffer.from(text(event.body), event.isBase64Encoded === true ? 'base64' : 'utf8')

/** What a proxy integration answers with. Ours are all text. */
export async function toResult(response: Response): Promise<Result> {
  return {
    statusCode: response.status,
    headers: Object.fromEntries(response.headers),
    body: await response.text(),
    isBase64Encoded: false,
  }
}
