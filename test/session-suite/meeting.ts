/** A device and a server that a test made up, met by one of the ways. */
import {
  type CertvendError,
  type Credential,
  connect,
  type Endpoint,
  type Session,
  type SessionEnd,
  type SessionOptions,
} from '@certvend/client'
import { afterEach, beforeAll, expect } from 'vitest'
import { credentialFor } from '../device.ts'
import { listen, type Peer, type PeerOptions, type Talk } from '../hostile-server.ts'
import { type Certified, certify } from '../pki.ts'
import type { Way } from './ways.ts'

export interface Parties {
  readonly mqttCa: Certified
  readonly otherCa: Certified
  readonly server: Certified
  readonly deviceCa: Certified
  readonly device: Certified
}

/** Makes the parties of a file, before its tests. */
export function parties(): () => Parties {
  let made: Parties
  beforeAll(async () => {
    const [mqttCa, otherCa, deviceCa] = await Promise.all(
      ['MQTT CA', 'Other CA', 'Device CA'].map((name) => certify(name, { ca: true })),
    )
    const server = await certify('localhost', { issuer: mqttCa!, dns: ['localhost'] })
    const device = await certify('device-1', { issuer: deviceCa! })
    made = { mqttCa: mqttCa!, otherCa: otherCa!, deviceCa: deviceCa!, server, device }
  })
  return () => made
}

export interface Meeting {
  /** Opens a listener that asks for a client certificate and admits every one; tells who may call it. */
  meet(talk: Talk, options?: PeerOptions, identity?: Certified): Promise<Credential>
  open(credential: Credential, options?: SessionOptions): Promise<Session>
  /** The listener of the last `meet`. */
  readonly peer: Peer
  /** Where a device would look for a server of ours. */
  at(port: number, more?: Partial<Endpoint>): Endpoint
}

export function meeting(way: Way, who: () => Parties): Meeting {
  let peer: Peer | undefined
  afterEach(async () => {
    await peer?.close()
    peer = undefined
  })
  const at: Meeting['at'] = (port, more = {}) => ({
    host: 'localhost',
    port,
    trustAnchors: [who().mqttCa.certificate],
    ...more,
  })
  return {
    async meet(talk, { tls, ...more } = {}, identity = who().server) {
      await peer?.close()
      const asking = { requestCert: true, rejectUnauthorized: false, ...tls }
      peer = await listen(identity, [], talk, { ...more, tls: asking })
      return credentialFor(who().device, at(peer.port))
    },
    open: (credential, options = {}) => connect(credential, { ...way.options, ...options }),
    get peer() {
      return peer as Peer
    },
    at,
  }
}

export const failureOf = (attempt: Promise<unknown>): Promise<CertvendError> =>
  attempt.then(
    () => expect.fail('it was expected to fail'),
    (error) => error,
  )

/** Judges that a session ended without anybody wanting it, and returns the words for it. */
export function lost(end: SessionEnd): string {
  expect(end).toMatchObject({
    reason: 'lost',
    error: { code: 'ERR_SESSION_LOST', remedy: 'retry' },
  })
  return end.reason === 'lost' ? end.error.message : ''
}
