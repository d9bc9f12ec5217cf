/** Whom a session believes, and who believes it, by every way: the same sentences and codes. */

import type { TLSSocket } from 'node:tls'
import type { Credential } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { credentialFor } from '../device.ts'
import { mosquittoMissing, startMosquitto } from '../mosquitto.ts'
import {
  type CertificateOptions,
  type Certified,
  certify,
  farAhead,
  makeKeys,
  revoke,
  yesteryear,
} from '../pki.ts'
import { failureOf, meeting, parties } from './meeting.ts'
import { polite } from './talk.ts'
import { skipped, type Way, ways } from './ways.ts'

const who = parties()

for (const way of ways) describe(`by ${way.name}`, () => sentences(way))

function sentences(way: Way): void {
  const call = meeting(way, who)
  const { protocol } = way

  describe('a server that cannot be believed', () => {
    it.each<[title: string, identity: () => Promise<Certified>, code: string]>([
      [
        'another CA vouches for it',
        () => certify('localhost', { issuer: who().otherCa, dns: ['localhost'] }),
        'ERR_SERVER_UNTRUSTED',
      ],
      [
        'it signed itself',
        () => certify('localhost', { dns: ['localhost'] }),
        'ERR_SERVER_UNTRUSTED',
      ],
      [
        'it has another name',
        () => certify('other', { issuer: who().mqttCa, dns: ['other.example'] }),
        'ERR_SERVER_UNTRUSTED',
      ],
      [
        'it has expired',
        () =>
          certify('localhost', { issuer: who().mqttCa, dns: ['localhost'], notAfter: yesteryear }),
        'ERR_SERVER_UNTRUSTED',
      ],
      [
        'it is not valid yet',
        () =>
          certify('localhost', {
            issuer: who().mqttCa,
            dns: ['localhost'],
            notBefore: new Date('2048-01-01'),
          }),
        'ERR_CLOCK',
      ],
      [
        'it is for clients',
        () =>
          certify('localhost', {
            issuer: who().mqttCa,
            dns: ['localhost'],
            extendedKeyUsage: ['clientAuth'],
          }),
        'ERR_SERVER_UNTRUSTED',
      ],
    ])('is refused when %s, and hears no MQTT', async (_title, identity, code) => {
      const credential = await call.meet(polite(protocol), {}, await identity())
      expect(await failureOf(call.open(credential))).toMatchObject({ code })
      expect(call.peer.received.length).toBe(0)
    })

    it.skipIf(way.believesCommonName)(
      `is refused when its name is its common name only${skipped(way.believesCommonName)}`,
      async () => {
        const credential = await call.meet(
          polite(protocol),
          {},
          await certify('localhost', { issuer: who().mqttCa }),
        )
        expect(await failureOf(call.open(credential))).toMatchObject({
          code: 'ERR_SERVER_UNTRUSTED',
        })
        expect(call.peer.received.length).toBe(0)
      },
    )

    it('is refused when it knows nothing later than TLS 1.1', async () => {
      const tls = {
        minVersion: 'TLSv1',
        maxVersion: 'TLSv1.1',
        ciphers: 'DEFAULT@SECLEVEL=0',
      } as const
      const credential = await call.meet(polite(protocol), { tls })
      expect(await failureOf(call.open(credential))).toMatchObject({ code: 'ERR_NETWORK' })
      expect(call.peer.received.length).toBe(0)
    })

    it('is refused before any connection when nothing vouches for it', async () => {
      const { endpoint, ...rest } = await call.meet(polite(protocol))
      const credential = { ...rest, endpoint: { ...endpoint, trustAnchors: [] } }
      await expect(call.open(credential)).rejects.toThrow(TypeError)
      expect(call.peer.opened).toBe(0)
    })
  })

  describe('a server that can', () => {
    it.each(['TLSv1.2', 'TLSv1.3'] as const)(
      'is believed by %s, with RSA and with EC',
      async (version) => {
        const tls = { minVersion: version, maxVersion: version }
        for (const type of ['EC', 'RSA'] as const) {
          const identity = await certify('localhost', {
            issuer: who().mqttCa,
            dns: ['localhost'],
            keys: await makeKeys(type),
          })
          const { endpoint } = await call.meet(polite(protocol), { tls }, identity)
          const ours = await certify('device-1', {
            issuer: who().deviceCa,
            keys: await makeKeys(type),
          })
          const session = await call.open(credentialFor(ours, endpoint))
          await session.publish('device-1/up', 'x')
          await session.close()
        }
      },
    )

    it('hears the host name, the ALPN name of port 443, and the whole chain', async () => {
      const heard: unknown[] = []
      const credential = await call.meet(
        (socket, reset) => {
          const secure = socket as unknown as TLSSocket
          const { subject, issuerCertificate } = secure.getPeerCertificate(true)
          heard.push(
            secure.servername,
            secure.alpnProtocol,
            subject.CN,
            issuerCertificate?.subject.CN,
          )
          polite(protocol)(socket, reset)
        },
        { tls: { ALPNProtocols: ['x-amzn-mqtt-ca', 'mqtt'] } },
      )
      const session = await call.open({
        ...credential,
        certificateChain: who().device.certificate + who().deviceCa.certificate,
        endpoint: { ...credential.endpoint, alpn: 'x-amzn-mqtt-ca' },
      })
      await session.close()
      expect(heard).toEqual(['localhost', 'x-amzn-mqtt-ca', 'device-1', 'Device CA'])
    })
  })

  describe('our own certificate', () => {
    it('that has expired by our clock is not even shown', async () => {
      const { endpoint } = await call.meet(polite(protocol))
      const expired = await certify('device-1', { issuer: who().deviceCa, notAfter: yesteryear })
      const error = await failureOf(call.open(credentialFor(expired, endpoint)))
      expect(error).toMatchObject({ code: 'ERR_CREDENTIAL_EXPIRED', remedy: 'enroll' })
      expect(call.peer.opened).toBe(0)
    })

    it('that is for another key is not even shown', async () => {
      const credential = await call.meet(polite(protocol))
      const { certificate } = await certify('device-1', { issuer: who().deviceCa })
      const error = await failureOf(call.open({ ...credential, certificateChain: certificate }))
      expect(error).toMatchObject({ code: 'ERR_CERTIFICATE_MISMATCH', remedy: 'operator' })
      expect(call.peer.opened).toBe(0)
    })

    // A credential always has a certificate, so a session without one cannot be asked for.
    describe.skipIf(mosquittoMissing).each(['tlsv1.2', 'tlsv1.3'] as const)(
      `is refused by mosquitto's alerts, %s${skipped(mosquittoMissing)}`,
      (tlsVersion) => {
        const ours = (options: CertificateOptions = {}): Promise<Certified> =>
          certify('device-1', { issuer: who().deviceCa, ...options })
        it.each<[title: string, shown: () => Promise<Certified>, more?: Partial<Credential>]>([
          ['an unknown issuer', () => ours({ issuer: who().otherCa })],
          [
            'a certificate that has expired by its clock',
            () => ours({ notAfter: yesteryear }),
            { notAfter: farAhead },
          ],
          ['a certificate for servers', () => ours({ extendedKeyUsage: ['serverAuth'] })],
          ['a certificate that was revoked', () => ours()],
        ])('for %s', async (title, shown, more) => {
          const { server, deviceCa } = who()
          const device = await shown()
          const crl = title.endsWith('revoked') ? await revoke(deviceCa, [device]) : undefined
          const options = { server, deviceCa, tlsVersion, ...(crl ? { crl } : {}) }
          const mosquitto = await startMosquitto(options)
          try {
            const error = await failureOf(
              call.open(credentialFor(device, call.at(mosquitto.port), more)),
            )
            if (!way.losesAlerts || error.code !== 'ERR_SESSION_REFUSED')
              expect(error).toMatchObject({ code: 'ERR_CREDENTIAL_REFUSED', remedy: 'enroll' })
          } finally {
            await mosquitto.close()
          }
        })
      },
    )

    it.each(['TLSv1.2', 'TLSv1.3'] as const)('is refused by a bare close, %s', async (version) => {
      const { endpoint } = await call.meet(polite(protocol), {
        tls: {
          ca: who().deviceCa.certificate,
          rejectUnauthorized: true,
          minVersion: version,
          maxVersion: version,
        },
      })
      const stranger = await certify('device-1', { issuer: who().otherCa })
      const error = await failureOf(call.open(credentialFor(stranger, endpoint)))
      // By TLS 1.3 we are through before the server has looked; by 1.2 the network seems to fail.
      expect(error.code).toBe(version === 'TLSv1.3' ? 'ERR_SESSION_REFUSED' : 'ERR_NETWORK')
    })
  })
}
