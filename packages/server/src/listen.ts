/**
 * The HTTPS front door on one machine: sockets around a {@link Handler}.
 *
 * A caller has ten seconds for the handshake and the headers and thirty for the whole request,
 * however slowly it drips; a body is read no further than the handler would read it. Addresses come
 * from the socket: there is no proxy in front that could be believed.
 */
import {
  createServer as createPlainServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { TLSSocket, Server as TlsServer } from 'node:tls'
import { limits } from '@certvend/client/wire'
import { second } from './clock.ts'
import type { Handler, RequestContext } from './handler.ts'
import { certificateId } from './issuer/local.ts'
import { renderProblem } from './problem.ts'
import { serverTlsOptions } from './tls.ts'

export interface ListenOptions {
  /**
   * Certificate chain and private key, PEM. `none` is for the one protocol that knows no TLS, and
   * for no other; see `legacy/express-2017.ts`.
   */
  readonly tls: { readonly cert: string; readonly key: string } | 'none'
  /** Address to listen on; every address by default. */
  readonly address?: string
  /** 0 takes a free one. */
  readonly port: number
  /** For the headers, in milliseconds; 10 seconds by default. */
  readonly headersTimeoutMs?: number
  /** For the whole request, in milliseconds; 30 seconds by default. */
  readonly requestTimeoutMs?: number
}

/** A server that listens. */
export interface Listener {
  readonly port: number
  /** Shows another certificate from the next handshake on. @throws Error if it cannot be used */
  show(identity: { readonly cert: string; readonly key: string }): void
  /** Stops accepting, lets what runs finish for at most `graceMs` (5 seconds by default), then cuts. */
  close(graceMs?: number): Promise<void>
}

/** Opens the front door. Rejects with the socket's error, such as `EADDRINUSE`. */
export async function listen(handler: Handler, options: ListenOptions): Promise<Listener> {
  const bounds = {
    headersTimeout: options.headersTimeoutMs ?? 10 * second,
    requestTimeout: options.requestTimeoutMs ?? 30 * second,
    connectionsCheckingInterval: second,
    keepAliveTimeout: 5 * second,
    maxHeaderSize: 16 * 1024,
    noDelay: true,
  }
  const answer = (incoming: IncomingMessage, outgoing: ServerResponse) =>
    void serve(handler, incoming, outgoing)
  const server =
    options.tls === 'none'
      ? createPlainServer(bounds, answer)
      : createServer(
          {
            ...serverTlsOptions(options.tls),
            // For re-enrollment a device shows its certificate. Whoever shows one has proven its key;
            // whether it is worth anything the registry says, as not every issuer's CA is known here.
            requestCert: true,
            rejectUnauthorized: false,
            ...bounds,
          },
          answer,
        )
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.address, () => {
      server.off('error', reject)
      resolve()
    })
  })
  return {
    port: (server.address() as AddressInfo).port,
    show: (identity) => {
      if (server instanceof TlsServer) server.setSecureContext(serverTlsOptions(identity))
    },
    close: (graceMs = 5 * second) =>
      new Promise((resolve) => {
        const cut = setTimeout(() => server.closeAllConnections(), graceMs)
        server.close(() => {
          clearTimeout(cut)
          resolve()
        })
        server.closeIdleConnections()
      }),
  }
}

async function serve(handler: Handler, incoming: IncomingMessage, outgoing: ServerResponse) {
  try {
    const body = await readAtMost(incoming, limits.requestBytes + 1)
    const request = toRequest(incoming, body)
    const response = request
      ? await handler(request, contextOf(incoming.socket))
      : renderProblem({ code: 'malformed-request', detail: 'the request line cannot be used' })
    // What was not read would be taken for the next request.
    if (!incoming.complete) outgoing.setHeader('connection', 'close')
    const answer = Buffer.from(await response.arrayBuffer())
    outgoing.writeHead(response.status, {
      ...Object.fromEntries(response.headers),
      'content-length': answer.length,
    })
    outgoing.end(answer, () => {
      if (!incoming.complete) incoming.destroy()
    })
  } catch {
    outgoing.destroy() // the caller went away, or was cut off for being slow
  }
}

function contextOf(socket: Socket): RequestContext {
  const { remoteAddress = '' } = socket
  const shown = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined
  return { remoteAddress, ...(shown && { shownCertificateId: certificateId(shown.raw) }) }
}

/** Reads until the end or until `limit` bytes are there, whichever comes first. */
async function readAtMost(incoming: IncomingMessage, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of incoming.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk)
    length += chunk.length
    if (length >= limit) break
  }
  return Buffer.concat(chunks).subarray(0, limit)
}

function toRequest(incoming: IncomingMessage, body: Buffer): Request | undefined {
  const { method = 'GET', url = '/' } = incoming
  if (!url.startsWith('/')) return undefined
  const headers = new Headers()
  try {
    for (const [name, value] of Object.entries(incoming.headersDistinct))
      for (const item of value ?? []) headers.append(name, item)
    const hasBody = method !== 'GET' && method !== 'HEAD'
    return new Request(new URL(`https://vending.invalid${url}`), {
      method,
      headers,
      ...(hasBody && { body }),
    })
  } catch {
    return undefined // a method that Request forbids, such as TRACE, or a target that is no URL
  }
}
