/**
 * The vending machine as one function: WHATWG Request in, Response out; no sockets, no process state.
 *
 * Order of judgement: route → method → media type → body and certification request → token → state
 * of the claim. Errors leave as problem documents, everything with `Cache-Control: no-store`, and
 * whatever says "later" says when. See `docs/protocol.md`.
 */
import {
  type CaCertificates,
  type Endpoint,
  type EnrollReply,
  isToken,
  limits,
  mediaTypes,
  type Parsed,
  parseEnrollRequest,
  parseRetireRequest,
  paths,
  type Retired,
} from '@certvend/client/wire'
import { certificateRefused } from './authentication.ts'
import { second } from './clock.ts'
import { createEnroll, type EnrollmentOptions } from './enrollment.ts'
import { judgeRequest } from './policy.ts'
import { type Problem, renderJson, renderProblem } from './problem.ts'
import { problemOf, registryDown } from './trouble.ts'

export interface HandlerOptions extends EnrollmentOptions {
  /** Where devices connect to, handed to them with the certificate. */
  readonly endpoint: Endpoint
}

/** What the front door knows about a request and the request itself does not say. */
export interface RequestContext {
  /** The caller's address, from the socket or from API Gateway's context; never from a header. */
  readonly remoteAddress: string
  /** SHA-256 of the client certificate's DER, hex, where the TLS handshake has proven its key. */
  readonly shownCertificateId?: string
}

/** Never rejects. */
export type Handler = (request: Request, context: RequestContext) => Promise<Response>

type Route = (request: Request, context: RequestContext) => Promise<Response | Problem>
type Operation = {
  readonly name: string
  readonly methods: readonly string[]
  readonly answer: Route
}

const isProblem = (value: Response | Problem): value is Problem => !(value instanceof Response)

/** Makes the vending machine. */
export function createHandler(options: HandlerOptions): Handler {
  const { registry, issuer, endpoint, log, clock } = options
  const enroll = createEnroll(options)

  /** By the token of a claim, or by a certificate that was shown. */
  const answerEnroll =
    (operation: 'enroll' | 'reenroll'): Route =>
    async (request, { remoteAddress, shownCertificateId = '' }) => {
      const parsed = await readJson(request, parseEnrollRequest)
      if (!parsed.ok) return parsed.problem
      const { deviceSerial, csr } = parsed.value
      const judged = judgeRequest(csr, deviceSerial)
      if (!judged.ok) return { code: 'csr-refused', detail: judged.reason }
      const token = bearerToken(request)
      const by =
        operation === 'reenroll' ? { shown: shownCertificateId } : token !== undefined && { token }
      const result = await enroll({ deviceSerial, remoteAddress, ...by }, judged.request)
      if (!result.ok) {
        const { code, detail } = result.problem
        const who = { deviceSerial, remoteAddress }
        log({ event: 'refused', operation, problem: code, reason: detail, ...who })
        return result.problem
      }
      const { device, certificate } = result
      const { certificateId, certificateChain } = certificate
      const { thingName } = device
      log({ event: 'enrolled', operation, deviceSerial, thingName, certificateId, remoteAddress })
      return renderJson({
        deviceSerial,
        thingName,
        certificateId,
        certificateChain: [...certificateChain],
        endpoint,
      } satisfies EnrollReply)
    }

  const answerRetire: Route = async (request, { remoteAddress, shownCertificateId = '' }) => {
    const parsed = await readJson(request, parseRetireRequest)
    if (!parsed.ok) return parsed.problem
    const { deviceSerial } = parsed.value
    const certificateId = shownCertificateId
    const certificate = await registry.findCertificate(certificateId)
    if (certificate?.deviceSerial !== deviceSerial) return certificateRefused
    // Noted first, so that no request revives it; the key is about to be destroyed.
    await registry.setCertificateStatus(certificateId, 'REVOKED', clock.now())
    const signal = AbortSignal.timeout(options.issueTimeoutMs ?? 20 * second)
    await issuer.withdraw?.(certificate, 'REVOKED', { signal })
    log({ event: 'retired', deviceSerial, certificateId, remoteAddress })
    return renderJson({ certificateId } satisfies Retired)
  }

  const answerCaCertificates: Route = async () =>
    renderJson({
      deviceCa: [...(await issuer.caCertificates())],
      trustAnchors: endpoint.trustAnchors,
    } satisfies CaCertificates)

  const answerHealth: Route = async () => {
    await registry.check()
    return renderJson({ status: 'ok' })
  }

  const operations: ReadonlyMap<string, Operation> = new Map([
    [paths.enroll, { name: 'enroll', methods: ['POST'], answer: answerEnroll('enroll') }],
    [paths.reenroll, { name: 'reenroll', methods: ['POST'], answer: answerEnroll('reenroll') }],
    [paths.retire, { name: 'retire', methods: ['POST'], answer: answerRetire }],
    [paths.cacerts, { name: 'cacerts', methods: ['GET', 'HEAD'], answer: answerCaCertificates }],
    ['/healthz', { name: 'healthz', methods: ['GET', 'HEAD'], answer: answerHealth }],
  ])

  async function answer(request: Request, context: RequestContext): Promise<Response | Problem> {
    const operation = operations.get(new URL(request.url).pathname)
    if (!operation) return { code: 'not-found', detail: 'no such operation' }
    if (!operation.methods.includes(request.method)) {
      const allow = operation.methods.join(', ')
      return { code: 'method-not-allowed', detail: `allowed: ${allow}`, headers: { allow } }
    }
    try {
      return await operation.answer(request, context)
    } catch (error) {
      return failure(error, operation.name)
    }
  }

  function failure(error: unknown, operation: string): Problem {
    const reason = error instanceof Error ? error.message : String(error)
    log({ level: 'error', event: 'failed', operation, reason })
    return operation === 'healthz' ? registryDown : problemOf(error)
  }

  return async (request, context) => {
    const startedAt = clock.now().getTime()
    const result = await answer(request, context)
    const response = isProblem(result) ? renderProblem(result) : result
    log({
      event: 'request',
      operation: operations.get(new URL(request.url).pathname)?.name ?? 'unknown',
      status: response.status,
      remoteAddress: context.remoteAddress,
      durationMs: clock.now().getTime() - startedAt,
    })
    return response
  }
}

