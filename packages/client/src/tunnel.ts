/**
 * A tunnel through an HTTP proxy: CONNECT (RFC 9110 section 9.3.6), and what the proxy says to it.
 *
 * Loaded only where a proxy is used. Not undici's ProxyAgent: it serves one half only, tells a
 * refusal's status in prose, and asks a proxy that closes the connection 2 500 times a second
 * (docs/decisions/0007-one-tunnel.md).
 */
import type { Socket } from 'node:net'
import { CertvendError } from './errors.ts'
import { authority, type HttpProxy } from './proxy.ts'

/** Largest header that is read of a proxy's answer, in bytes. */
const headBytes = 16 * 1024

/**
 * Asks the proxy at the other end of `socket` for a tunnel; `socket` is that tunnel afterwards.
 *
 * @throws {CertvendError} `ERR_PROXY`; or the signal's reason. The socket is the caller's to destroy.
 */
export async function openTunnel(
  socket: Socket,
  proxy: HttpProxy,
  to: { readonly host: string; readonly port: number },
  signal: AbortSignal,
): Promise<void> {
  const target = authority(to.host, to.port)
  const authorization = proxy.authorization()
  socket.write(
    `CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${
      authorization === undefined ? '' : `Proxy-Authorization: ${authorization}\r\n`
    }\r\n`,
  )
  for (;;) {
    const head = await readHead(socket, proxy, signal)
    const answer = parseHead(head)
    if (answer?.status !== undefined && answer.status >= 100 && answer.status < 200) continue
    judgeAnswer(answer, { proxy, target, authorized: authorization !== undefined })
    break
  }
  // A server waits for our ClientHello, so this was a page and no tunnel.
  if (socket.readableLength > 0)
    throw new CertvendError('ERR_PROXY', `proxy ${proxy.place} answered CONNECT with a page`, {
      hint: 'this is a web server or a captive portal, not a proxy: check its address, or sign in to this network',
    })
}

/** Reads up to and including the empty line; what follows stays in the socket. Empty when it is no head. */
function readHead(socket: Socket, proxy: HttpProxy, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let head = Buffer.alloc(0)
    const settle = (finish: () => void): void => {
      socket.off('readable', onReadable).off('error', onError).off('close', onClosed)
      socket.off('end', onClosed)
      signal.removeEventListener('abort', onAbort)
      finish()
    }
    const onAbort = (): void => settle(() => reject(signal.reason))
    const onError = (cause: unknown): void => settle(() => reject(hungUp(proxy, cause)))
    const onClosed = (): void => onError(undefined)
    const onReadable = (): void => {
      for (;;) {
        const chunk: Buffer | null = socket.read()
        if (chunk === null) return
        head = Buffer.concat([head, chunk])
        const end = head.indexOf('\r\n\r\n')
        if (end < 0 && head.length <= headBytes && mayBeHttp(head)) continue
        if (end >= 0 && end + 4 < head.length) socket.unshift(head.subarray(end + 4))
        settle(() => resolve(end < 0 ? '' : head.toString('latin1', 0, end)))
        return
      }
    }
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    socket.on('readable', onReadable).on('error', onError).on('close', onClosed)
    socket.on('end', onClosed)
  })
}

const mayBeHttp = (head: Buffer): boolean => 'HTTP/1.'.startsWith(head.toString('latin1', 0, 7))

const hungUp = ({ place }: HttpProxy, cause: unknown): CertvendError => {
  const code = (cause as { code?: unknown } | undefined)?.code
  return new CertvendError(
    'ERR_PROXY',
    `proxy ${place} closed the connection instead of answering CONNECT${code ? ` (${code})` : ''}`,
    cause === undefined ? {} : { cause },
  )
}

/** What a proxy answered. */
export interface Answer {
  readonly status: number
  /** Names in lower case, each with all its values. */
  readonly fields: ReadonlyMap<string, readonly string[]>
}

/** Reads the head of an HTTP/1 response (RFC 9112 section 4); undefined when it is none. */
function parseHead(head: string): Answer | undefined {
  const [first = '', ...lines] = head.split('\r\n')
  const status = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(first)?.[1]
  if (status === undefined) return undefined
  const fields = new Map<string, string[]>()
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    if (colon > 0) fields.set(name, [...(fields.get(name) ?? []), line.slice(colon + 1).trim()])
  }
  return { status: Number(status), fields }
}

/** Refuses every answer but a tunnel, in words that name the proxy and the next step. */
function judgeAnswer(
  answer: Answer | undefined,
  {
    proxy: { place },
    target,
    authorized,
  }: { proxy: HttpProxy; target: string; authorized: boolean },
): void {
  const refuse = (what: string, hint?: string): CertvendError =>
    new CertvendError('ERR_PROXY', `proxy ${place} ${what}`, hint === undefined ? {} : { hint })
  if (!answer)
    throw refuse(
      'does not speak HTTP',
      'check the address: this may be the port of another kind of proxy (SOCKS) or of another service',
    )
  const { status, fields } = answer
  if (status >= 200 && status < 300) return
  // tinyproxy says 401 to credentials that it does not accept.
  if (status === 407 || status === 401) {
    const schemes = schemesOf(fields.get('proxy-authenticate') ?? [])
    const basic = schemes.length === 0 || schemes.some((one) => one.toLowerCase() === 'basic')
    if (!basic)
      throw refuse(
        `refused CONNECT (${status}): it wants ${schemes.join(' or ')}`,
        'only Basic credentials are spoken here: let this device through without, or by Basic',
      )
    throw authorized
      ? refuse(
          `refused CONNECT (${status}): it does not accept the credentials`,
          "check user and password in the proxy's URL; special characters must be percent-encoded",
        )
      : refuse(
          `refused CONNECT (${status}): it wants credentials`,
          "put them into the proxy's URL, http://USER:PASSWORD@HOST:PORT, percent-encoded",
        )
  }
  const portal = 'a captive portal: somebody must sign this device in to the network'
  if (status === 511) throw refuse('wants a sign-in to the network (511)', portal)
  if (status >= 300 && status < 400) {
    const location = hostOf(fields.get('location')?.[0])
    throw refuse(
      `answered CONNECT with a redirect${location ? ` to ${location}` : ''} (${status})`,
      portal,
    )
  }
  if (status === 403 || status === 405)
    throw refuse(
      `refused CONNECT to ${target} (${status})`,
      `allow ${target} on the proxy; many let CONNECT go to port 443 only, where AWS IoT Core answers MQTT with ALPN x-amzn-mqtt-ca`,
    )
  // Squid says 500 or 503 to a name that it does not find.
  if (status === 500 || (status >= 502 && status <= 504))
    throw refuse(
      `cannot reach ${target} (${status})`,
      "look at the proxy's own way out: its DNS, its route, its firewall",
    )
  const page = fields.get('content-type')?.[0]?.startsWith('text/html') ? ' with a page' : ''
  throw refuse(`refused CONNECT to ${target}${page} (${status})`)
}

/** The schemes of challenges such as `Basic realm="x", Negotiate` (RFC 9110 section 11.6.1). */
const schemesOf = (challenges: readonly string[]): string[] =>
  challenges
    .flatMap((value) => value.replace(/"(?:\\.|[^"\\])*"/g, '').split(','))
    .map((part) => /^\s*([A-Za-z][\w-]{0,31})(?=\s+|$)(?!\s*=)/.exec(part)?.[1])
    .filter((scheme) => scheme !== undefined)

function hostOf(location: string | undefined): string | undefined {
  if (!location || !URL.canParse(location)) return undefined
  return new URL(location).host.slice(0, 100)
}
