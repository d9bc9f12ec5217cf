/** An HTTPS client of the tests' own: trusts `ca` alone, and can misbehave on the wire. */
import type { IncomingHttpHeaders } from 'node:http'
import { type RequestOptions, request } from 'node:https'
import { text } from 'node:stream/consumers'
import { connect, type TLSSocket } from 'node:tls'

export interface HttpsAnswer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

/** Trusts the pin and nothing else, as a device does. */
export const pinned = (pin: string) => ({
  ca: pin,
  allowPartialTrustChain: true,
  rejectUnauthorized: true,
  maxCachedSessions: 0,
})

export function send(
  url: string,
  pin: string,
  options: RequestOptions & { readonly body?: string | Buffer } = {},
): Promise<HttpsAnswer> {
  const { body, ...rest } = options
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { ...pinned(pin), agent: false, ...rest }, (incoming) => {
      text(incoming).then((answer) => {
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text: answer })
      }, reject)
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

/** A bare TLS connection, for bytes that no HTTP client would send. */
export function connectTo(url: string, pin: string): Promise<TLSSocket> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const options = { host: hostname, port: Number(port), servername: hostname, ...pinned(pin) }
    const socket = connect(options, () => resolve(socket))
    socket.on('error', reject)
  })
}

/** Everything that comes until the other side closes. */
export const untilClosed = (socket: TLSSocket): Promise<string> =>
  new Promise((resolve) => {
    let received = ''
    socket.setEncoding('utf8')
    socket.on('data', (chunk: string) => {
      received += chunk
    })
    socket.on('error', () => undefined)
    socket.on('close', () => resolve(received))
  })
