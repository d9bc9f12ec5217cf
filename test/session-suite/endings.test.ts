/** What an open session promises when the other side misbehaves, by every way: the same sentences. */

import { setTimeout as pause } from 'node:timers/promises'
import { stayConnected } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { failureOf, lost, meeting, parties } from './meeting.ts'
import { connack, disconnect, packet, polite, puback, publish, suback, typeOf } from './talk.ts'
import { skipped, type Way, ways } from './ways.ts'

const who = parties()

for (const way of ways) describe(`by ${way.name}`, () => sentences(way))

function sentences(way: Way): void {
  const call = meeting(way, who)
  const { protocol } = way

  describe('an open session', () => {
    it('acknowledges a publish when the server has, not before', async () => {
      let arrive = (): void => {}
      const arrived = new Promise<void>((resolve) => {
        arrive = resolve
      })
      let release = (): void => {}
      const credential = await call.meet(
        polite(protocol, {
          meanwhile: (bytes, socket) => {
            if (typeOf(bytes) !== packet.publish) return false
            release = () => void socket.write(puback(bytes))
            arrive()
            return true
          },
        }),
      )
      const session = await call.open(credential)
      let settled = false
      const publishing = session.publish('up', 'x').then(() => {
        settled = true
      })
      await arrived
      await session.subscribe('down') // and back
      expect(settled).toBe(false)
      release()
      await publishing
      await session.close()
    })

    it('rejects what waits when the connection is cut, and says so once', async () => {
      const credential = await call.meet(
        polite(protocol, {
          meanwhile: (bytes, socket) => typeOf(bytes) === packet.publish && !!socket.destroy(),
        }),
      )
      const session = await call.open(credential)
      const messages = await session.subscribe('down')
      expect(await failureOf(session.publish('up', 'x'))).toMatchObject({
        code: 'ERR_SESSION_LOST',
      })
      lost(await session.ended)
      lost(await session.ended)
      for await (const message of messages) expect.fail(`${message.topic} after the end`)
      await session.close()
    })

    it('that publishes outside its policy before IoT Core is disconnected', async () => {
      const credential = await call.meet(
        polite(protocol, {
          meanwhile: (bytes, socket) => bytes.includes('forbidden') && !!socket.end(),
        }),
      )
      const session = await call.open(credential)
      expect(await failureOf(session.publish('forbidden', 'x'))).toMatchObject({
        code: 'ERR_SESSION_LOST',
      })
      lost(await session.ended)
    })

    it('may give up waiting for one publish', async () => {
      const credential = await call.meet(
        polite(protocol, { meanwhile: (bytes) => typeOf(bytes) === packet.publish }),
      )
      const session = await call.open(credential)
      const stop = new AbortController()
      const publishing = failureOf(session.publish('up', 'x', { signal: stop.signal }))
      stop.abort(new Error('enough'))
      expect((await publishing).message).toBe('enough')
      const aborted = { signal: AbortSignal.abort(new Error('before')) }
      expect((await failureOf(session.publish('up', 'x', aborted))).message).toBe('before')
      await session.close()
      expect(await session.ended).toEqual({ reason: 'closed' })
    })

    it('is closed although the server never acknowledges', async () => {
      const credential = await call.meet(
        polite(protocol, { meanwhile: (bytes) => typeOf(bytes) === packet.publish }),
      )
      const session = await call.open(credential)
      const publishing = failureOf(session.publish('up', 'x'))
      await session.close()
      expect(await publishing).toMatchObject({ code: 'ERR_SESSION_LOST' })
    })

    it('is told that a subscription is refused, and goes on', async () => {
      const credential = await call.meet(
        polite(protocol, {
          meanwhile: (bytes, socket) => {
            if (!bytes.includes('forbidden')) return false
            socket.write(suback(protocol, bytes, protocol === '5' ? 135 : 128))
            return true
          },
        }),
      )
      const session = await call.open(credential)
      expect(await failureOf(session.subscribe('forbidden'))).toMatchObject({
        code: 'ERR_REQUEST_REFUSED',
        remedy: 'operator',
      })
      await session.publish('up', 'x')
      await session.close()
    })

    it('unsubscribes when the last loop of a filter is left, and from nothing else', async () => {
      const heard: string[] = []
      const credential = await call.meet(
        polite(protocol, {
          meanwhile: (bytes, socket) => {
            if (typeOf(bytes) === packet.unsubscribe) heard.push(bytes.toString('latin1'))
            if (!bytes.includes('forbidden')) return false
            socket.write(suback(protocol, bytes, protocol === '5' ? 135 : 128))
            return true
          },
        }),
      )
      const session = await call.open(credential)
      const first = (await session.subscribe('down/+'))[Symbol.asyncIterator]()
      const second = (await session.subscribe('down/+'))[Symbol.asyncIterator]()
      const other = await session.subscribe('down/#')
      await failureOf(session.subscribe('forbidden'))
      await first.return?.()
      await first.return?.()
      await session.publish('up', 'first left')
      expect(heard).toEqual([])
      await second.return?.()
      await session.publish('up', 'second left')
      expect(heard).toEqual([expect.stringMatching(/down\/\+$/)])
      const again = await session.subscribe('down/+')
      await session.close()
      for await (const { topic } of again) expect.fail(`${topic} after the end`)
      for await (const { topic } of other) expect.fail(`${topic} after the end`)
      expect(heard).toHaveLength(1)
    })

    it('ends when the server talks nonsense', async () => {
      const credential = await call.meet(
        polite(protocol, {
          meanwhile: (bytes, socket) =>
            typeOf(bytes) === packet.publish &&
            !!socket.write(Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff])),
        }),
      )
      const session = await call.open(credential)
      expect(await failureOf(session.publish('up', 'x'))).toMatchObject({
        code: 'ERR_SESSION_LOST',
      })
      lost(await session.ended)
    })

    const soon = way.pingsLate ? 'one and a half keep-alives' : 'a keep-alive'
    it(`finds within ${soon} that the other side is silent${skipped(way.pingsLate)}`, async () => {
      const credential = await call.meet(
        polite(protocol, { meanwhile: (bytes) => typeOf(bytes) === packet.ping }),
      )
      const session = await call.open(credential, { keepAliveSeconds: 2 })
      // In steps, as the pings are, so that what holds this process up holds up both.
      const late = async (ms: number): Promise<never> => {
        for (let step = 0; step < 3; step++) await pause(ms / 3)
        return expect.fail('too late')
      }
      lost(await Promise.race([session.ended, late(way.pingsLate ? 4000 : 2900)]))
    })

    it('is not taken for lost by a reader that is slower than a keep-alive', async () => {
      let id = 0
      let pings = 0
      let pinged = (): void => {}
      const often = new Promise<void>((resolve) => {
        pinged = () => ++pings === 3 && resolve()
      })
      const credential = await call.meet(
        polite(protocol, {
          meanwhile: (bytes, socket) => {
            if (typeOf(bytes) === packet.ping) pinged()
            if (typeOf(bytes) === packet.puback) return true
            if (typeOf(bytes) !== packet.subscribe) return false
            socket.write(suback(protocol, bytes))
            while (id < 16) socket.write(publish(protocol, 'down', Buffer.alloc(10), ++id))
            for (let more = 0; more < 4; more++)
              socket.write(publish(protocol, 'down', Buffer.alloc(10), 0, 0))
            return true
          },
        }),
      )
      const session = await call.open(credential, { keepAliveSeconds: 1 })
      const messages = await session.subscribe('down')
      const ended = session.ended.then(() => 'ended')
      expect(await Promise.race([often, ended])).toBeUndefined()
      let seen = 0
      for await (const _ of messages) if (++seen === 20) break
      await session.publish('up', 'still here')
      await session.close()
    })

    if (protocol === '5')
      it('quotes why an MQTT 5 server ends it', async () => {
        for (const [reason, words] of [
          [142, /took the session over/],
          [152, /reason 152/],
        ] as const) {
          const credential = await call.meet(
            polite(protocol, {
              meanwhile: (bytes, socket) =>
                typeOf(bytes) === packet.publish && !!socket.end(disconnect(reason)),
            }),
          )
          const session = await call.open(credential)
          await failureOf(session.publish('up', 'x'))
          expect(lost(await session.ended)).toMatch(words)
        }
      })

    if (protocol === '5')
      it('refuses a packet larger than an MQTT 5 server takes', async () => {
        // Maximum Packet Size (0x27), four bytes.
        const credential = await call.meet(
          polite(protocol, {
            meanwhile: (bytes, socket) =>
              typeOf(bytes) === packet.connect &&
              !!socket.write(connack('5', 0, [0x27, 0, 0, 0, 100])),
          }),
        )
        const session = await call.open(credential)
        expect(await failureOf(session.publish('up', Buffer.alloc(200)))).toMatchObject({
          code: 'ERR_REQUEST_REFUSED',
        })
        await session.publish('up', 'small')
        await session.close()
      })

    if (protocol === '3.1.1')
      it('ends with a server that cuts an oversize packet short', async () => {
        const credential = await call.meet(
          polite(protocol, {
            meanwhile: (bytes, socket) => bytes.length > 100 && !!socket.destroy(),
          }),
        )
        const session = await call.open(credential)
        expect(await failureOf(session.publish('up', Buffer.alloc(200)))).toMatchObject({
          code: 'ERR_SESSION_LOST',
        })
      })

    it.skipIf(way.readsAhead)(
      `slows the server when nobody reads${skipped(way.readsAhead)}`,
      async () => {
        let acknowledged = 0
        let sent = 0
        const window = protocol === '5' ? 16 : 1000
        const credential = await call.meet(
          polite(protocol, {
            meanwhile: (bytes, socket) => {
              const more = (): void => {
                if (sent < 200 && sent - acknowledged < window)
                  socket.write(publish(protocol, 'down', Buffer.alloc(10_000), ++sent))
              }
              if (typeOf(bytes) === packet.subscribe) {
                socket.write(suback(protocol, bytes))
                for (let times = 0; times < window; times++) more()
                return true
              }
              if (typeOf(bytes) === packet.puback) {
                acknowledged++
                more()
                return true
              }
              return false
            },
          }),
        )
        const session = await call.open(credential)
        const messages = await session.subscribe('down')
        await session.publish('up', 'x', { qos: 0 })
        await new Promise((resolve) => setTimeout(resolve, 300))
        expect(acknowledged).toBeLessThan(40)
        let seen = 0
        for await (const _ of messages) if (++seen === 200) break
        expect(seen).toBe(200)
        await session.close()
      },
    )

    if (way.readsAhead)
      it('ends rather than fill the memory when nobody reads', async () => {
        const credential = await call.meet(
          polite(protocol, {
            meanwhile: (bytes, socket) => {
              if (typeOf(bytes) === packet.puback) return true
              if (typeOf(bytes) !== packet.subscribe) return false
              socket.write(suback(protocol, bytes))
              for (let id = 1; id <= 200; id++)
                socket.write(publish(protocol, 'down', Buffer.alloc(100_000), id))
              return true
            },
          }),
        )
        const session = await call.open(credential)
        const messages = await session.subscribe('down')
        expect(lost(await session.ended)).toMatch(/slow reader/)
        let seen = 0
        for await (const _ of messages) seen++
        expect(seen).toBeGreaterThan(0)
      })

    it('that left a publish unacknowledged has it sent by the next of stayConnected', async () => {
      const flags: number[] = []
      const credential = await call.meet(
        polite(protocol, {
          meanwhile: (bytes, socket) => {
            if (typeOf(bytes) !== packet.publish) return false
            flags.push(bytes[0] ?? 0)
            return flags.length === 1 && !!socket.destroy()
          },
        }),
      )
      const stop = new AbortController()
      let published: Promise<void> | undefined
      const options = { ...way.options, signal: stop.signal, spreadMs: 20 }
      for await (const session of stayConnected(credential, options)) {
        published ??= session.publish('up', 'x').finally(() => stop.abort())
        await session.ended
      }
      await published
      const dup = way.resendsWithoutDup ? 0 : 0x08
      expect(flags).toEqual([0x32, 0x32 | dup])
    })
  })
}
