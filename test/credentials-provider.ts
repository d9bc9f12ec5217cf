/**
 * AWS IoT's credentials provider, as far as it is documented and was seen from outside: HTTPS with
 * mutual TLS, a role alias in the path, the thing in a header.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Certified } from './pki.ts'

export interface CredentialsProviderOptions {
  readonly server: Certified
  /** Whose certificates TLS admits. */
  readonly deviceCa: Certified
  /** Certificate id of each thing's certificate. */
  readonly things: Readonly<Record<string, string>>
  readonly roleAliases: readonly string[]
  /** Things whose policy does not allow iot:AssumeRoleWithCertificate. */
  readonly forbidden?: readonly string[]
  /** What to answer instead. */
  readonly instead?: (request: IncomingMessage) => Promise<Reply | undefined> | Reply | undefined
}

export interface Reply {
  readonly status: number
  readonly body: unknown
  readonly headers?: Readonly<Record<string, string>>
}

export interface CredentialsProvider {
  readonly port: number
  readonly requests: readonly IncomingMessage[]
  close(): Promise<void>
}

/** Not real ones, though they look it. */
export const secrets = {
  accessKeyId: 'ASIAEXAMPLEEXAMPLE00',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
  sessionToken: 'IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJHMEUCIQ==',
} as const

export async function startCredentialsProvider(
  options: CredentialsProviderOptions,
): Promise<CredentialsProvider> {
  const { server: identity, deviceCa, things, roleAliases, forbidden = [], instead } = options
  const requests: IncomingMessage[] = []
  const refuse = (status: number, message: string): Reply => ({ status, body: { message } })

  function answer(request: IncomingMessage): Reply {
    const peer = (request.socket as TLSSocket).getPeerCertificate()
    const shown = createHash('sha256').update(peer.raw).digest('hex')
    const thing = request.headers['x-amzn-iot-thingname']
    const alias = /^\/role-aliases\/([^/]+)\/credentials$/.exec(request.url ?? '')?.[1]
    if (!Object.values(things).includes(shown))
      return refuse(403, 'Certificate is invalid on this endpoint')
    if (typeof thing !== 'string' || things[thing] !== shown)
      return refuse(403, 'Invalid thing name passed')
    if (forbidden.includes(thing)) return refuse(403, 'Access Denied')
    if (!alias || !roleAliases.includes(alias)) return refuse(404, 'Role alias does not exist')
    const expiration = new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d+/, '')
    return { status: 200, body: { credentials: { ...secrets, expiration } } }
  }

  const server = https.createServer(
    {
      cert: identity.certificate,
      key: identity.privateKey,
      ca: deviceCa.certificate,
      requestCert: true,
      rejectUnauthorized: true,
    },
    async (request, response) => {
      requests.push(request)
      const { status, body, headers } = (await instead?.(request)) ?? answer(request)
      response.writeHead(status, { 'content-type': 'application/json', ...headers })
      response.end(typeof body === 'string' ? body : JSON.stringify(body))
    },
  )
  server.on('tlsClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
