/** The pinned channel over real TLS: what goes out, byte by byte, and every way in which a reply fails. */
import { getEventListeners, once } from 'node:events'
import type { Socket } from 'node:net'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import {
  type CaCertificates,
  CertvendError,
  createClaim,
  createVendingServer,
  type EnrollOptions,
  enroll,
  ensureCredential,
  fetchCaCertificates,
  openCredentialStore,
} from '@certvend/client'
import { HttpResponse } from 'msw'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { http, listen, type Peer, type PeerOptions, type Talk } from './hostile-server.ts'
import { type Certified, certify, publicKeyOf } from './pki.ts'
import { startScript } from './process.ts'
import { temporaryDirectory } from './temporary.ts'
import { makeVendingMachine, serve } from './vending-machine.ts'

let pin: Certified
let identity: Certified
let deviceCa: Certified
let caCertificates: string
let peer: Peer

beforeAll(async () => {
  const root = await certify('Root', { ca: true })
  pin = await certify('Intermediate', { issuer: root, ca: true })
  identity = await certify('localhost', { issuer: pin, dns: ['localhost'] })
  deviceCa = await certify('Device CA', { ca: true })
  const body: CaCertificates = {
    deviceCa: [deviceCa.certificate],
    trustAnchors: [pin.certificate],
  }
  caCertificates = JSON.stringify(body)
})
afterEach(() => peer?.close())

const claim = createClaim({ deviceSerial: 'device-1', token: 'correct-horse-battery-staple' })
const json = { 'content-type': 'application/json' }
const vendingServer = (prefix = '') =>
  createVendingServer({ url: `https://localhost:${peer.port}${prefix}`, pins: pin.certificate })

async function ask(talk: Talk, options: EnrollOptions = {}, peerOptions?: PeerOptions) {
  peer = await listen(identity, [], talk, peerOptions)
  return fetchCaCertificates(vendingServer(), options)
}

async function refusal(
  talk: Talk,
  options?: EnrollOptions,
  peerOptions?: PeerOptions,
): Promise<CertvendError> {
  const outcome = await ask(talk, options, peerOptions).catch((error) => error)
  expect(outcome, 'a reply was believed').toBeInstanceOf(CertvendError)
  return outcome
}

/** Waits for a whole request without a body, then goes on. */
const afterRequest =
  (then: (socket: Socket, reset: () => void) => void): Talk =>
  (socket, reset) => {
    let heard = ''
    socket.on('data', (bytes) => {
      heard += bytes.toString('latin1')
      if (!heard.includes('\r\n\r\n')) return
      heard = ''
      then(socket, reset)
    })
  }
const replying = (bytes: Uint8Array): Talk => afterRequest((socket) => void socket.write(bytes))

describe('a request', () => {
  it('to enroll says what it must and nothing more', async () => {
    peer = await listen(identity, [], (socket) => {
      socket.on('data', (bytes) => {
        if (bytes.includes('END CERTIFICATE REQUEST')) socket.write(http(503, {}))
      })
    })
    const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
    await enroll(store, vendingServer('/prefix/'), claim).catch(() => {})
    const [head = '', body = ''] = peer.received.toString('latin1').split('\r\n\r\n')
    const [line, ...fields] = head.split('\r\n')
    expect(line).toBe('POST /prefix/v1/enroll HTTP/1.1')
    const headers = Object.fromEntries(fields.map((field) => field.toLowerCase().split(': ')))
    expect(headers).toEqual({
      host: `localhost:${peer.port}`,
      connection: expect.stringMatching(/^(keep-alive|close)$/),
      accept: 'application/json, application/problem+json',
      authorization: `bearer ${claim.token}`,
      'content-type': 'application/json',
      'content-length': String(body.length),
    })
    expect(Object.keys(JSON.parse(body))).toEqual(['deviceSerial', 'csr'])
    expect(peer.opened).toBe(1)
  })

  it('for the CA certificates carries no token', async () => {
    expect(await ask(replying(http(200, json, caCertificates)))).toEqual(JSON.parse(caCertificates))
    expect(peer.received.toString()).toMatch(/^GET \/v1\/cacerts HTTP\/1\.1\r\n/)
    expect(peer.received.toString().toLowerCase()).not.toContain('authorization')
  })
})

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
    expect(peer.opened).toBe(1)
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

  it.each<readonly [string, Talk]>([
    ['that never begins', afterRequest(() => {})],
    ['whose head drips for ever', drip('HTTP/1.1 200 OK\r\n', 'x: y\r\n')],
    ['whose body drips for ever', drip('HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n', ' ')],
  ])('%s runs into the deadline', async (_title, talk) => {
    const error = await refusal(talk, { deadlineMs: 250 })
    expect(error).toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'retry' })
    expect(error.message).toMatch(/within 0\.25 s/)
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
    expect(peer.opened, 'nothing repeats a request but the caller').toBe(1)
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

