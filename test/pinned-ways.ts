/**
 * Both ways out of a device that pins, HTTPS to the vending server and MQTT to the broker, and the
 * server at their end.
 */
import {
  type CertvendError,
  connect,
  createVendingServer,
  fetchCaCertificates,
} from '@certvend/client'
import { afterEach, expect } from 'vitest'
import { credentialFor } from './device.ts'
import { eitherProtocol, http, listen, type Peer, type PeerOptions } from './hostile-server.ts'
import type { Chain } from './pin-hierarchy.ts'
import { type Certified, certify } from './pki.ts'

/** What a server shows, and to whom. */
export interface Shown {
  readonly chain: Chain
  readonly pins: readonly Certified[]
  readonly host?: string
  readonly peer?: PeerOptions
}

export const device: Certified = await certify('device-1')

const reply = (pins: string): Buffer =>
  http(
    200,
    { 'content-type': 'application/json' },
    JSON.stringify({ deviceCa: [pins], trustAnchors: [pins] }),
  )

export interface PinnedWays {
  /** The server that was shown last, until the test ends. */
  readonly peer: Peer | undefined
  show(shown: Shown): Promise<Peer>
  /** Both ways out of the device, by name; each resolves when the server was believed. */
  readonly ways: Readonly<Record<string, (shown: Shown) => Promise<void>>>
}

/** Ways for the tests of the file that calls this. */
export function pinnedWays(): PinnedWays {
  let peer: Peer | undefined
  afterEach(async () => {
    await peer?.close()
    peer = undefined
  })
  const show = async ({ chain: [leaf, ...rest], pins, peer: options }: Shown): Promise<Peer> => {
    peer = await listen(leaf, rest, eitherProtocol(reply(pins[0]?.certificate ?? '')), options)
    return peer
  }

  const ways: Readonly<Record<string, (shown: Shown) => Promise<void>>> = {
    'HTTPS by undici': async (shown: Shown) => {
      const { port } = await show(shown)
      const server = createVendingServer({
        url: `https://${shown.host ?? 'localhost'}:${port}`,
        pins: shown.pins.map((pin) => pin.certificate),
      })
      await fetchCaCertificates(server)
    },
    'MQTT by TLS': async (shown: Shown) => {
      const { port } = await show(shown)
      const trustAnchors = shown.pins.map((pin) => pin.certificate)
      const host = (shown.host ?? 'localhost').replace(/^\[|\]$/g, '')
      const session = await connect(credentialFor(device, { host, port, trustAnchors }))
      await session.close()
    },
  }
  return {
    get peer() {
      return peer
    },
    show,
    ways,
  }
}

/** Why `attempt` failed, as it must. */
export async function refusal(attempt: Promise<void>): Promise<CertvendError> {
  const error = await attempt.then(
    () => undefined,
    (reason) => reason,
  )
  expect(error, 'the server was believed').toBeDefined()
  return error
}

export const causeCode = (error: CertvendError): unknown => (error.cause as { code?: unknown }).code
