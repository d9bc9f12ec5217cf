/**
 * The pinned channel over real TLS: what goes out, byte by byte, how a connection fails, what a
 * caller who gives up leaves behind, and a vending machine at its end.
 */
import { getEventListeners, once } from 'node:events'
import type { Socket } from 'node:net'
import path from 'node:path'
import {
  createClaim,
  createVendingServer,
  enroll,
  ensureCredential,
  fetchCaCertificates,
  openCredentialStore,
} from '@certvend/client'
import { HttpResponse } from 'msw'
import { describe, expect, it } from 'vitest'
import { http, type Talk } from './hostile-server.ts'
import {
  afterRequest,
  caCertificates,
  deviceCa,
  identity,
  json,
  pin,
  pinnedChannel,
  replying,
} from './pinned-channel.ts'
import { publicKeyOf } from './pki.ts'
import { startScript } from './process.ts'
import { temporaryDirectory } from './temporary.ts'
import { makeVendingMachine, serve } from './vending-machine.ts'

const channel = pinnedChannel()
const { ask, refusal, vendingServer } = channel

const claim = createClaim({ deviceSerial: 'device-1', token: 'correct-horse-battery-staple' })

describe('a request', () => {
  it('to enroll says what it must and nothing more', async () => {
    await channel.meet((socket) => {
      socket.on('data', (bytes) => {
        if (bytes.includes('END CERTIFICATE REQUEST')) socket.write(http(503, {}))
      })
    })
    const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
    await enroll(store, vendingServer('/prefix/'), claim).catch(() => {})
    const [head = '', body = ''] = channel.peer.received.toString('latin1').split('\r\n\r\n')
    const [line, ...fields] = head.split('\r\n')
    expect(line).toBe('POST /prefix/v1/enroll HTTP/1.1')
    const headers = Object.fromEntries(fields.map((field) => field.toLowerCase().split(': ')))
    expect(headers).toEqual({
      host: `localhost:${channel.peer.port}`,
      connection: expect.stringMatching(/^(keep-alive|close)$/),
      accept: 'application/json, application/problem+json',
      authorization: `bearer ${claim.token}`,
      'content-type': 'application/json',
      'content-length': String(body.length),
    })
    expect(Object.keys(JSON.parse(body))).toEqual(['deviceSerial', 'csr'])
    expect(channel.peer.opened).toBe(1)
  })

  it('for the CA certificates carries no token', async () => {
    expect(await ask(replying(http(200, json, caCertificates)))).toEqual(JSON.parse(caCertificates))
    expect(channel.peer.received.toString()).toMatch(/^GET \/v1\/cacerts HTTP\/1\.1\r\n/)
    expect(channel.peer.received.toString().toLowerCase()).not.toContain('authorization')
  })
})

describe('a connection', () => {
  it('that nobody accepts is a network fault', async () => {
    await channel.meet(() => {})
    await channel.peer.close()
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
    expect(channel.peer.received.toString('latin1')).not.toContain('GET')
  })

  it('that is accepted and then silent runs into the deadline', async () => {
    const error = await refusal(() => {}, { deadlineMs: 250 }, { plain: true })
    expect(error).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
  })
})

describe('a caller that loses patience', () => {
  const reason = new Error('no longer wanted')

  it('before it began opens no connection', async () => {
    await channel.meet(() => {})
    const signal = AbortSignal.abort(reason)
    await expect(fetchCaCertificates(vendingServer(), { signal })).rejects.toBe(reason)
    expect(channel.peer.opened).toBe(0)
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
    await channel.meet(() => {}, { plain: true })
    const child = startScript(
      `import { createVendingServer, fetchCaCertificates } from '@certvend/client'
       const [url, pins] = process.argv.slice(1)
       const server = createVendingServer({ url, pins })
       await fetchCaCertificates(server, { signal: ${signal}, deadlineMs: ${deadlineMs} })
         .catch((error) => console.log(error.name))`,
      { args: [`https://localhost:${channel.peer.port}`, pin.certificate] },
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
    await channel.meet((socket, reset) => {
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
