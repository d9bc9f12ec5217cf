/**
 * The pinned channel: one HTTPS request over undici, and what came back.
 *
 * Knows no protocol. One connection per request, no redirects, no retries, no decompression; a cap
 * on bytes and one deadline over everything. Loaded only when something must be sent.
 */
import { debuglog } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import type { Dispatcher } from 'undici'
import type { Clock } from './clock.ts'
import { dial, dialPlain } from './dial.ts'
import { CertvendError } from './errors.ts'
import { within } from './patience.ts'
import type { ProxyOptions } from './proxy.ts'
import { socketFailure } from './refusal.ts'
import type { Send, SendRequest, SendResponse } from './send.ts'
import { anchorsExpire, type Identity, type TrustAnchors } from './trust.ts'

async function loadClient(): Promise<typeof import('undici').Client> {
  // On Node 20 V8 optimises llhttp's WebAssembly at once, for 250 ms of CPU and 35 MiB; later
  // versions compile it lazily and lose by this flag (docs/decisions/0004-undici.md).
  const eager = process.versions.node.startsWith('20.')
  if (eager) setFlagsFromString('--liftoff-only')
  return (await import('undici/lib/dispatcher/client.js')).default
}

export interface ChannelOptions extends ProxyOptions {
  /** What the device shows of itself, for mutual TLS. Default: nothing. */
  readonly identity?: Identity
}

/**
 * A {@link Send} whose server must be vouched for by `pins`; without any it asks `http://` URLs, for
 * which nobody can vouch, and no others (`vending-server.ts` says when).
 *
 * @throws {CertvendError} `ERR_NETWORK`, `ERR_PROXY`, `ERR_TIMEOUT`, `ERR_REPLY_LOST`,
 *   `ERR_REPLY_MALFORMED` (over the cap), `ERR_SERVER_UNTRUSTED`, `ERR_CREDENTIAL_REFUSED` (of `identity`), `ERR_CLOCK`;
 *   or the signal's reason.
 */
export function createSend(pins: TrustAnchors, clock: Clock, options: ChannelOptions = {}): Send {
  return async (request, { signal, deadlineMs, replyBytes, beforeSend }) => {
    signal?.throwIfAborted()
    const { host, hostname, origin, port, protocol } = request.url
    const plain = pins.certificates.length === 0
    if (protocol !== (plain ? 'http:' : 'https:'))
      throw new TypeError('pins go with https://, and http:// goes without')
    // undici then writes every URL to stderr, with its query.
    if (request.secretUrl && (debuglog('undici').enabled || debuglog('fetch').enabled))
      throw new CertvendError(
        'ERR_REQUEST_REFUSED',
        `${host} was not asked: by NODE_DEBUG the token, which stands in the URL, would get into the log`,
        { hint: 'take undici and fetch out of NODE_DEBUG' },
      )
    const now = clock.now()
    const expires = anchorsExpire(pins)
    if (!plain && expires < now)
      throw new CertvendError(
        'ERR_SERVER_UNTRUSTED',
        `every pin for ${host} has expired, the last on ${expires.toISOString()}`,
      )
    const patience = { signal, deadlineMs, deadline: AbortSignal.timeout(deadlineMs) }
    const loading = loadClient() // while the network takes its time
    const to = { host: hostname, port: Number(port || (plain ? 80 : 443)) }
    const dialed = plain
      ? await dialPlain(to, patience, { ...options, now })
      : await dial(
          {
            ...to,
            ...(options.identity ? { identity: options.identity } : {}),
            alpn: 'http/1.1',
            anchors: pins,
            anchorsAre: 'pin',
          },
          patience,
          { ...options, now },
        )
    const { socket, place } = dialed
    const Client = await loading
    let given = false
    const client = new Client(origin, {
      connect: (_, take) => {
        // Asked for another connection, undici lost the first before it used it.
        if (given) return take(new Error('closed'), null)
        given = true
        queueMicrotask(() => take(null, socket)) // undici does not look again while it asks
      },
      headersTimeout: deadlineMs,
      bodyTimeout: deadlineMs,
      pipelining: 1,
    })
    let sent = false
    try {
      beforeSend?.()
      return await within(patience, (either) =>
        exchange(client, request, either, replyBytes, () => {
          sent = true
        }),
      )
    } catch (error) {
      signal?.throwIfAborted()
      if (error instanceof CertvendError) throw error
      if (patience.deadline.aborted || /^UND_ERR_(HEADERS|BODY)_TIMEOUT$/.test(codeOf(error)))
        throw new CertvendError(
          sent ? 'ERR_REPLY_LOST' : 'ERR_TIMEOUT',
          `${place} did not answer within ${deadlineMs / 1000} s`,
          { cause: error },
        )
      if ((error as Error).name === 'HTTPParserError')
        // Without the cause, which holds the reply: an echo of ours would bring the token with it.
        throw new CertvendError('ERR_REPLY_MALFORMED', `${place} answered, but not in HTTP`)
      const cause = dialed.error() ?? (error as Error)
      const failure = socketFailure(cause, { place, secured: true, now })
      if (failure.code !== 'ERR_SESSION_LOST') throw failure
      throw sent
        ? new CertvendError(
            'ERR_REPLY_LOST',
            `the connection to ${place} broke before the reply was complete`,
            { cause },
          )
        : new CertvendError('ERR_NETWORK', `${place} closed the connection before it was asked`, {
            cause,
          })
    } finally {
      socket.destroy()
      client.destroy().catch(() => {})
    }
  }
}

const codeOf = (error: unknown): string => String((error as { code?: unknown }).code)

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
