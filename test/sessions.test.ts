/** MQTT sessions with mutual TLS, against mosquitto. */
import { getEventListeners } from 'node:events'
import { connect, type Message, type Session, type SessionOptions } from '@certvend/client'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import { at, device, deviceCa, failureOf, server } from './encounter.ts'
import { type Mosquitto, mosquittoMissing, startMosquitto } from './mosquitto.ts'
import { type Certified, certify, farAhead, yesteryear } from './pki.ts'

async function collect(messages: AsyncIterable<Message>, count: number): Promise<string[]> {
  const seen: string[] = []
  if (count === 0) return seen
  for await (const { topic, payload } of messages) {
    seen.push(`${topic} ${Buffer.from(payload)}`)
    if (seen.length === count) break
  }
  return seen
}

describe.skipIf(mosquittoMissing)(`against mosquitto ${mosquittoMissing ?? ''}`, () => {
  let mosquitto: Mosquitto
  const sessions: Session[] = []
  beforeAll(async () => {
    const acl = ['user watcher', 'topic readwrite #', 'pattern readwrite %u/#']
    mosquitto = await startMosquitto({ server, deviceCa, acl })
  })
  afterEach(async () => {
    await Promise.all(sessions.splice(0).map((session) => session.close()))
  })
  afterAll(() => mosquitto.close())

  const open = async (options: SessionOptions = {}, who: Certified = device): Promise<Session> => {
    const session = await connect(credentialFor(who, at(mosquitto.port)), options)
    sessions.push(session)
    return session
  }

  it.each(['3.1.1', '5'] as const)(
    'publishes and receives over MQTT %s with the thing name as client id',
    async (protocol) => {
      const session = await open({ protocol })
      const messages = await session.subscribe('device-1/down/+')
      await session.publish('device-1/down/a', 'text')
      await session.publish('device-1/down/b', new Uint8Array([0, 255, 10]), { qos: 0 })
      expect(await collect(messages, 2)).toEqual([
        'device-1/down/a text',
        `device-1/down/b ${Buffer.from([0, 255, 10])}`,
      ])
      expect(session.thingName).toBe('device-1')
      expect(mosquitto.log).toMatch(/as device-1 \(p\d, c1, k60, u'device-1'\)/)
    },
  )

  it('says over MQTT 5 that a publish was refused, and goes on', async () => {
    const session = await open({ protocol: '5' })
    const refusal = await failureOf(session.publish('device-2/up', 'not mine'))
    expect(refusal).toMatchObject({ code: 'ERR_REQUEST_REFUSED', remedy: 'operator' })
    await session.publish('device-1/up', 'mine')
  })

  it('hands a message to every subscription that matches, once', async () => {
    const session = await open()
    const all = await session.subscribe('device-1/#')
    const some = await session.subscribe('device-1/+/x')
    await session.publish('device-1/a/x', '1')
    await session.publish('device-1/b', '2')
    const seen = await collect(all, 2)
    expect(seen).toContain('device-1/b 2')
    expect(await collect(some, 1)).toEqual(['device-1/a/x 1'])
  })

  it('keeps a session on the server when it is not clean', async () => {
    const first = await open({ clean: false })
    expect(first.sessionPresent).toBe(false)
    await first.subscribe('device-1/kept')
    await first.close()
    const second = await open({ clean: false })
    expect(second.sessionPresent).toBe(true)
    await second.close()
    expect((await open({ clean: true })).sessionPresent).toBe(false)
  })

  it('is taken over by a second session of the same thing, and its will is published', async () => {
    const watcher = await open({}, await certify('watcher', { issuer: deviceCa }))
    const messages = await watcher.subscribe('device-1/will')
    const first = await open({ will: { topic: 'device-1/will', payload: 'gone' } })
    const second = await open()
    expect(await first.ended).toMatchObject({
      reason: 'lost',
      error: { code: 'ERR_SESSION_LOST', remedy: 'retry' },
    })
    expect(await collect(messages, 1)).toEqual(['device-1/will gone'])
    await second.publish('device-1/up', 'alive')
  })

  it('closed on purpose leaves no will behind', async () => {
    const watcher = await open({}, await certify('watcher', { issuer: deviceCa }))
    const messages = await watcher.subscribe('device-1/#')
    const session = await open({ will: { topic: 'device-1/will', payload: 'gone' } })
    await session.close()
    await watcher.publish('device-1/after', 'closed')
    expect(await collect(messages, 1)).toEqual(['device-1/after closed'])
  })

  it('leaves no listener behind after 10 000 publishes', async () => {
    const controller = new AbortController()
    const { signal } = controller
    const warnings: Error[] = []
    const onWarning = (warning: Error): void => void warnings.push(warning)
    process.on('warning', onWarning)
    const session = await open({ signal })
    const before = getEventListeners(signal, 'abort').length
    // Eight at once: Node warns of more than ten listeners on one signal.
    for (let sent = 0; sent < 10_000; sent += 8)
      await Promise.all(
        Array.from({ length: 8 }, () => session.publish('device-1/up', 'x', { signal })),
      )
    expect(getEventListeners(signal, 'abort').length).toBe(before)
    await session.close()
    expect(getEventListeners(signal, 'abort')).toEqual([])
    process.off('warning', onWarning)
    expect(warnings).toEqual([])
  })

  describe.each(['tlsv1.2', 'tlsv1.3'] as const)('that speaks only %s', (tlsVersion) => {
    let strict: Mosquitto
    beforeAll(async () => {
      strict = await startMosquitto({ server, deviceCa, tlsVersion })
    })
    afterAll(() => strict.close())

    it('admits a certificate of its device CA', async () => {
      const session = await connect(credentialFor(device, at(strict.port)))
      await session.publish('up', 'hello')
      await session.close()
    })

    it.each([
      [
        'of a CA that it does not know',
        async () => {
          const stranger = await certify('Stranger', { ca: true })
          return certify('device-1', { issuer: stranger })
        },
      ],
      ['that has expired', () => certify('device-1', { issuer: deviceCa, notAfter: yesteryear })],
      [
        'that is not valid yet',
        () => certify('device-1', { issuer: deviceCa, notBefore: new Date('2048-12-01') }),
      ],
      ['that it issued to itself', () => certify('device-1')],
    ] as const)('refuses a certificate %s, which ends that credential', async (_title, make) => {
      const credential = credentialFor(await make(), at(strict.port), { notAfter: farAhead })
      // Under TLS 1.3 the alert races with our first bytes; many rounds, one verdict.
      for (let round = 0; round < 15; round++) {
        const refusal = await failureOf(connect(credential))
        expect(refusal, `round ${round}`).toMatchObject({
          code: 'ERR_CREDENTIAL_REFUSED',
          remedy: 'enroll',
        })
      }
    })
  })
})
