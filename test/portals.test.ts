/** What answers in the server's place, without a proxy: captive portals, inspecting firewalls, pages. */
import type net from 'node:net'
import { createVendingServer, fetchCaCertificates } from '@certvend/client'
import { describe, expect, it, onTestFinished } from 'vitest'
import { http, listen, type Peer } from './hostile-server.ts'
import { certify } from './pki.ts'
import { failure, inter, names, server, sibling, ways } from './ways.ts'

const alone = { proxy: false } as const
const portalCa = await certify('Hotel Gäste Wi-Fi CA', { ca: true })

async function portal(talk: (socket: net.Socket) => void): Promise<Peer> {
  const peer = await listen(sibling, [], talk, { plain: true })
  onTestFinished(() => peer.close())
  return peer
}

describe.each(ways)('%s', (_name, { open }) => {
  const local = (port: number) => failure(open(port, alone, 'localhost'))

  it('names the captive portal whose certificate is shown, and goes on asking', async () => {
    const dns = ['login.hotel.example', '*.hotel.example']
    const { port, received } = await server(await certify('portal', { issuer: portalCa, dns }))
    const error = await local(port)
    expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'retry' })
    expect(error.message).toMatch(/^no (pin|trust anchor) vouches for localhost:\d+ \(\w+\)/)
    expect(error.message).toContain('is for "login.hotel.example, *.hotel.example"')
    expect(error.hint).toMatch(/something else answers in place of localhost: a captive portal/)
    expect(received.length).toBe(0)
  })

  it('names a portal that has a name in the CN only, or none', async () => {
    const { port } = await server(await certify('192.168.1.1', { issuer: portalCa }))
    expect((await local(port)).message).toContain('is for "192.168.1.1"')
  })

  it('names the issuer that an inspecting firewall puts in the place of the right one', async () => {
    const identity = await certify('localhost', { issuer: portalCa, dns: ['localhost'] })
    const error = await local((await server(identity)).port)
    expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
    expect(error.message).toContain('was issued by "Hotel G ste Wi-Fi CA"')
    expect(error.hint).toContain('exempt localhost from inspection')
  })

  it('repeats no more of a stranger’s certificate than fits in a line', async () => {
    const dns = Array.from({ length: 40 }, (_, n) => `${'x'.repeat(40)}${n}.example`)
    const name = 'evil\u001b[31m\r\nERR_NONE: all is well'
    for (const identity of [
      await certify(name, { issuer: portalCa }),
      await certify('x', { issuer: portalCa, dns }),
      await certify('x', { issuer: await certify(name, { ca: true }), dns: ['localhost'] }),
    ]) {
      const { message } = await local((await server(identity)).port)
      expect(message).toMatch(/^[\x20-\x7e]{1,250}$/)
    }
  })

  it('keeps to the operator when the pin vouches, but for another name', async () => {
    const { port } = await server(await certify('x', { issuer: inter, dns: [...names] }))
    expect(await local(port)).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
  })

  const pages: readonly (readonly [string, string | Buffer])[] = [
    ['a redirect', http(302, { location: 'http://login.hotel.example/' })],
    ['a page', http(200, { 'content-type': 'text/html' }, '<html>Welcome</html>')],
    ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n'],
  ]
  it.each(pages)('tells %s in the place of TLS from a server', async (_title, answer) => {
    const { port } = await portal((socket) => void socket.once('data', () => socket.end(answer)))
    const error = await local(port)
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect(error.message).toContain('what answers there does not speak TLS')
    expect(error.hint).toContain('captive portal')
  })

  it('says that the server does not offer the ALPN protocol', async () => {
    const identity = await certify('localhost', { issuer: inter, dns: ['localhost'] })
    const peer = await listen(identity, [], () => {}, { tls: { ALPNProtocols: ['h3'] } })
    onTestFinished(() => peer.close())
    const error = await local(peer.port)
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect(error.hint).toContain('ALPN')
  })
})

describe('behind the pinned name', () => {
  const vend = async (answer: Buffer): Promise<Peer> => {
    const identity = await certify('localhost', { issuer: inter, dns: ['localhost'] })
    const peer = await listen(
      identity,
      [],
      (socket) => void socket.once('data', () => socket.end(answer)),
    )
    onTestFinished(() => peer.close())
    return peer
  }
  const ask = async (answer: Buffer) => {
    const { port } = await vend(answer)
    const url = `https://localhost:${port}`
    const asked = createVendingServer({ url, pins: inter.certificate })
    return failure(fetchCaCertificates(asked, alone))
  }

  it('a page is a page, not a JSON error', async () => {
    const error = await ask(http(200, { 'content-type': 'text/html; charset=utf-8' }, '<html>'))
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(error.message).toMatch(/answered 200 with text\/html/)
    expect(error.hint).toContain('reverse proxy')
  })

  it('a redirect says where to', async () => {
    const error = await ask(http(302, { location: 'https://www.example.com/login?token=abc' }))
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(error.message).toMatch(/redirect to www\.example\.com \(302\)/)
  })

  it('what is not HTTP is said to be none', async () => {
    const error = await ask(Buffer.from('220 smtp.example ESMTP\r\n'))
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(error.message).toMatch(/answered, but not in HTTP$/)
  })
})
