/**
 * A vending machine for tests, as msw handlers: honest unless a test answers in its place. The same
 * handlers serve as a `Send` without a network and behind a real TLS listener.
 */
import http1, { type IncomingMessage, type ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Send } from '@certvend/client'
import { getResponse, HttpResponse, http, type RequestHandler } from 'msw'
import { type CertificateOptions, type Certified, certificateIdOf, certifyRequest } from './pki.ts'

/** One enroll request as it arrived. */
export interface Order {
  readonly deviceSerial: string
  readonly csr: string
  readonly authorization: string | null
}

/** The body of an honest reply; a test may bend it. */
export interface Reply {
  deviceSerial: string
  thingName: string
  certificateId: string
  certificateChain: string[]
  endpoint: { host: string; port: number; alpn?: string; trustAnchors: string[] }
}

export type Respond = (order: Order, machine: VendingMachine) => Promise<Response> | Response

export interface VendingMachine {
  /** Every order so far, oldest first. */
  readonly orders: readonly Order[]
  readonly handlers: readonly RequestHandler[]
  readonly send: Send
  /** What an honest machine would reply, with a certificate made as `options` say. */
  honest(order: Order, options?: CertificateOptions): Promise<Reply>
}

export interface Authorities {
  readonly deviceCa: Certified
  readonly mqttCa: Certified
}

export function makeVendingMachine(
  { deviceCa, mqttCa }: Authorities,
  respond: Respond = async (order, machine) => HttpResponse.json(await machine.honest(order)),
): VendingMachine {
  const orders: Order[] = []
  const handlers = [
    http.post('*/v1/enroll', async ({ request }) => {
      const body = (await request.json()) as { deviceSerial: string; csr: string }
      const order = { ...body, authorization: request.headers.get('authorization') }
      orders.push(order)
      return respond(order, machine)
    }),
  ]
  const machine: VendingMachine = {
    orders,
    handlers,
    send: sendTo(handlers),
    async honest({ deviceSerial, csr }, options) {
      const certificate = await certifyRequest(csr, deviceSerial, { issuer: deviceCa, ...options })
      return {
        deviceSerial,
        thingName: deviceSerial,
        certificateId: certificateIdOf(certificate),
        certificateChain: [certificate],
        endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: [mqttCa.certificate] },
      }
    },
  }
  return machine
}

/** A {@link Send} without a network. */
export const sendTo =
  (handlers: readonly RequestHandler[]): Send =>
  async ({ url, method, headers, body }, { beforeSend } = {} as never) => {
    beforeSend?.()
    const init = { method, headers: { ...headers }, ...(body === undefined ? {} : { body }) }
    return flatten(await answer(handlers, new Request(url, init)))
  }

const answer = async (handlers: readonly RequestHandler[], request: Request): Promise<Response> =>
  (await getResponse([...handlers], request)) ?? new Response(null, { status: 404 })

async function flatten(response: Response) {
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    body: new Uint8Array(await response.arrayBuffer()),
  }
}

/** The same handlers behind real TLS on 127.0.0.1, or without an identity over plain HTTP. */
export async function serve(
  handlers: readonly RequestHandler[],
  identity?: Certified,
): Promise<{ port: number; close(): Promise<void> }> {
  const onRequest = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const chunks: Buffer[] = []
    for await (const chunk of incoming) chunks.push(chunk)
    const body = chunks.length > 0 ? { body: Buffer.concat(chunks) } : {}
    const headers = incoming.headers as Record<string, string>
    const request = new Request(`https://localhost${incoming.url}`, {
      method: incoming.method ?? 'GET',
      headers,
      ...body,
    })
    try {
      const reply = await flatten(await answer(handlers, request))
      outgoing.writeHead(reply.status, reply.headers).end(reply.body)
    } catch {
      // A handler that throws says nothing, and the connection stays open.
    }
  }
  const server = identity
    ? https.createServer({ cert: identity.certificate, key: identity.privateKey }, onRequest)
    : http1.createServer(onRequest)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
