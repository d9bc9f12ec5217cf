/** HTTP proxies by CONNECT, for both halves: what works, and where the pin lies. */
import type net from 'node:net'
import { parseTrustAnchors } from '@certvend/client'
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { type Certified, certify } from './pki.ts'
import { at, failure, inter, names, proxy, root, server, sibling, ways } from './ways.ts'

let proxyCa: Certified

beforeAll(async () => {
  proxyCa = await certify('Proxy CA', { ca: true })
})
afterEach(() => {
  vi.unstubAllEnvs()
})

describe.each(ways)('%s', (_name, out) => {
  const { host } = out

  describe('through a proxy', () => {
    it('leaves the name to the proxy', async () => {
      const { port } = await server()
      const way = await proxy()
      await out.open(port, { proxy: at(way) })
      expect(way.targets).toEqual([`${host}:${port}`])
      expect(way.requests[0]?.headers).toEqual({ host: `${host}:${port}` })
    })

    it('shows its credentials to the proxy, and to nobody else', async () => {
      const peer = await server()
      const way = await proxy({ credentials: 'gåte way@site:p:a/s s' })
      await out.open(peer.port, { proxy: at(way, 'g%C3%A5te%20way%40site:p%3Aa%2Fs%20s') })
      expect(way.opened).toBe(1)
      const secret = Buffer.from('gåte way@site:p:a/s s').toString('base64')
      expect(peer.received.toString('latin1')).not.toContain(secret)
    })

    it('shows a user name without a password', async () => {
      const { port } = await server()
      await out.open(port, { proxy: at(await proxy({ credentials: 'device:' }), 'device') })
    })

    it('reaches an IPv6 address by way of a proxy at one', async () => {
      const identity = await certify('server', { issuer: inter, dns: names })
      const { port } = await server(identity)
      const way = await proxy({ address: '::1' })
      await out.open(port, { proxy: new URL(`http://[::1]:${way.port}`) })
      expect(way.opened).toBe(1)
    })

    it('waits for a slow one', async () => {
      const { port } = await server()
      const way = await proxy({ instead: (_socket, _target, tunnel) => setTimeout(tunnel, 300) })
      await out.open(port, { proxy: at(way) })
    })

    it.each([
      ['HTTP/1.0', 'HTTP/1.0 200 OK\r\n\r\n'],
      ['another success', 'HTTP/1.1 204 Fine\r\n\r\n'],
      ['no reason phrase', 'HTTP/1.1 200\r\n\r\n'],
      ['a length, which means nothing here', 'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n'],
      ['an interim response before', 'HTTP/1.1 103 Early\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n'],
    ])('understands %s', async (_title, answer) => {
      const { port } = await server()
      const way = await proxy({
        instead: (socket, _target, tunnel) => speakInstead(socket, answer, tunnel),
      })
      await out.open(port, { proxy: at(way) })
    })

    it('asks for its protocol by ALPN, and for its name by SNI, inside the tunnel', async () => {
      const asked: unknown[] = []
      const { port } = await server(undefined, [], {
        ALPNCallback(hello) {
          asked.push(hello)
          return hello.protocols[0]
        },
      })
      await out.open(port, { proxy: at(await proxy()) })
      const protocol = host === 'mqtt.example' ? 'x-amzn-mqtt-ca' : 'http/1.1'
      expect(asked).toEqual([{ servername: host, protocols: [protocol] }])
    })

    it('understands an answer that comes byte by byte', async () => {
      const { port } = await server()
      const way = await proxy({
        instead(socket, _target, tunnel) {
          const write = socket.write.bind(socket) as (bytes: Buffer) => boolean
          socket.write = ((bytes: Buffer | string) => {
            const text = Buffer.from(bytes as string)
            if (text.toString().startsWith('HTTP/1.1 200')) {
              for (const byte of text) write(Buffer.of(byte))
              return true
            }
            return write(text)
          }) as never
          socket.setNoDelay(true)
          tunnel()
        },
      })
      await out.open(port, { proxy: at(way) })
    })
  })

  describe('through an https:// proxy', () => {
    const identity = (options = {}): Promise<Certified> =>
      certify('proxy', { issuer: proxyCa, ip: ['127.0.0.1'], ...options })

    it('goes when its anchors vouch for it', async () => {
      const { port } = await server()
      const way = await proxy({ identity: await identity(), credentials: 'device:secret' })
      const proxyAnchors = parseTrustAnchors(proxyCa.certificate)
      await out.open(port, { proxy: at(way, 'device:secret', 'https'), proxyAnchors })
      expect(way.targets).toEqual([`${host}:${port}`])
    })

    it.each([
      ['no anchors vouch for', {}, () => ({})],
      [
        'other anchors vouch for',
        {},
        () => ({ proxyAnchors: parseTrustAnchors(root.certificate) }),
      ],
      [
        'has another name',
        { ip: ['127.0.0.2'] },
        () => ({ proxyAnchors: parseTrustAnchors(proxyCa.certificate) }),
      ],
    ])('tells nothing to one that %s', async (_title, bent, options) => {
      vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0')
      const { port } = await server()
      const way = await proxy({ identity: await identity(bent) })
      const error = await failure(
        out.open(port, { proxy: at(way, 'device:hunter2-secret', 'https'), ...options() }),
      )
      expect(error).toMatchObject({ code: 'ERR_PROXY', remedy: 'operator' })
      expect(error.message).toMatch(/proxy 127\.0\.0\.1:\d+|not for 127\.0\.0\.1/)
      expect(error.hint).toContain('proxyAnchors')
      expect(way.requests).toEqual([])
    })

    it("does not believe a server that only the proxy's anchors vouch for", async () => {
      const peer = await server(await certify('server', { issuer: proxyCa, dns: names }))
      const way = await proxy({ identity: await identity() })
      const proxyAnchors = parseTrustAnchors(proxyCa.certificate)
      const error = await failure(
        out.open(peer.port, { proxy: at(way, '', 'https'), proxyAnchors }),
      )
      expect(error.code).toBe('ERR_SERVER_UNTRUSTED')
      expect(peer.received.length).toBe(0)
    })
  })

  describe('the pin lies on the server, not on the proxy', () => {
    it.each([
      ["the sibling's leaf alone", () => [] as Certified[]],
      ["the sibling's leaf with its whole chain", () => [sibling, root]],
      ["the sibling's leaf and the pinned certificate", () => [sibling, inter]],
    ])('refuses %s inside the tunnel', async (_title, chain) => {
      const other = await certify('server', { issuer: sibling, dns: names })
      const peer = await server(other, chain())
      const way = await proxy()
      const error = await failure(out.open(peer.port, { proxy: at(way) }))
      expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
      expect(error.message).toContain(`${host}:${peer.port} (through proxy 127.0.0.1:${way.port})`)
      expect(error.message).toContain('issued by "Sibling"')
      expect(error.hint).toContain(`exempt ${host} from inspection`)
      expect(peer.received.length, 'bytes sent to a server that is not trusted').toBe(0)
    })

    it('refuses a leaf for another name inside the tunnel', async () => {
      const peer = await server(await certify('x', { issuer: inter, dns: ['other.example'] }))
      const error = await failure(out.open(peer.port, { proxy: at(await proxy()) }))
      expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
      expect(peer.received.length).toBe(0)
    })
  })

  describe('the environment', () => {
    it('names the proxy for both halves', async () => {
      const { port } = await server()
      const way = await proxy({ credentials: 'device:secret' })
      vi.stubEnv('HTTPS_PROXY', at(way, 'device:secret').href)
      await out.open(port)
      expect(way.targets).toEqual([`${host}:${port}`])
    })

    it('is overruled by the option, NO_PROXY too', async () => {
      const { port } = await server()
      const way = await proxy()
      vi.stubEnv('HTTPS_PROXY', 'http://127.0.0.1:1')
      vi.stubEnv('NO_PROXY', '*')
      await out.open(port, { proxy: at(way) })
      expect(way.opened).toBe(1)
    })

    it('is switched off by false', async () => {
      const way = await proxy()
      vi.stubEnv('HTTPS_PROXY', at(way).href)
      const error = await failure(out.open(9, { proxy: false }))
      expect(error.code).toBe('ERR_NETWORK')
      expect(way.opened).toBe(0)
    })

    it('exempts hosts', async () => {
      const way = await proxy()
      vi.stubEnv('HTTPS_PROXY', at(way).href)
      vi.stubEnv('NO_PROXY', '.example')
      const error = await failure(out.open(9))
      expect(error.code).toBe('ERR_NETWORK')
      expect(way.opened).toBe(0)
    })

    it('that names no usable proxy is a mistake, told without its secrets', async () => {
      vi.stubEnv('HTTPS_PROXY', 'socks5://device:hunter2@127.0.0.1:1080')
      const error = await failure(out.open(9))
      expect(error).toBeInstanceOf(TypeError)
      expect(error.message).toBe(
        'HTTPS_PROXY must start with http:// or https://, not with socks5://',
      )
    })
  })
})

/** Sends `answer` in the place of the proxy's own. */
function speakInstead(socket: net.Socket, answer: string, tunnel: () => void): void {
  const write = socket.write.bind(socket) as (bytes: Buffer | string) => boolean
  socket.write = ((bytes: Buffer | string) => {
    socket.write = write as never
    return write(String(bytes).startsWith('HTTP/1.1 200') ? answer : bytes)
  }) as never
  tunnel()
}