/** Sends `head`, then `drop` again and again, each well within any timeout of its own. */
function drip(head: string, drop: string): Talk {
  return afterRequest((socket) => {
    socket.write(head)
    const dripping = setInterval(() => socket.write(drop), 20)
    socket.once('close', () => clearInterval(dripping))
  })
}

describe('a connection', () => {
  it('that nobody accepts is a network fault', async () => {
    peer = await listen(identity, [], () => {})
    await peer.close()
    const error = await fetchCaCertificates(vendingServer()).catch((reason) => reason)
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect(error.message).toContain('ECONNREFUSED')
  })

  it('to a name that nobody knows is a network fault', async () => {
    const server = createVendingServer({
      url: 'https://vending.invalid',
      pins: pin.certificate,
    })
    const error = await fetchCaCertificates(server).catch((reason) => reason)
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
  })

  it.each<readonly [string, Talk]>([
    ['is closed before TLS', (socket) => void socket.end()],
    ['is closed in the middle of TLS', (socket) => void socket.once('data', () => socket.end())],
    [
      'is reset in the middle of TLS',
      (socket) => void socket.once('data', () => socket.resetAndDestroy()),
    ],
  ])('that %s is a network fault: nothing was sent', async (_title, talk) => {
    const error = await refusal(talk, { deadlineMs: 5000 }, { plain: true })
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
  })

  it('to something that speaks no TLS is not asked anything', async () => {
    const error = await refusal(
      (socket) => void socket.once('data', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')),
      { deadlineMs: 5000 },
      { plain: true },
    )
    expect(error.remedy).toBe('retry')
    expect(peer.received.toString('latin1')).not.toContain('GET')
  })

  it('that is accepted and then silent runs into the deadline', async () => {
    const error = await refusal(() => {}, { deadlineMs: 250 }, { plain: true })
    expect(error).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
  })
})

describe('a caller that loses patience', () => {
  const reason = new Error('no longer wanted')

  it('before it began opens no connection', async () => {
    peer = await listen(identity, [], () => {})
    const signal = AbortSignal.abort(reason)
    await expect(fetchCaCertificates(vendingServer(), { signal })).rejects.toBe(reason)
    expect(peer.opened).toBe(0)
  })

  it.each<readonly [string, boolean, (abort: () => void) => Talk]>([
    ['during TLS', true, (abort) => (socket) => void socket.once('data', abort)],
    ['before the reply', false, (abort) => afterRequest(abort)],
    [
      'during the reply',
      false,
      (abort) =>
        afterRequest((socket) => {
          socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{', abort)
        }),
    ],
  ])('%s gets its own reason back, and the connection is closed', async (_title, plain, talk) => {
    const controller = new AbortController()
    let closed: Promise<unknown> | undefined
    const asking = ask(
      (socket, reset) => {
        closed = new Promise((resolve) => socket.resume().once('close', resolve))
        talk(() => controller.abort(reason))(socket, reset)
      },
      { signal: controller.signal },
      { plain },
    )
    await expect(asking).rejects.toBe(reason)
    await closed
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
  })

  it.each([
    ['an abort', 'AbortSignal.timeout(50)', 600_000],
    ['the deadline', 'undefined', 50],
  ])('leaves nothing behind that keeps a process alive: %s', async (_title, signal, deadlineMs) => {
    peer = await listen(identity, [], () => {}, { plain: true })
    const child = startScript(
      `import { createVendingServer, fetchCaCertificates } from '@certvend/client'
       const [url, pins] = process.argv.slice(1)
       const server = createVendingServer({ url, pins })
       await fetchCaCertificates(server, { signal: ${signal}, deadlineMs: ${deadlineMs} })
         .catch((error) => console.log(error.name))`,
      { args: [`https://localhost:${peer.port}`, pin.certificate] },
    )
    child.stdout?.resume()
    expect(await once(child, 'exit')).toEqual([0, null])
  })
})

describe('a vending machine behind real TLS', () => {
  const authorities = () => ({ deviceCa, mqttCa: pin })
  const clock = { now: () => new Date(), wait: () => Promise.resolve() }

  it('enrolls a device, and is asked once', async () => {
    const machine = makeVendingMachine(authorities())
    const door = await serve(machine.handlers, identity)
    const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
    const server = createVendingServer({
      url: `https://localhost:${door.port}`,
      pins: pin.certificate,
    })
    const credential = await ensureCredential(store, server, claim)
    expect(credential.thingName).toBe('device-1')
    expect(machine.orders).toHaveLength(1)
    await door.close()
  })

  it('whose reply is lost after it issued is asked again with the same key', async () => {
    const machine = makeVendingMachine(authorities())
    const replies: ((socket: Socket, reset: () => void) => Promise<void>)[] = [
      async (_socket, reset) => reset(),
      async (socket) => void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n{"devi'),
    ]
    peer = await listen(identity, [], (socket, reset) => {
      let heard = ''
      socket.on('data', async (bytes) => {
        heard += bytes.toString('latin1')
        const body = heard.split('\r\n\r\n')[1]
        if (!body?.endsWith('}')) return
        const url = new URL('https://localhost/v1/enroll')
        const answer = await machine.send(
          { method: 'POST', url, headers: { 'content-type': 'application/json' }, body },
          { deadlineMs: 1000, replyBytes: 1e6 },
        )
        await (replies.shift() ?? (async () => void socket.write(http(200, json, answer.body))))(
          socket,
          reset,
        )
      })
    })
    const errors: string[] = []
    const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
    const credential = await ensureCredential(store, vendingServer(), claim, {
      clock,
      log: (event) => event.event === 'enroll.retry' && errors.push(event.error.code),
    })
    expect(errors).toEqual(['ERR_REPLY_LOST', 'ERR_REPLY_LOST'])
    expect(machine.orders).toHaveLength(3)
    const keys = await Promise.all(machine.orders.map(({ csr }) => publicKeyOf(csr)))
    const ours = credential.privateKey.publicKey.export({ type: 'spki', format: 'der' })
    for (const key of keys) expect(Buffer.from(key).equals(ours)).toBe(true)
  })

  it('that is busy is left alone until the moment it named', async () => {
    let busy = 2
    const machine = makeVendingMachine(authorities(), async (order, honest) =>
      busy-- > 0
        ? new HttpResponse(null, { status: 503, headers: { 'retry-after': '30' } })
        : HttpResponse.json((await honest.honest(order)) as never),
    )
    const door = await serve(machine.handlers, identity)
    const waits: number[] = []
    const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
    const server = createVendingServer({
      url: `https://localhost:${door.port}`,
      pins: pin.certificate,
    })
    await ensureCredential(store, server, claim, {
      random: () => 0,
      clock: {
        now: () => new Date('2027-01-01T00:00:00Z'),
        wait: async (ms) => void waits.push(ms),
      },
    })
    expect(waits).toEqual([30_000, 30_000])
    await door.close()
  })
})
