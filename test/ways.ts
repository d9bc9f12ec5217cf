/**
 * Both ways out of the device, HTTPS to the vending server and MQTT to the broker, and a server that
 * speaks just enough of both protocols. Its names are known to the proxy only.
 */
import type net from 'node:net'
import type { TlsOptions } from 'node:tls'
import {
  type CertvendError,
  type Credential,
  connect,
  createVendingServer,
  fetchCaCertificates,
  type ProxyOptions,
} from '@certvend/client'
import { expect, onTestFinished } from 'vitest'
import { credentialFor } from './device.ts'
import { eitherProtocol, http, listen, type Peer } from './hostile-server.ts'
import { type HttpProxy, type HttpProxyOptions, startHttpProxy } from './http-proxy.ts'
import { type Certified, certify } from './pki.ts'

export const names: readonly string[] = ['vend.example', 'mqtt.example']

export const root: Certified = await certify('Root', { ca: true })
/** The pin, and the trust anchor. */
export const inter: Certified = await certify('Intermediate', { issuer: root, ca: true })
export const sibling: Certified = await certify('Sibling', { issuer: root, ca: true })
export const leaf: Certified = await certify('server', { issuer: inter, dns: names })
const device = await certify('device-1')

export interface WayOptions extends ProxyOptions {
  readonly deadlineMs?: number
  readonly signal?: AbortSignal
}

/** A way out; resolves when the server was reached and believed. */
export interface Way {
  readonly host: string
  /** @param host default: the way's own */
  open(port: number, options?: WayOptions, host?: string): Promise<void>
}

export const https: Way = {
  host: 'vend.example',
  async open(port, options = {}, host = https.host) {
    const url = `https://${host}:${port}`
    await fetchCaCertificates(createVendingServer({ url, pins: inter.certificate }), options)
  },
}

export const mqtt: Way = {
  host: 'mqtt.example',
  async open(port, options = {}, host = mqtt.host) {
    const session = await connect(credential(port, host), options)
    await session.close()
  },
}

export const ways: readonly (readonly [string, Way])[] = [
  ['HTTPS', https],
  ['MQTT', mqtt],
]

export const credential = (port: number, host: string = mqtt.host): Credential =>
  credentialFor(device, {
    host: host.replace(/^\[|\]$/g, ''),
    port,
    alpn: 'x-amzn-mqtt-ca',
    trustAnchors: [inter.certificate],
  })

/** A server until the test ends. */
export async function server(
  identity: Certified = leaf,
  chain: readonly Certified[] = [],
  tls: TlsOptions = {},
  address = '127.0.0.1',
): Promise<Peer> {
  const { certificate } = inter
  const reply = JSON.stringify({ deviceCa: [certificate], trustAnchors: [certificate] })
  const answer = http(200, { 'content-type': 'application/json' }, reply)
  const peer = await listen(identity, chain, eitherProtocol(answer), { tls, address })
  onTestFinished(() => peer.close())
  return peer
}

/** A proxy until the test ends, which knows the names. */
export async function proxy(options: HttpProxyOptions = {}): Promise<HttpProxy> {
  const hosts = Object.fromEntries(names.map((name) => [name, '127.0.0.1']))
  const started = await startHttpProxy({ hosts, ...options })
  onTestFinished(() => started.close())
  return started
}

/** A proxy that does something of its own with CONNECT. */
export const proxyThat = (instead: (socket: net.Socket) => void): Promise<HttpProxy> =>
  proxy({ instead: (socket) => instead(socket) })

/** The URL of a proxy. */
export const at = ({ port }: HttpProxy, credentials = '', scheme = 'http'): URL =>
  new URL(`${scheme}://${credentials}${credentials && '@'}127.0.0.1:${port}`)

/** Why `attempt` failed, as it must. */
export async function failure(attempt: Promise<unknown>): Promise<CertvendError> {
  const outcome = await attempt.then(
    () => undefined,
    (error) => error,
  )
  expect(outcome, 'the connection came about').toBeDefined()
  return outcome
}