/** The judged body of a request. */
async function readJson<T>(
  request: Request,
  parse: (body: Uint8Array) => Parsed<T>,
): Promise<{ ok: true; value: T } | { ok: false; problem: Problem }> {
  const refused = judgeHeaders(request)
  if (refused) return { ok: false, problem: refused }
  const body = await readBody(request)
  if (!body) {
    const detail = `a request body has at most ${limits.requestBytes} bytes`
    return { ok: false, problem: { code: 'request-too-large', detail } }
  }
  const parsed = parse(body)
  return parsed.ok
    ? parsed
    : { ok: false, problem: { code: 'malformed-request', detail: parsed.reason } }
}

function judgeHeaders(request: Request): Problem | undefined {
  const [mediaType = ''] = (request.headers.get('content-type') ?? '').split(';')
  if (mediaType.trim().toLowerCase() !== mediaTypes.json)
    return { code: 'unsupported-media-type', detail: `send ${mediaTypes.json}` }
  const encoding = request.headers.get('content-encoding')?.trim().toLowerCase() ?? 'identity'
  return encoding === 'identity'
    ? undefined
    : { code: 'unsupported-media-type', detail: 'send the body without content coding' }
}

/** The body, or undefined as soon as it is longer than a server reads. */
export async function readBody(request: Request): Promise<Uint8Array | undefined> {
  if (Number(request.headers.get('content-length') ?? 0) > limits.requestBytes) return undefined
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of request.body ?? []) {
    length += chunk.byteLength
    if (length > limits.requestBytes) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** The token of `Authorization: Bearer` (RFC 6750 section 2.1), if there is one that could be one. */
function bearerToken(request: Request): string | undefined {
  const [, token] = /^Bearer +(\S+)$/i.exec(request.headers.get('authorization') ?? '') ?? []
  return isToken(token) ? token : undefined
}
