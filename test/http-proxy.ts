/**
 * An HTTP proxy on loopback, small and real: CONNECT opens a tunnel, or a test says what instead.
 *
 * Started by itself (`node dist/http-proxy.js ADDRESS PORT USER:PASSWORD`) it serves a namespace.
 */
import { once } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import net, { type AddressInfo } from 'node:net'
import { pathToFileURL } from 'node:url'
import type { Certified } from './pki.ts'

/** Takes a CONNECT request over; `open` lets it through after all. */
export type Instead = (socket: net.Socket, target: string, open: () => void) => void

export interface HttpProxyOptions {
  /** `user:password`, demanded by Basic. Default: none. */
  readonly credentials?: string
  /** Serves over TLS as this. Default: without TLS. */
  readonly identity?: Certified
  /** Names that the proxy finds, and where. Every other is looked up. */
  readonly hosts?: Readonly<Record<string, string>>
  readonly instead?: Instead
  /** Default 127.0.0.1 and a free port. */
  readonly address?: string
  readonly port?: number
}

export interface HttpProxy {
  readonly port: number
  /** Connections that clients opened. */
  readonly opened: number
  /** Clients connected now. */
  readonly connected: number
  /** What CONNECT was asked for, with or without success. */
  readonly targets: readonly string[]
  /** Raw heads as they came. */
  readonly requests: readonly http.IncomingMessage[]
  /** Ends every tunnel without a word. */
  cut(): void
  close(): Promise<void>
}

export async function startHttpProxy(options: HttpProxyOptions = {}): Promise<HttpProxy> {
  const { credentials, identity, hosts = {}, instead, address = '127.0.0.1', port = 0 } = options
  const requests: http.IncomingMessage[] = []
  const sockets = new Set<net.Socket>()
  let opened = 0
  const server = identity
    ? https.createServer({ cert: identity.certificate, key: identity.privateKey })
    : http.createServer()
  server.on('connection', (socket: net.Socket) => {
    opened++
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket)).on('error', () => {})
  })
  server.on('tlsClientError', () => {})
  server.on('request', (_request, response) => {
    response.writeHead(400).end('this proxy tunnels and does nothing else')
  })
  server.on('connect', (request: http.IncomingMessage, socket: net.Socket, head: Buffer) => {
    socket.on('error', () => {})
    requests.push(request)
    const target = request.url ?? ''
    const { hostname, port: targetPort } = new URL(`tcp://${target}`)
    const open = (): void => {
      const basic = `Basic ${Buffer.from(credentials ?? '').toString('base64')}`
      if (credentials !== undefined && request.headers['proxy-authorization'] !== basic)
        return void socket.end(unauthorized)
      const upstream = net.connect({
        host: hosts[hostname] ?? hostname.replace(/^\[|\]$/g, ''),
        port: Number(targetPort),
      })
      upstream.once('connect', () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
        if (head.length > 0) upstream.write(head)
        upstream.pipe(socket).pipe(upstream)
      })
      upstream.on('error', () => socket.end('HTTP/1.1 502 Bad Gateway\r\n\r\n'))
      upstream.once('close', () => socket.destroy())
      socket.once('close', () => upstream.destroy())
    }
    if (!instead) return open()
    socket.resume().once('end', () => socket.end())
    instead(socket, target, open)
  })
  server.listen(port, address)
  await once(server, 'listening')
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    port: (server.address() as AddressInfo).port,
    get opened() {
      return opened
    },
    get connected() {
      return sockets.size
    },
    requests,
    get targets() {
      return requests.map(({ url }) => url ?? '')
    },
    cut,
    async close() {
      const closed = once(server, 'close')
      server.close()
      cut()
      await closed
    },
  }
}

const unauthorized =
  'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="a, b"\r\nContent-Length: 0\r\n\r\n'

const [, script, address, port, credentials] = process.argv
if (script !== undefined && import.meta.url === pathToFileURL(script).href)
  await startHttpProxy({
    ...(address === undefined ? {} : { address }),
    port: Number(port),
    ...(credentials === undefined ? {} : { credentials }),
  })
