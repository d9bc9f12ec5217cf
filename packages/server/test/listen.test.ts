import { limits } from '@certvend/client/wire'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { later, systemClock } from '../src/clock.ts'
import type { Handler } from '../src/handler.ts'
import { type Listener, type ListenOptions, listen } from '../src/listen.ts'
import { makeCa, makeServer } from '../src/pki.ts'
import { identityOptions } from '../src/tls.ts'
import { connectTo, send, untilClosed } from './https.ts'

const validity = {
  notBefore: later(systemClock.now(), -3_600_000),
  notAfter: later(systemClock.now(), 86_400_000),
}
let pin: string
let tls: ListenOptions['tls']
const open: Listener[] = []

beforeAll(async () => {
  const ca = await makeCa({ commonName: 'Test CA', ...validity })
  pin = ca.certificate
  const names = ['localhost', '127.0.0.1']
  tls = identityOptions(await makeServer({ issuer: ca, names, ...validity }))
})
afterEach(async () => {
  await Promise.all(open.splice(0).map((listener) => listener.close(0)))
})

async function start(handler: Handler, options: Partial<ListenOptions> = {}) {
  const listener = await listen(handler, { tls, address: '127.0.0.1', port: 0, ...options })
  open.push(listener)
  return { listener, url: `https://localhost:${listener.port}` }
}

/** Somewhere to wait until somebody opens. */
function gate() {
  let open = () => {}
  const passed = new Promise<void>((resolve) => {
    open = resolve
  })
  return { open, passed }
}

/** Says what reached it. */
const echo: Handler = async (request, { remoteAddress }) =>
  new Response(
    JSON.stringify({
      method: request.method,
      path: new URL(request.url).pathname,
      type: request.headers.get('content-type'),
      length: (await request.arrayBuffer()).byteLength,
      remoteAddress,
    }),
    { status: 418, headers: { 'x-answer': 'yes' } },
  )

describe('the front door', () => {
  it('hands the request on with the address of the socket, and the answer back', async () => {
    const { url } = await start(echo)
    const answer = await send(`${url}/v1/enroll?x=1`, pin, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-forwarded-for': '203.0.113.9' },
      body: '{"a":1}',
    })
    expect([answer.status, answer.headers['x-answer']]).toEqual([418, 'yes'])
    expect(JSON.parse(answer.text)).toEqual({
      method: 'POST',
      path: '/v1/enroll',
      type: 'application/json',
      length: 7,
      remoteAddress: '127.0.0.1',
    })
  })

  it('reads no more of a body than the machine would, and closes', async () => {
    const { url } = await start(echo)
    const socket = await connectTo(url, pin)
    const closed = untilClosed(socket)
    socket.write('POST /v1/enroll HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n')
    socket.write('x'.repeat(limits.requestBytes + 1))
    const answer = await closed
    expect(answer).toContain(`"length":${limits.requestBytes + 1}`)
    expect(answer.toLowerCase()).toContain('connection: close')
  })

  it('cuts off a request that drips too slowly', async () => {
    let calls = 0
    const handler: Handler = async () => {
      calls += 1
      return new Response()
    }
    const { url } = await start(handler, { requestTimeoutMs: 300, headersTimeoutMs: 200 })
    const socket = await connectTo(url, pin)
    const closed = untilClosed(socket)
    socket.write('POST /v1/enroll HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n')
    const drip = setInterval(() => socket.write('x'), 50)
    await closed
    clearInterval(drip)
    expect(calls).toBe(0)
  })

  it('cuts off headers that drip too slowly', async () => {
    const { url } = await start(echo, { requestTimeoutMs: 400, headersTimeoutMs: 200 })
    const socket = await connectTo(url, pin)
    const closed = untilClosed(socket)
    socket.write('GET / HTTP/1.1\r\n')
    const drip = setInterval(() => socket.write('x: y\r\n'), 50)
    expect(await closed).not.toContain('418')
    clearInterval(drip)
  })

  it('refuses headers of more than 16 KiB', async () => {
    const { url } = await start(echo)
    const answer = await send(url, pin, { headers: { 'x-long': 'x'.repeat(20_000) } })
    expect(answer.status).toBe(431)
  })

  it('refuses a request line that makes no request', async () => {
    const { url } = await start(echo)
    for (const line of ['TRACE / HTTP/1.1', 'GET https://elsewhere.example/ HTTP/1.1']) {
      const socket = await connectTo(url, pin)
      const closed = untilClosed(socket)
      socket.write(`${line}\r\nhost: localhost\r\nconnection: close\r\n\r\n`)
      const answer = await closed
      expect(answer).toMatch(/^HTTP\/1\.1 400 /)
      expect(answer).toContain('malformed-request')
    }
  })

  it('does not speak TLS 1.1, nor HTTP without TLS', async () => {
    const { url } = await start(echo)
    await expect(send(url, pin, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1' })).rejects.toThrow()
    await expect(fetch(url.replace('https', 'http'))).rejects.toThrow()
    expect((await send(url, pin, { maxVersion: 'TLSv1.2' })).status).toBe(418)
  })

  it('says which port is taken', async () => {
    const { listener } = await start(echo)
    await expect(start(echo, { port: listener.port })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    })
  })

  it('survives a caller that goes away in the middle', async () => {
    const { url } = await start(echo)
    const socket = await connectTo(url, pin)
    socket.write('POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf')
    socket.destroy()
    expect((await send(url, pin)).status).toBe(418)
  })
})

describe('a clean stop', () => {
  it('lets a request that is under way finish, and accepts no other', async () => {
    const [arrived, released] = [gate(), gate()]
    const { listener, url } = await start(async () => {
      arrived.open()
      await released.passed
      return new Response('done')
    })
    const answer = send(url, pin)
    await arrived.passed
    const closed = listener.close()
    await expect(send(url, pin)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    released.open()
    expect((await answer).text).toBe('done')
    await closed
  })

  it('does not wait for a request that never ends', async () => {
    const arrived = gate()
    const { listener, url } = await start(() => {
      arrived.open()
      return new Promise<Response>(() => {})
    })
    const answer = send(url, pin).catch((error: NodeJS.ErrnoException) => error.code)
    await arrived.passed
    await listener.close(1)
    expect(await answer).toBe('ECONNRESET')
  })
})
