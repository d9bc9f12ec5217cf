/** The way to a server before TLS: names, addresses of both families, deadlines. */
import dns from 'node:dns'
import type { AddressInfo } from 'node:net'
import net from 'node:net'
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { certify } from './pki.ts'
import { failure, inter, leaf, server, ways } from './ways.ts'

const alone = { proxy: false } as const

afterEach(() => {
  vi.restoreAllMocks()
})

type Answer = (error: Error | null, addresses?: dns.LookupAddress[]) => void

/** Answers every look-up of a name. */
function lookups(answer: (tell: Answer) => void): void {
  vi.spyOn(dns, 'lookup').mockImplementation(((_name: string, _options: object, tell: Answer) =>
    answer(tell)) as never)
}

const both: dns.LookupAddress[] = [
  { address: '::1', family: 6 },
  { address: '127.0.0.1', family: 4 },
]

describe.each(ways)('%s', (_name, { host, open }) => {
  it.each([
    ['the first', '::1'],
    ['the second', '127.0.0.1'],
  ])('reaches a server at %s of its addresses', async (_title, address) => {
    const { port } = await server(leaf, [], {}, address)
    lookups((tell) => tell(null, both))
    await open(port, alone)
  })

  it('says once why no address could be reached', async () => {
    lookups((tell) => tell(null, both))
    const free = net.createServer().listen(0)
    const { port } = free.address() as AddressInfo
    await new Promise((resolve) => free.close(resolve))
    const error = await failure(open(port, alone))
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect(error.message).toBe(`cannot reach ${host}:${port} (ECONNREFUSED)`)
  })

  it.each(['ENOTFOUND', 'EAI_AGAIN'])('says that the name is not found: %s', async (code) => {
    lookups((tell) => tell(Object.assign(new Error('no'), { code })))
    const error = await failure(open(8883, alone))
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect(error.message).toBe(`cannot find the address of ${host}:8883 (${code})`)
    expect(error.hint).toContain('DNS')
  })

  it('asks anew for a name that was not found', async () => {
    const { port } = await server()
    lookups((tell) => tell(Object.assign(new Error('no'), { code: 'ENOTFOUND' })))
    await failure(open(port, alone))
    lookups((tell) => tell(null, both))
    await open(port, alone)
  })

  it('waits for a name no longer than the deadline, and connects no more when it comes', async () => {
    const { port, opened } = await server()
    let late: Answer = () => {}
    lookups((tell) => {
      late = tell
    })
    const error = await failure(open(port, { ...alone, deadlineMs: 100 }))
    expect(error).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
    expect(error.message).toBe(`${host}:${port} did not answer within 0.1 s`)
    late(null, both)
    await new Promise((resolve) => setImmediate(resolve))
    expect(opened).toBe(0)
  })

  it('gives up at once, with the signal’s reason, while a name is looked up', async () => {
    const abort = new AbortController()
    lookups(() => abort.abort(new Error('enough')))
    expect(await failure(open(1, { ...alone, signal: abort.signal }))).toBe(abort.signal.reason)
  })

  it('leaves no listener on the signal of its caller', async () => {
    const { signal } = new AbortController()
    const add = vi.spyOn(signal, 'addEventListener')
    const remove = vi.spyOn(signal, 'removeEventListener')
    const { port } = await server()
    lookups((tell) => tell(null, both))
    await failure(open(1, { ...alone, signal }))
    await open(port, { ...alone, signal })
    expect(add.mock.calls.length).toBeGreaterThan(0)
    const removed = remove.mock.calls.map(([, listener]) => listener)
    for (const [, listener] of add.mock.calls) expect(removed).toContain(listener)
  })

  it('reaches an IPv6 address in brackets', async () => {
    const identity = await certify('server', { issuer: inter, ip: ['::1'] })
    const { port } = await server(identity, [], {}, '::1')
    await open(port, alone, '[::1]')
  })

  it('costs no more than the deadline when nobody answers', async () => {
    const silent = net.createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
    await new Promise((resolve) => silent.once('listening', resolve))
    onTestFinished(() => void silent.close())
    lookups((tell) => tell(null, [{ address: '127.0.0.1', family: 4 }]))
    const { port } = silent.address() as AddressInfo
    const error = await failure(open(port, { ...alone, deadlineMs: 200 }))
    expect(error.code).toBe('ERR_TIMEOUT')
  })
})
