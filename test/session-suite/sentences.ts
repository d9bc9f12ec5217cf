/** What a session promises, by every way and against a broker: the same sentences for each. */
import {
  type Credential,
  connect,
  type Message,
  type Session,
  type SessionOptions,
  stayConnected,
} from '@certvend/client'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Broker, RunningBroker } from './brokers.ts'
import { skipped, type Way, ways } from './ways.ts'

async function take(messages: AsyncIterable<Message>, count: number): Promise<string[]> {
  const seen: string[] = []
  for await (const { topic, payload } of messages) {
    seen.push(`${topic} ${Buffer.from(payload)}`)
    if (seen.length === count) break
  }
  return seen
}

const failureOf = (attempt: Promise<unknown>): Promise<unknown> =>
  attempt.then(
    () => expect.fail('it was expected to fail'),
    (error) => error,
  )

export function sessionsAgainst(broker: Broker): void {
  describe.skipIf(broker.missing)(`against ${broker.name}${skipped(broker.missing)}`, () => {
    let running: RunningBroker
    beforeAll(async () => {
      running = await broker.start()
    })
    afterAll(() => running.close())

    for (const way of ways) {
      const cannot = way.protocol === '5' ? broker.no5 : undefined
      describe.skipIf(cannot)(`by ${way.name}${skipped(cannot)}`, () => sentences(way))
    }

    function sentences(way: Way): void {
      const open: Session[] = []
      const key = ways.indexOf(way)
      let made = 0
      let name: string
      let credential: Credential
      beforeAll(async () => {
        credential = await running.device(`device-${key}`)
        name = credential.thingName
      })
      afterEach(async () => {
        await Promise.all(open.splice(0).map((session) => session.close()))
      })
      const start = async (
        options: SessionOptions = {},
        who: Credential = credential,
      ): Promise<Session> => {
        const session = await connect(who, { ...way.options, ...options })
        open.push(session)
        return session
      }
      const another = (): Promise<Credential> => running.device(`other-${key}-${++made}`)

      it('publishes text and bytes with either QoS, and receives them in order', async () => {
        const session = await start()
        expect(session).toMatchObject({ thingName: name, sessionPresent: false })
        const messages = await session.subscribe(`${name}/down/+`)
        await session.publish(`${name}/down/a`, 'text')
        await session.publish(`${name}/down/b`, new Uint8Array([0, 255, 10]), { qos: 0 })
        await session.publish(`${name}/down/c`, '')
        expect(await take(messages, 3)).toEqual([
          `${name}/down/a text`,
          `${name}/down/b ${Buffer.from([0, 255, 10])}`,
          `${name}/down/c `,
        ])
      })

      it('acknowledges a hundred publishes at once, and none is lost', async () => {
        const session = await start()
        const messages = await session.subscribe(`${name}/many`)
        const texts = Array.from({ length: 100 }, (_, index) => String(index))
        const seen = take(messages, texts.length)
        await Promise.all(texts.map((text) => session.publish(`${name}/many`, text)))
        expect(await seen).toEqual(texts.map((text) => `${name}/many ${text}`))
      })

      it('carries a payload of 100 000 bytes', async () => {
        const session = await start()
        const messages = await session.subscribe(`${name}/large`)
        const large = Buffer.alloc(100_000, 'x')
        await session.publish(`${name}/large`, large)
        for await (const { payload } of messages) {
          expect(Buffer.from(payload).equals(large)).toBe(true)
          break
        }
      })

      const copies = broker.copies?.[way.protocol]
      it(`hands a message to every subscription that matches${copies ? ` (more than once: ${copies})` : ', once'}`, async () => {
        const session = await start()
        const all = await session.subscribe(`${name}/#`)
        const some = await session.subscribe(`${name}/+/x`)
        await session.publish(`${name}/a/x`, '1')
        await session.publish(`${name}/b`, '2')
        await session.publish(`${name}/end`, '')
        const seen: string[] = []
        for await (const { topic } of all) {
          if (topic === `${name}/end`) break
          seen.push(topic)
        }
        expect(copies ? [...new Set(seen)] : seen).toEqual([`${name}/a/x`, `${name}/b`])
        expect(await take(some, 1)).toEqual([`${name}/a/x 1`])
      })

      it('finds a retained message', async () => {
        const session = await start()
        await session.publish(`${name}/kept`, 'still here', { retain: true })
        for await (const { payload, retain } of await session.subscribe(`${name}/kept`)) {
          expect({ text: String(payload), retain }).toEqual({ text: 'still here', retain: true })
          break
        }
        await session.publish(`${name}/kept`, '', { retain: true })
      })

      it('is remembered by the server when it is not clean, with what came meanwhile', async () => {
        const other = await start({}, await another())
        const topic = `shared/${other.thingName}`
        const first = await start({ clean: false })
        expect(first.sessionPresent).toBe(false)
        await first.subscribe(topic)
        await first.close()
        await other.publish(topic, 'while it was away')
        const second = await start({ clean: false })
        expect(second.sessionPresent).toBe(true)
        const messages = await second.subscribe(topic)
        expect(await take(messages, 1)).toEqual([`${topic} while it was away`])
        await second.close()
        expect((await start({ clean: true })).sessionPresent).toBe(false)
      })

      it('is sent nothing for a loop that was left, also while it is away', async () => {
        const other = await start({}, await another())
        const topic = `shared/${other.thingName}`
        const first = await start({ clean: false })
        const messages = await first.subscribe(topic)
        await other.publish(topic, 'heard')
        expect(await take(messages, 1)).toEqual([`${topic} heard`])
        await first.publish(`${name}/after`, 'the server has read what came before')
        await first.close()
        await other.publish(topic, 'while it was away')
        const second = await start({ clean: false })
        const since = await second.subscribe(topic)
        await other.publish(topic, 'and back')
        expect(await take(since, 1)).toEqual([`${topic} and back`])
        await second.close()
        await start({ clean: true })
      })

      it('ends once by close, however often and by whomever it is called', async () => {
        const session = await start()
        const messages = await session.subscribe(`${name}/none`)
        await Promise.all([session.close(), session.close()])
        await session.close()
        expect(await session.ended).toEqual({ reason: 'closed' })
        expect(await take(messages, 1)).toEqual([])
        expect(await failureOf(session.publish(`${name}/late`, ''))).toMatchObject({
          code: 'ERR_SESSION_LOST',
        })
        expect(await failureOf(session.subscribe(`${name}/late`))).toMatchObject({
          code: 'ERR_SESSION_LOST',
        })
      })

      it('ends when its signal aborts, and does not begin when that has', async () => {
        const stop = new AbortController()
        const session = await start({ signal: stop.signal })
        stop.abort(new Error('enough'))
        expect(await session.ended).toEqual({ reason: 'closed' })
        expect(await failureOf(start({ signal: stop.signal }))).toBe(stop.signal.reason)
      })

      it('is taken over by a second of the same thing, and its will is published', async () => {
        const watcher = await start({}, await another())
        const topic = `${watcher.thingName}/will`
        const messages = await watcher.subscribe(topic)
        const will = { topic: broker.noPolicy ? topic : `shared/${name}`, payload: 'gone' }
        const wills = broker.noPolicy ? messages : await watcher.subscribe(will.topic)
        const first = await start({ will })
        const second = await start({})
        expect(await first.ended).toMatchObject({
          reason: 'lost',
          error: { code: 'ERR_SESSION_LOST' },
        })
        expect(await take(wills, 1)).toEqual([`${will.topic} gone`])
        await second.publish(`${name}/alive`, '')
      })

      it('closed on purpose leaves no will behind', async () => {
        const watcher = await start({}, await another())
        const topic = broker.noPolicy ? `${watcher.thingName}/will` : `shared/${name}`
        const messages = await watcher.subscribe(topic)
        const session = await start({ will: { topic, payload: 'gone' } })
        await session.close()
        const next = await start()
        await next.publish(topic, 'not a will')
        expect(await take(messages, 1)).toEqual([`${topic} not a will`])
      })

      const silent =
        broker.noPolicy ?? (way.protocol === '5' ? undefined : 'MQTT 3.1.1 has no word for it')
      it.skipIf(silent)(
        `is told that a publish is outside its policy, and goes on${skipped(silent)}`,
        async () => {
          const session = await start()
          expect(await failureOf(session.publish('elsewhere', 'not mine'))).toMatchObject({
            code: 'ERR_REQUEST_REFUSED',
            remedy: 'operator',
          })
          await session.publish(`${name}/mine`, 'mine')
        },
      )

      it('follows another in stayConnected', async () => {
        const stop = new AbortController()
        const options = { ...way.options, signal: stop.signal, spreadMs: 50 }
        let sessions = 0
        for await (const session of stayConnected(credential, options)) {
          await session.publish(`${name}/up`, String(sessions))
          if (++sessions === 3) stop.abort()
          else await session.close()
        }
        expect(sessions).toBe(3)
      })
    }
  })
}
