/** An encounter of a device with a broker that talks as a test wants. */
import type { Credential } from '@certvend/client'
import { afterEach, expect } from 'vitest'
import { credentialFor } from './device.ts'
import { connack, listen, type Peer, type PeerOptions, type Talk } from './hostile-server.ts'
import { type Certified, certify } from './pki.ts'

const mqttCa: Certified = await certify('MQTT CA', { ca: true })
export const server: Certified = await certify('localhost', { issuer: mqttCa, dns: ['localhost'] })
export const deviceCa: Certified = await certify('Device CA', { ca: true })
export const device: Certified = await certify('device-1', { issuer: deviceCa })

/** The endpoint that a credential of `device` names. */
export const at = (
  port: number,
  more: Partial<Credential['endpoint']> = {},
): Credential['endpoint'] => ({
  host: 'localhost',
  port,
  trustAnchors: [mqttCa.certificate],
  ...more,
})

/** Why `attempt` failed, as it must. */
export const failureOf = async (attempt: Promise<unknown>): Promise<unknown> => {
  const outcome = await attempt.then(
    () => ({ ok: true }),
    (error) => ({ ok: false, error }),
  )
  expect(outcome, 'it was expected to fail').toMatchObject({ ok: false })
  return (outcome as { error: unknown }).error
}

/** Answers CONNECT with `bytes`. */
export const answering =
  (bytes: Uint8Array): Talk =>
  (socket) =>
    void socket.once('data', () => socket.write(bytes))
export const accepting: Talk = answering(connack())

export interface Encounters {
  /** The broker that was met last. */
  readonly peer: Peer
  /** Meets a broker that talks as told, until the test ends; resolves with a credential for it. */
  meet(talk: Talk, options?: PeerOptions): Promise<Credential>
}

/** Brokers to be met, by the tests of the file or suite that calls this. */
export function encounters(): Encounters {
  let peer: Peer
  afterEach(() => peer.close())
  return {
    get peer() {
      return peer
    },
    async meet(talk, options) {
      peer = await listen(server, [], talk, options)
      return credentialFor(device, at(peer.port))
    },
  }
}
