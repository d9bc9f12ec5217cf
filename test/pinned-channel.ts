/** A pinned HTTPS channel over real TLS to a peer that talks as a test wants, byte by byte. */
import type { Socket } from 'node:net'
import {
  type CaCertificates,
  CertvendError,
  createVendingServer,
  type EnrollOptions,
  fetchCaCertificates,
  type VendingServer,
} from '@certvend/client'
import { afterEach, expect } from 'vitest'
import { listen, type Peer, type PeerOptions, type Talk } from './hostile-server.ts'
import { type Certified, certify } from './pki.ts'

const root = await certify('Root', { ca: true })
export const pin: Certified = await certify('Intermediate', { issuer: root, ca: true })
export const identity: Certified = await certify('localhost', { issuer: pin, dns: ['localhost'] })
export const deviceCa: Certified = await certify('Device CA', { ca: true })
/** The reply to a request for the CA certificates. */
export const caCertificates: string = JSON.stringify({
  deviceCa: [deviceCa.certificate],
  trustAnchors: [pin.certificate],
} satisfies CaCertificates)

export const json = { 'content-type': 'application/json' } as const

export interface PinnedChannel {
  /** The peer that was met last. */
  readonly peer: Peer
  /** Meets a peer that talks as told, until the test ends. */
  meet(talk: Talk, options?: PeerOptions): Promise<Peer>
  /** The vending server that the peer plays. */
  vendingServer(prefix?: string): VendingServer
  /** Asks a peer that talks as told for the CA certificates. */
  ask(talk: Talk, options?: EnrollOptions, peerOptions?: PeerOptions): Promise<CaCertificates>
  /** Why the reply was not believed, as it must not be. */
  refusal(talk: Talk, options?: EnrollOptions, peerOptions?: PeerOptions): Promise<CertvendError>
}

/** A channel for the tests of the file that calls this. */
export function pinnedChannel(): PinnedChannel {
  let peer: Peer
  afterEach(() => peer?.close())
  const channel: PinnedChannel = {
    get peer() {
      return peer
    },
    async meet(talk, options) {
      peer = await listen(identity, [], talk, options)
      return peer
    },
    vendingServer: (prefix = '') =>
      createVendingServer({
        url: `https://localhost:${peer.port}${prefix}`,
        pins: pin.certificate,
      }),
    async ask(talk, options = {}, peerOptions) {
      await channel.meet(talk, peerOptions)
      return fetchCaCertificates(channel.vendingServer(), options)
    },
    async refusal(talk, options, peerOptions) {
      const outcome = await channel.ask(talk, options, peerOptions).catch((error) => error)
      expect(outcome, 'a reply was believed').toBeInstanceOf(CertvendError)
      return outcome
    },
  }
  return channel
}

/** Waits for a whole request without a body, then goes on. */
export const afterRequest =
  (then: (socket: Socket, reset: () => void) => void): Talk =>
  (socket, reset) => {
    let heard = ''
    socket.on('data', (bytes) => {
      heard += bytes.toString('latin1')
      if (!heard.includes('\r\n\r\n')) return
      heard = ''
      then(socket, reset)
    })
  }
export const replying = (bytes: Uint8Array): Talk =>
  afterRequest((socket) => void socket.write(bytes))
