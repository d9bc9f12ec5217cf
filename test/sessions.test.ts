/** MQTT sessions with mutual TLS: against mosquitto, and against brokers that misbehave. */
import { getEventListeners } from 'node:events'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import {
  type Credential,
  connect,
  type Message,
  type Session,
  type SessionOptions,
} from '@certvend/client'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import {
  broker,
  connack,
  listen,
  onPackets,
  type Peer,
  type PeerOptions,
  suback,
  type Talk,
} from './hostile-server.ts'
import { type Mosquitto, mosquittoMissing, startMosquitto } from './mosquitto.ts'
import { type Certified, certify, farAhead, yesteryear } from './pki.ts'

let mqttCa: Certified
let server: Certified
let deviceCa: Certified
let device: Certified

beforeAll(async () => {
  mqttCa = await certify('MQTT CA', { ca: true })
  server = await certify('localhost', { issuer: mqttCa, dns: ['localhost'] })
  deviceCa = await certify('Device CA', { ca: true })
  device = await certify('device-1', { issuer: deviceCa })
})

const at = (port: number, more: Partial<Credential['endpoint']> = {}): Credential['endpoint'] => ({
  host: 'localhost',
  port,
  trustAnchors: [mqttCa.certificate],
  ...more,
})

const failureOf = async (attempt: Promise<unknown>): Promise<unknown> => {
  const outcome = await attempt.then(
    () => ({ ok: true }),
    (error) => ({ ok: false, error }),
  )
  expect(outcome, 'it was expected to fail').toMatchObject({ ok: false })
  return (outcome as { error: unknown }).error
}

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

