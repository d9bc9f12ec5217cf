/**
 * The pinned channel: one HTTPS request over undici, and what came back.
 *
 * Knows no protocol. One connection per request, no redirects, no retries, no decompression; a cap
 * on bytes and one deadline over everything. Loaded only when something must be sent.
 */
import { setFlagsFromString } from 'node:v8'
import type { Dispatcher } from 'undici'
import type { Clock } from './clock.ts'
import { earliestPlausible } from './clock.ts'
import { CertvendError, type ErrorCode } from './errors.ts'
import type { Send, SendRequest, SendResponse } from './send.ts'
import { anchorsExpire, isVerificationFailure, type TrustAnchors, tlsOptions } from './trust.ts'

const networkCodes = new Set([
  'ENOTFOUND',
  'EAI_AGAIN',
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENETDOWN',
  'EADDRNOTAVAIL',
  'UND_ERR_CONNECT_TIMEOUT',
])

const codeOf = (error: unknown): string =>
  error instanceof AggregateError
    ? codeOf(error.errors[0])
    : String((error as { code?: unknown } | null)?.code ?? '')

/** What a failed TLS handshake or a broken connection means, by Node's and OpenSSL's codes. */
function classify(cause: unknown, host: string, sent: boolean, now: Date): CertvendError {
  const code = codeOf(cause)
  const is = (ours: ErrorCode, message: string): CertvendError =>
    new CertvendError(ours, message, { cause })
  if (code === 'CERT_NOT_YET_VALID' || (now < earliestPlausible && code.startsWith('CERT_')))
    return is('ERR_CLOCK', `the certificate of ${host} is not valid yet by this device's clock`)
  if (code === 'CERT_HAS_EXPIRED')
    return is('ERR_SERVER_UNTRUSTED', `the certificate of ${host}, or its pin, has expired`)
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return is('ERR_SERVER_UNTRUSTED', (cause as Error).message)
  if (isVerificationFailure(code))
    return is('ERR_SERVER_UNTRUSTED', `no pin vouches for ${host} (${code})`)
  if (networkCodes.has(code)) return is('ERR_NETWORK', `cannot reach ${host} (${code})`)
  if (sent)
    return is('ERR_REPLY_LOST', `the connection to ${host} broke before the reply was complete`)
  return is('ERR_NETWORK', `the connection to ${host} failed${code ? ` (${code})` : ''}`)
}

async function loadClient(): Promise<typeof import('undici').Client> {
  // On Node 20 V8 optimises llhttp's WebAssembly at once, for 250 ms of CPU and 35 MiB; later
  // versions compile it lazily and lose by this flag (docs/decisions/0004-undici.md).
  const eager = process.versions.node.startsWith('20.')
  if (eager) setFlagsFromString('--liftoff-only')
  return (await import('undici/lib/dispatcher/client.js')).default
}

/**
 * A {@link Send} whose server must be vouched for by `pins`.
 *
 * @throws {CertvendError} `ERR_NETWORK`, `ERR_TIMEOUT`, `ERR_REPLY_LOST`, `ERR_REPLY_MALFORMED`
 *   (over the cap), `ERR_SERVER_UNTRUSTED`, `ERR_CLOCK`; or the signal's reason.
 */
export function createSend(pins: TrustAnchors, clock: Clock): Send {
  return async (request, { signal, deadlineMs, replyBytes }) => {
    signal?.throwIfAborted()
    const { host, hostname, origin } = request.url
    const now = clock.now()
    const expires = anchorsExpire(pins)
    if (expires < now)
      throw new CertvendError(
        'ERR_SERVER_UNTRUSTED',
        `every pin for ${host} has expired, the last on ${expires.toISOString()}`,
      )
    const Client = await loadClient()
    const client = new Client(origin, {
      connect: { ...tlsOptions(pins, hostname), timeout: deadlineMs },
      headersTimeout: deadlineMs,
      bodyTimeout: deadlineMs,
      pipelining: 1,
    })
    const deadline = AbortSignal.timeout(deadlineMs)
    const either = signal ? AbortSignal.any([signal, deadline]) : deadline
    let sent = false
    try {
      return await exchange(client, request, either, replyBytes, () => {
        sent = true
      })
    } catch (error) {
      signal?.throwIfAborted()
      if (error instanceof CertvendError) throw error
      if (deadline.aborted || /^UND_ERR_(HEADERS|BODY)_TIMEOUT$/.test(codeOf(error)))
        throw new CertvendError(
          sent ? 'ERR_REPLY_LOST' : 'ERR_TIMEOUT',
          `${host} did not answer within ${deadlineMs / 1000} s`,
          { cause: error },
        )
      throw classify(error, host, sent, now)
    } finally {
      // Not awaited: a connect in progress must not hold up its own abort.
      client.destroy().catch(() => {})
    }
  }
}

function exchange(
  client: Dispatcher,
  request: SendRequest,
  signal: AbortSignal,
  replyBytes: number,
  onSent: () => void,
): Promise<SendResponse> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      reject(signal.reason)
      client.destroy().catch(() => {})
    }
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    const settle = (finish: () => void): void => {
      signal.removeEventListener('abort', abort)
      finish()
    }
    const chunks: Buffer[] = []
    let size = 0
    let status = 0
    let headers: Record<string, string> = {}
    client.dispatch(
      {
        path: request.url.pathname + request.url.search,
        method: request.method,
        headers: request.headers,
        body: request.body ?? null,
      },
      {
        onRequestStart: onSent,
        onResponseStart(_controller, statusCode, received) {
          status = statusCode
          headers = Object.fromEntries(
            Object.entries(received).map(([name, value]) => [name.toLowerCase(), String(value)]),
          )
        },
        onResponseData(controller, chunk) {
          size += chunk.length
          if (size > replyBytes)
            controller.abort(
              new CertvendError(
                'ERR_REPLY_MALFORMED',
                `the reply of ${request.url.host} is larger than ${replyBytes} bytes`,
              ),
            )
          else chunks.push(chunk)
        },
        onResponseEnd: () =>
          settle(() => resolve({ status, headers, body: Buffer.concat(chunks) })),
        onResponseError: (_controller, error) => settle(() => reject(error)),
      },
    )
  })
}
