/** How a session goes on and ends with a broker that misbehaves once it is open. */
import type { Socket } from 'node:net'
import { connect } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { accepting, answering, encounters, failureOf } from './encounter.ts'
import { broker, connack, onPackets, suback } from './hostile-server.ts'

describe('a broker that misbehaves', () => {
  const met = encounters()
  const { meet } = met

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

  it('that announces a packet of 256 MiB has ended the session before it comes', async () => {
    const announced = Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f])
    const credential = await meet((socket) => {
      socket.once('data', () => {
        socket.write(connack())
        // In two pieces, and before the second whole packets.
        socket.write(Buffer.concat([Buffer.from([0xd0, 0, 0xd0, 0]), announced.subarray(0, 3)]))
        setImmediate(() => socket.write(announced.subarray(3)))
      })
    })
    const session = await connect(credential)
    expect(await session.ended).toMatchObject({
      reason: 'lost',
      error: { code: 'ERR_SESSION_LOST', message: expect.stringContaining('268435455 bytes') },
    })
  })

  it('that sends messages of QoS 2 and releases none has ended the session at 16 MiB', async () => {
    const size = 1024 * 1024
    const message = (id: number): Buffer =>
      Buffer.concat([
        Buffer.from([0x34, 0x85, 0x80, 0x40, 0, 1, 0x61, 0, id]), // topic "a"; 1 MiB and 5 bytes
        Buffer.alloc(size),
      ])
    const credential = await meet(
      broker((packet, socket) => {
        if (packet[0] !== 0x82) return
        // What was released counts no more, and what came twice counts once.
        for (let id = 1; id <= 3; id++) {
          socket.write(message(id))
          socket.write(Buffer.from([0x62, 2, 0, id]))
        }
        for (let id = 100; id <= 120; id++) socket.write(message(Math.max(id, 101)))
      }),
    )
    const session = await connect(credential)
    for await (const { payload } of await session.subscribe('a')) expect(payload).toHaveLength(size)
    expect(await session.ended).toMatchObject({
      reason: 'lost',
      error: { code: 'ERR_SESSION_LOST', message: expect.stringContaining(`${17 * size} bytes`) },
    })
  })

  it('that says DISCONNECT, which MQTT 3.1.1 does not know of servers, is quoted without a reason', async () => {
    const credential = await meet((socket) => {
      socket.once('data', () => {
        socket.write(connack())
        setImmediate(() => socket.write(Buffer.from([0xe0, 0])))
      })
    })
    const { ended } = await connect(credential)
    expect(await ended).toMatchObject({ error: { message: 'the server ended the session' } })
  })

  it('and never acknowledges does not hold up close', async () => {
    const session = await connect(await meet(accepting))
    const failing = failureOf(session.publish('up', 'x'))
    await session.close()
    expect(await failing).toMatchObject({ code: 'ERR_SESSION_LOST' })
    expect(await session.ended).toEqual({ reason: 'closed' })
    // DISCONNECT (MQTT 3.1.1 section 3.14) is the last thing that was said.
    await expect.poll(() => met.peer.received.subarray(-2).toString('hex')).toBe('e000')
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
      met.peer.received.toString('hex').match(/4002[0-9a-f]{4}/g)?.length ?? 0
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