describe('a broker that misbehaves', () => {
  let peer: Peer
  afterEach(() => peer.close())

  const meet = async (talk: Talk, options?: PeerOptions): Promise<Credential> => {
    peer = await listen(server, [], talk, options)
    return credentialFor(device, at(peer.port))
  }
  /** Answers CONNECT with `bytes`. */
  const answering =
    (bytes: Uint8Array): Talk =>
    (socket) =>
      void socket.once('data', () => socket.write(bytes))
  const accepting = answering(connack())
  const connack5 = (reasonCode: number): Buffer => Buffer.from([0x20, 3, 0, reasonCode, 0])

  it('by never answering CONNECT runs into the deadline', async () => {
    const credential = await meet(() => {})
    const failure = await failureOf(connect(credential, { deadlineMs: 100 }))
    expect(failure).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
  })

  it('by never answering the TLS handshake runs into the deadline', async () => {
    const credential = await meet(() => {}, { plain: true })
    const failure = await failureOf(connect(credential, { deadlineMs: 100 }))
    expect(failure).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
  })

  it('by dripping CONNACK for ever runs into the deadline', async () => {
    let dripping: NodeJS.Timeout | undefined
    const credential = await meet((socket) => {
      socket.once('data', () => {
        socket.write(Buffer.from([0x20, 0xff, 0xff, 0x7f]))
        dripping = setInterval(() => socket.write('\0'), 10)
      })
    })
    const failure = await failureOf(connect(credential, { deadlineMs: 200 }))
    clearInterval(dripping)
    expect(failure).toMatchObject({ code: 'ERR_TIMEOUT' })
  })

  it.each<readonly [string, Talk]>([
    ['ends the connection at once', (socket) => void socket.end()],
    ['ends the connection after CONNECT', (socket) => void socket.once('data', () => socket.end())],
    ['resets the connection after CONNECT', (socket, reset) => void socket.once('data', reset)],
    [
      'ends the connection in the middle of CONNACK',
      (socket) => void socket.once('data', () => socket.end(Buffer.from([0x20, 2]))),
    ],
  ])('and %s has refused the session, as IoT Core does', async (_title, talk) => {
    const failure = await failureOf(connect(await meet(talk)))
    expect(failure).toMatchObject({ code: 'ERR_SESSION_REFUSED', remedy: 'retry' })
  })

  it('and ends the connection before TLS is a network fault', async () => {
    const credential = await meet((socket) => void socket.destroy(), { plain: true })
    expect(await failureOf(connect(credential))).toMatchObject({ code: 'ERR_NETWORK' })
  })

  it('and is not there is a network fault', async () => {
    const credential = await meet(() => {})
    await peer.close()
    const failure = await failureOf(connect(credential))
    expect(failure).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect((failure as Error).message).toContain('ECONNREFUSED')
  })

  it('and has a name that nobody knows is a network fault', async () => {
    await meet(() => {})
    const nowhere = credentialFor(device, at(peer.port, { host: 'mqtt.invalid' }))
    expect(await failureOf(connect(nowhere))).toMatchObject({ code: 'ERR_NETWORK' })
  })

  it.each([
    [1, 'ERR_SESSION_REFUSED', 'operator'],
    [2, 'ERR_SESSION_REFUSED', 'retry'],
    [3, 'ERR_SERVER_BUSY', 'retry'],
    [4, 'ERR_SESSION_REFUSED', 'retry'],
    [5, 'ERR_SESSION_REFUSED', 'retry'],
  ] as const)('with CONNACK %i means %s (%s)', async (returnCode, code, remedy) => {
    const failure = await failureOf(connect(await meet(answering(connack(returnCode)))))
    expect(failure).toMatchObject({ code, remedy })
    expect((failure as Error).message).toContain(`CONNACK ${returnCode}`)
  })

  it.each([
    [128, 'ERR_SESSION_REFUSED', 'operator'],
    [132, 'ERR_SESSION_REFUSED', 'operator'],
    [133, 'ERR_SESSION_REFUSED', 'retry'],
    [135, 'ERR_SESSION_REFUSED', 'retry'],
    [136, 'ERR_SERVER_BUSY', 'retry'],
    [137, 'ERR_SERVER_BUSY', 'retry'],
    [151, 'ERR_SERVER_BUSY', 'retry'],
  ] as const)('with CONNACK %i of MQTT 5 means %s (%s)', async (reasonCode, code, remedy) => {
    const credential = await meet(answering(connack5(reasonCode)))
    expect(await failureOf(connect(credential, { protocol: '5' }))).toMatchObject({ code, remedy })
  })

  it.each([
    ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['zeros', Buffer.alloc(64)],
    ['0xff', Buffer.alloc(64, 0xff)],
    ['SUBACK first', Buffer.from([0x90, 3, 0, 1, 0])],
    ['PUBLISH first', Buffer.from([0x30, 3, 0, 1, 0x61])],
  ])('that answers CONNECT with %s brings no session and no crash', async (_title, bytes) => {
    const credential = await meet(answering(bytes))
    const failure = await failureOf(connect(credential, { deadlineMs: 300 }))
    expect(failure).toMatchObject({ name: 'CertvendError', remedy: 'retry' })
  })

  it('that sends garbage after CONNACK ends the session, once', async () => {
    const credential = await meet((socket) => {
      socket.once('data', () => socket.write(Buffer.concat([connack(), Buffer.alloc(9, 0xff)])))
    })
    const session = await connect(credential)
    expect(await session.ended).toMatchObject({
      reason: 'lost',
      error: { code: 'ERR_SESSION_LOST' },
    })
  })

  it('that cuts the connection ends the session and everything that waits on it', async () => {
    const cut: (() => void)[] = []
    const credential = await meet((socket) => {
      cut.push(() => socket.destroy())
      accepting(socket, () => {})
    })
    const session = await connect(credential)
    const waiting = session.publish('up', 'x')
    const failing = failureOf(waiting)
    cut[0]?.()
    expect(await failing).toMatchObject({ code: 'ERR_SESSION_LOST', remedy: 'retry' })
    const end = await session.ended
    expect(end).toMatchObject({ reason: 'lost', error: { code: 'ERR_SESSION_LOST' } })
    expect(await session.ended).toBe(end)
    expect(await failureOf(session.publish('up', 'x'))).toMatchObject({ code: 'ERR_SESSION_LOST' })
    expect(await failureOf(session.publish('up', 'x', { qos: 0 }))).toMatchObject({
      code: 'ERR_SESSION_LOST',
    })
    expect(await failureOf(session.subscribe('up'))).toMatchObject({ code: 'ERR_SESSION_LOST' })
    await session.close()
    expect(await session.ended).toBe(end)
  })

  it('and never acknowledges does not hold up close', async () => {
    const session = await connect(await meet(accepting))
    const failing = failureOf(session.publish('up', 'x'))
    await session.close()
    expect(await failing).toMatchObject({ code: 'ERR_SESSION_LOST' })
    expect(await session.ended).toEqual({ reason: 'closed' })
    // DISCONNECT (MQTT 3.1.1 section 3.14) is the last thing that was said.
    await expect.poll(() => peer.received.subarray(-2).toString('hex')).toBe('e000')
  })

  it('and stops reading does not hold up close', async () => {
    const credential = await meet((socket) => {
      socket.once('data', () => {
        socket.write(connack())
        socket.pause()
      })
    })
    const session = await connect(credential)
    const failing = failureOf(session.publish('up', Buffer.alloc(20_000_000)))
    await session.close()
    expect(await failing).toMatchObject({ code: 'ERR_SESSION_LOST' })
  })

  it('and refuses a subscription has refused the request, not the session', async () => {
    const credential = await meet((socket) =>
      onPackets(socket, (packet) => {
        if (packet[0] === 0x10) socket.write(connack())
        if (packet[0] === 0x82) socket.write(suback(packet, 0x80))
      }),
    )
    const session = await connect(credential)
    expect(await failureOf(session.subscribe('secret/#'))).toMatchObject({
      code: 'ERR_REQUEST_REFUSED',
      remedy: 'operator',
    })
    await session.close()
    expect(await session.ended).toEqual({ reason: 'closed' })
  })

  it('is slowed by a consumer that does not read', async () => {
    const count = 400
    const flood = (packet: Buffer, socket: Socket): void => {
      if (packet[0] !== 0x82) return
      for (
        let id = 1;
        id <= count;
        id++ // PUBLISH, QoS 1, topic "t", empty payload
      )
        socket.write(Buffer.from([0x32, 5, 0, 1, 0x74, id >> 8, id & 0xff]))
    }
    const credential = await meet(broker(flood))
    const acknowledged = (): number =>
      peer.received.toString('hex').match(/4002[0-9a-f]{4}/g)?.length ?? 0
    const session = await connect(credential)
    const messages = await session.subscribe('t')
    const iterator = messages[Symbol.asyncIterator]()
    await iterator.next()
    await expect.poll(acknowledged).toBeGreaterThan(0)
    expect(acknowledged()).toBeLessThan(40)
    for (let read = 1; read < count; read++) await iterator.next()
    await expect.poll(acknowledged).toBe(count)
    await session.close()
    expect(await iterator.next()).toEqual({ done: true, value: undefined })
  })

  it('serves two readers of one subscription that ask at the same time, and frees both at the end', async () => {
    const two = (packet: Buffer, socket: Socket): void => {
      if (packet[0] === 0x82) socket.write(Buffer.from([0x30, 3, 0, 1, 0x74, 0x30, 3, 0, 1, 0x74]))
    }
    const credential = await meet(broker(two))
    const session = await connect(credential)
    const iterator = (await session.subscribe('t'))[Symbol.asyncIterator]()
    const four = [iterator.next(), iterator.next(), iterator.next(), iterator.next()]
    await Promise.all(four.slice(0, 2))
    await session.close()
    expect((await Promise.all(four)).map(({ done }) => done)).toEqual([false, false, true, true])
  })

  it('hears the host name (SNI), the ALPN name, and the whole certificate chain', async () => {
    const heard: Record<string, unknown> = {}
    const credential = await meet(
      (socket) => {
        const secured = socket as TLSSocket & { servername?: string }
        heard.servername = secured.servername
        heard.alpn = secured.alpnProtocol
        heard.subject = secured.getPeerCertificate().subject?.CN
        heard.issuer = secured.getPeerCertificate(true).issuerCertificate?.subject?.CN
        accepting(socket, () => {})
      },
      {
        tls: {
          requestCert: true,
          rejectUnauthorized: false,
          ALPNProtocols: ['mqtt', 'x-amzn-mqtt-ca'],
        },
      },
    )
    const session = await connect({
      ...credential,
      certificateChain: device.certificate + deviceCa.certificate,
      endpoint: { ...credential.endpoint, alpn: 'x-amzn-mqtt-ca' },
    })
    await session.close()
    expect(heard).toEqual({
      servername: 'localhost',
      alpn: 'x-amzn-mqtt-ca',
      subject: 'device-1',
      issuer: 'Device CA',
    })
  })

  describe('or a caller that loses patience', () => {
    it('opens no connection when the signal was aborted before', async () => {
      const credential = await meet(accepting)
      const reason = new Error('no longer wanted')
      const signal = AbortSignal.abort(reason)
      expect(await failureOf(connect(credential, { signal }))).toBe(reason)
      expect(peer.opened).toBe(0)
    })

    it.each([
      ['TLS', true],
      ['MQTT', false],
    ])(
      'rejects with the reason when aborted while %s is silent, and hangs up',
      async (_what, plain) => {
        const controller = new AbortController()
        const reason = new Error('no longer wanted')
        const hungUp = new Promise<void>((resolve) => {
          void meet(
            (socket) => {
              socket.resume().once('close', resolve)
              controller.abort(reason)
            },
            { plain },
          ).then(async (credential) => {
            expect(await failureOf(connect(credential, { signal: controller.signal }))).toBe(reason)
          })
        })
        await hungUp
        expect(getEventListeners(controller.signal, 'abort')).toEqual([])
      },
    )

    it('closes an open session when the signal aborts', async () => {
      const controller = new AbortController()
      const session = await connect(await meet(accepting), { signal: controller.signal })
      controller.abort()
      expect(await session.ended).toEqual({ reason: 'closed' })
    })

    it('stops waiting for one publish and keeps the session', async () => {
      const credential = await meet(broker())
      const session = await connect(credential)
      const controller = new AbortController()
      const failing = failureOf(session.publish('up', 'x', { signal: controller.signal }))
      const reason = new Error('too slow')
      controller.abort(reason)
      expect(await failing).toBe(reason)
      expect(getEventListeners(controller.signal, 'abort')).toEqual([])
      await session.subscribe('down')
      await session.close()
    })

    it('refuses a publish whose signal was aborted before, and sends nothing', async () => {
      const session = await connect(await meet(accepting))
      const before = peer.received.length
      const signal = AbortSignal.abort(new Error('no'))
      await failureOf(session.publish('up', 'x', { signal }))
      await session.close()
      await expect.poll(() => peer.received.subarray(before).toString('hex')).toBe('e000')
    })

    it('may close as often as it likes, also all at once', async () => {
      const session = await connect(await meet(accepting))
      await Promise.all([session.close(), session.close(), session.close()])
      await session.close()
      expect(await session.ended).toEqual({ reason: 'closed' })
      expect(await failureOf(session.publish('up', 'x'))).toMatchObject({
        code: 'ERR_SESSION_LOST',
      })
    })
  })

  it('is not even called with a certificate that has expired by our clock', async () => {
    const expired = await certify('device-1', { issuer: deviceCa, notAfter: yesteryear })
    await meet(accepting)
    const failure = await failureOf(connect(credentialFor(expired, at(peer.port))))
    expect(failure).toMatchObject({ code: 'ERR_CREDENTIAL_EXPIRED', remedy: 'enroll' })
    expect(peer.opened).toBe(0)
  })

  it('is not even called with a key that belongs to another certificate', async () => {
    await meet(accepting)
    const { certificate } = await certify('device-1', { issuer: deviceCa })
    const credential = credentialFor(device, at(peer.port), { certificateChain: certificate })
    await failureOf(connect(credential))
    expect(peer.opened).toBe(0)
  })

  it('that says over MQTT 5 why it ends the session is quoted', async () => {
    const takenOver = Buffer.from([0xe0, 2, 142, 0])
    const accept5 = Buffer.from([0x20, 3, 0, 0, 0])
    const credential = await meet(answering(Buffer.concat([accept5, takenOver])))
    const session = await connect(credential, { protocol: '5' })
    const end = await session.ended
    expect(end).toMatchObject({ reason: 'lost', error: { code: 'ERR_SESSION_LOST' } })
    expect((end as { error: Error }).error.message).toMatch(/took the session over/)
  })
})
