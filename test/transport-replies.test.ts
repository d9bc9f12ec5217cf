/** What comes back over the pinned channel, byte by byte, and every way in which a reply fails. */
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { ownDeadline } from './deadline.ts'
import { http, listen, type Talk } from './hostile-server.ts'
import {
  afterRequest,
  caCertificates,
  identity,
  json,
  pinnedChannel,
  replying,
} from './pinned-channel.ts'

const channel = pinnedChannel()
const { ask, refusal } = channel

describe('a reply', () => {
  it('may come byte by byte, in chunks, and after an interim one', async () => {
    const chunks = [...caCertificates].map((one) => `1\r\n${one}\r\n`).join('')
    const bytes = Buffer.from(
      'HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n' +
        `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`,
    )
    const told = await ask(
      afterRequest(async (socket) => {
        for (let at = 0; at < bytes.length; at += 97) {
          socket.write(bytes.subarray(at, at + 97))
          await new Promise(setImmediate)
        }
      }),
    )
    expect(told).toEqual(JSON.parse(caCertificates))
  })

  it('may end with the connection when it has no length', async () => {
    const bytes = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n${caCertificates}`
    const told = await ask(afterRequest((socket) => void socket.end(bytes)))
    expect(told).toEqual(JSON.parse(caCertificates))
  })

  it.each([301, 302, 303, 307, 308])('that redirects (%i) is not followed', async (status) => {
    const elsewhere = await listen(identity, [], () => {})
    const location = `https://localhost:${elsewhere.port}/v1/cacerts`
    const error = await refusal(replying(http(status, { location })))
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(elsewhere.opened).toBe(0)
    expect(channel.peer.opened).toBe(1)
    await elsewhere.close()
  })

  it('that is compressed is not inflated', async () => {
    const bomb = gzipSync(Buffer.alloc(50_000_000, ' '))
    const headers = { ...json, 'content-encoding': 'gzip' }
    const before = process.memoryUsage().rss
    for (const body of [gzipSync(caCertificates), bomb])
      expect((await refusal(replying(http(200, headers, body)))).code).toBe('ERR_REPLY_MALFORMED')
    expect(process.memoryUsage().rss - before).toBeLessThan(40_000_000)
  })

  it('of 10 MB is refused long before its end', async () => {
    let written = 0
    const huge = Buffer.alloc(10_000_000, ' ')
    const error = await refusal(
      afterRequest((socket) => {
        socket.write(http(200, { ...json, 'content-length': String(huge.length) }))
        socket.write(huge)
        socket.once('close', () => {
          written = socket.bytesWritten - socket.writableLength
        })
      }),
    )
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(error.message).toMatch(/larger than 262144 bytes/)
    await expect.poll(() => written).toBeGreaterThan(0)
  })

  it('that never ends is refused at the same size', async () => {
    const chunk = `4000\r\n${' '.repeat(0x4000)}\r\n`
    const error = await refusal(
      afterRequest((socket) => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n')
        socket.write('transfer-encoding: chunked\r\n\r\n')
        const more = (): void => {
          while (!socket.destroyed && socket.write(chunk));
        }
        socket.on('drain', more)
        more()
      }),
    )
    expect(error.message).toMatch(/larger than 262144 bytes/)
  })

  it.each<readonly [string, (pass: () => void) => Talk]>([
    ['that never begins', (pass) => afterRequest(pass)],
    ['whose head drips for ever', drip('HTTP/1.1 200 OK\r\n', 'x: y\r\n')],
    ['whose body drips for ever', drip('HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n', ' ')],
  ])('%s runs into the deadline', async (_title, talk) => {
    const error = await refusal(talk(ownDeadline()), { deadlineMs: 20_000 })
    expect(error).toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'retry' })
    expect(error.message).toMatch(/within 20 s/)
  })

  it.each<readonly [string, Talk]>([
    ['is lost with a FIN', afterRequest((socket) => void socket.end())],
    ['is lost with a reset', afterRequest((_socket, reset) => reset())],
    [
      'breaks off in the head',
      afterRequest((socket) => void socket.end('HTTP/1.1 200 OK\r\nconte')),
    ],
    [
      'breaks off in the body',
      afterRequest((socket) => {
        socket.end(
          'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{}',
        )
      }),
    ],
    [
      'breaks off in a chunk',
      afterRequest((socket) => {
        socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{')
      }),
    ],
    [
      'breaks off before the last chunk',
      afterRequest((socket) => {
        socket.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n')
      }),
    ],
  ])('that %s may be asked for again', async (_title, talk) => {
    expect(await refusal(talk)).toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'retry' })
    expect(channel.peer.opened, 'nothing repeats a request but the caller').toBe(1)
  })

  it.each([
    ['SSH', 'SSH-2.0-OpenSSH_9.2\r\n'],
    ['HTTP/2', Buffer.from('000000040000000000', 'hex')],
    ['MQTT', Buffer.from([0x20, 2, 0, 0])],
    ['a status that is none', 'HTTP/1.1 abc OK\r\n\r\n'],
  ])('in another language (%s) is malformed', async (_title, bytes) => {
    const error = await refusal(afterRequest((socket) => void socket.write(bytes)))
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
  })

  it.each([
    ['with two lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}'],
    [
      'with a length and chunks',
      'HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['with headers of a megabyte', `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(1 << 20)}\r\n\r\n`],
    [
      'that switches protocols',
      'HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n',
    ],
    ['that only ever is interim', 'HTTP/1.1 102 Processing\r\n\r\n'],
  ])('%s brings one of our errors, and another try later', async (_title, bytes) => {
    const error = await refusal(
      afterRequest((socket) => void socket.write(bytes)),
      { deadlineMs: 500 },
    )
    expect(error.remedy).toBe('retry')
  })
})

/** Sends `head`, then `drop` again and again; the deadline passes after a few of them. */
const drip =
  (head: string, drop: string) =>
  (pass: () => void): Talk =>
    afterRequest((socket) => {
      socket.write(head)
      let drops = 0
      const dripping = setInterval(() => {
        socket.write(drop)
        drops += 1
        if (drops === 5) pass()
      }, 20)
      socket.once('close', () => clearInterval(dripping))
    })
