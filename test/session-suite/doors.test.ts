/** What keeps a session from opening, by every way: the same sentences and codes. */

import { type AddressInfo, createServer } from 'node:net'
import { parseTrustAnchors } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { credentialFor } from '../device.ts'
import type { Talk } from '../hostile-server.ts'
import { startHttpProxy } from '../http-proxy.ts'
import { certify } from '../pki.ts'
import { failureOf, meeting, parties } from './meeting.ts'
import { connack, polite } from './talk.ts'
import { skipped, type Way, ways } from './ways.ts'

/** MQTT 3.1.1 section 3.2.2.3: 3 is "server unavailable"; 6 and 255 are not defined. */
const connackCodes311 = [
  [1, 'ERR_SESSION_REFUSED'],
  [2, 'ERR_SESSION_REFUSED'],
  [3, 'ERR_SERVER_BUSY'],
  [4, 'ERR_SESSION_REFUSED'],
  [5, 'ERR_SESSION_REFUSED'],
] as const
/** MQTT 5 section 3.2.2.2: 136 server unavailable, 137 busy, 151 quota, 159 connection rate. */
const connackCodes5 = [
  128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 140, 144, 149, 151, 153, 154, 155, 156,
  157, 159,
].map(
  (code) =>
    [
      code,
      [136, 137, 151, 159].includes(code) ? 'ERR_SERVER_BUSY' : 'ERR_SESSION_REFUSED',
    ] as const,
)

const who = parties()

for (const way of ways) describe(`by ${way.name}`, () => sentences(way))

function sentences(way: Way): void {
  const call = meeting(way, who)
  const { protocol } = way

  const silent: Talk = () => {}

  describe('a door that stays shut', () => {
    const codes = protocol === '5' ? connackCodes5 : connackCodes311
    const answering =
      (code: number): Talk =>
      (socket) =>
        socket.once('data', () => socket.end(connack(protocol, code)))
    it.skipIf(way.hidesConnack).each(codes)(
      `by CONNACK %i is %s, with the code${skipped(way.hidesConnack)}`,
      async (code, ours) => {
        const error = await failureOf(call.open(await call.meet(answering(code))))
        expect(error.code).toBe(ours)
        expect(error.message).toContain(`CONNACK ${code}`)
      },
    )
    if (way.hidesConnack)
      it.each(codes)('by CONNACK %i is a refusal', async (code) => {
        const error = await failureOf(call.open(await call.meet(answering(code))))
        expect(error).toMatchObject({ code: 'ERR_SESSION_REFUSED' })
      })

    it.each<[title: string, talk: Talk]>([
      ['at once', (socket) => socket.destroy()],
      ['at once, politely', (socket) => socket.end()],
      ['after CONNECT', (socket) => socket.once('data', () => socket.destroy())],
      [
        'in the middle of CONNACK',
        (socket) => socket.once('data', () => socket.end(connack(protocol).subarray(0, 2))),
      ],
    ])('by closing before CONNACK, %s, is refused without a reason', async (_title, talk) => {
      expect(await failureOf(call.open(await call.meet(talk)))).toMatchObject({
        code: 'ERR_SESSION_REFUSED',
        remedy: 'retry',
      })
    })

    it('by never answering CONNECT is a timeout', async () => {
      const error = await failureOf(call.open(await call.meet(silent), { deadlineMs: 500 }))
      expect(error).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
    })

    it('by never answering TLS is a timeout', async () => {
      const credential = await call.meet(silent, { plain: true })
      expect(await failureOf(call.open(credential, { deadlineMs: 500 }))).toMatchObject({
        code: 'ERR_TIMEOUT',
      })
    })

    it('by ending the connection before TLS is a fault of the network', async () => {
      const credential = await call.meet((socket) => socket.destroy(), { plain: true })
      expect(await failureOf(call.open(credential))).toMatchObject({ code: 'ERR_NETWORK' })
    })

    it('that is not there, or whose name nobody knows, is a fault of the network', async () => {
      const empty = createServer().listen(0, '127.0.0.1')
      await new Promise((resolve) => empty.once('listening', resolve))
      const { port } = empty.address() as AddressInfo
      await new Promise((resolve) => empty.close(resolve))
      for (const endpoint of [call.at(port), call.at(port, { host: 'nowhere.invalid' })])
        expect(await failureOf(call.open(credentialFor(who().device, endpoint)))).toMatchObject({
          code: 'ERR_NETWORK',
        })
    })

    it.each(['before it opened', 'while it opens', 'while TLS is spoken'])(
      'is left when the signal aborts %s',
      async (when) => {
        const credential = await call.meet(silent, { plain: when === 'while TLS is spoken' })
        const stop = new AbortController()
        if (when === 'before it opened') stop.abort(new Error('enough'))
        const opening = failureOf(call.open(credential, { signal: stop.signal }))
        if (when !== 'before it opened') {
          while (call.peer.opened === 0) await new Promise((resolve) => setImmediate(resolve))
          stop.abort(new Error('enough'))
        }
        expect((await opening).message).toBe('enough')
        if (when === 'before it opened') expect(call.peer.opened).toBe(0)
      },
    )

    it.each(['http', 'https'] as const)(
      'is reached through an %s proxy that demands credentials, and not without them',
      async (scheme) => {
        const { mqttCa } = who()
        const identity = await certify('localhost', { issuer: mqttCa, dns: ['localhost'] })
        const named = await certify('mqtt', { issuer: mqttCa, dns: ['mqtt.example'] })
        const { endpoint, ...rest } = await call.meet(polite(protocol), {}, named)
        const behind = { ...rest, endpoint: { ...endpoint, host: 'mqtt.example' } }
        const proxy = await startHttpProxy({
          credentials: 'us:er%',
          hosts: { 'mqtt.example': '127.0.0.1' },
          ...(scheme === 'https' ? { identity } : {}),
        })
        try {
          const proxyAnchors = parseTrustAnchors(mqttCa.certificate)
          const url = (user: string) => new URL(`${scheme}://${user}localhost:${proxy.port}`)
          const options = { proxyAnchors, proxy: url('us:er%25@') }
          const session = await call.open(behind, options)
          await session.publish('device-1/up', 'x')
          await session.close()
          const refused = await failureOf(call.open(behind, { ...options, proxy: url('') }))
          expect(refused).toMatchObject({ code: 'ERR_PROXY' })
        } finally {
          await proxy.close()
        }
      },
    )
  })
}
