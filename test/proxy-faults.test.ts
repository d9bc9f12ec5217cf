/** What an HTTP proxy can do wrong, and what each error says: the proxy, its answer, the next step. */
import { inspect } from 'node:util'
import { stayConnected } from '@certvend/client'
import { describe, expect, it, onTestFinished } from 'vitest'
import { ownDeadline } from './deadline.ts'
import { listen } from './hostile-server.ts'
import { startHttpProxy } from './http-proxy.ts'
import { at, credential, failure, https, leaf, proxy, proxyThat, server, ways } from './ways.ts'

describe.each(ways)('%s', (_name, out) => {
  const { host } = out

  const basic = 'Proxy-Authenticate: Basic realm="a, Negotiate b"\r\n'
  const ntlm = 'Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n'
  const refusals: readonly (readonly [string, string, RegExp, RegExp])[] = [
    [
      'does not accept the credentials',
      `HTTP/1.1 407 No\r\n${basic}\r\n`,
      /refused CONNECT \(407\): it does not accept the credentials$/,
      /user and password/,
    ],
    [
      'does not accept the credentials, as tinyproxy puts it',
      'HTTP/1.1 401 Unauthorized\r\nContent-Type: text/html\r\n\r\n<html>',
      /refused CONNECT \(401\): it does not accept the credentials$/,
      /user and password/,
    ],
    [
      'wants a scheme that is not spoken here',
      `HTTP/1.1 407 No\r\n${ntlm}\r\n`,
      /refused CONNECT \(407\): it wants Negotiate or NTLM$/,
      /only Basic/,
    ],
    [
      'does not allow the host',
      'HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<html>no</html>',
      /refused CONNECT to (vend|mqtt)\.example:\d+ \(403\)$/,
      /allow .*443.*x-amzn-mqtt-ca/,
    ],
    [
      'cannot reach the host',
      'HTTP/1.1 502 Bad Gateway\r\n\r\n<html>oops</html>',
      /cannot reach (vend|mqtt)\.example:\d+ \(502\)$/,
      /its DNS/,
    ],
    [
      'cannot reach the host in time',
      'HTTP/1.1 504 Gateway Timeout\r\n\r\n',
      /\(504\)$/,
      /its DNS/,
    ],
    [
      'is a captive portal (RFC 6585)',
      'HTTP/1.1 511 Network Authentication Required\r\n\r\n<html>',
      /wants a sign-in to the network \(511\)$/,
      /captive portal/,
    ],
    [
      'is a captive portal that redirects',
      'HTTP/1.1 302 Found\r\nLocation: https://login.hotel.example/?from=me\r\n\r\n',
      /redirect to login\.hotel\.example \(302\)$/,
      /captive portal/,
    ],
    [
      'is a web server',
      'HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>what?</html>',
      /with a page \(400\)$/,
      /HTTPS_PROXY/,
    ],
    [
      'answers every method with a page',
      'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Welcome</html>',
      /answered CONNECT with a page$/,
      /not a proxy/,
    ],
    ['is another service', 'SSH-2.0-OpenSSH_9.2\r\n', /does not speak HTTP$/, /SOCKS/],
    [
      'never ends its answer',
      `HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(4000)}`,
      /does not speak HTTP$/,
      /./,
    ],
    ['ends in the middle of its answer', 'HTTP/1.1 20', /instead of answering CONNECT$/, /./],
    ['closes at once', '', /closed the connection instead of answering CONNECT$/, /HTTPS_PROXY/],
  ]
  it.each(refusals)('a proxy that %s is named, asked once, with the next step', async (...row) => {
    const [, answer, message, hint] = row
    const { port, opened } = await server()
    const way = await proxyThat((socket) => socket.end(answer))
    const error = await failure(out.open(port, { proxy: at(way, 'device:hunter2-secret') }))
    expect(error).toMatchObject({ code: 'ERR_PROXY', remedy: 'retry' })
    expect(error.message).toContain(`proxy 127.0.0.1:${way.port} `)
    expect(error.message).toMatch(message)
    expect(error.hint).toMatch(hint)
    expect(way.opened, 'connections to the proxy').toBe(1)
    expect(opened, 'connections to the server').toBe(0)
    const told = `${error.stack}${inspect(error, { depth: 9, showHidden: true })}`
    expect(told).not.toMatch(/hunter2|ZGV2aWNlOmh1bnRlcjI/)
  })

  it('a proxy that demands credentials is told apart from one that refuses them', async () => {
    const { port } = await server()
    const way = await proxy({ credentials: 'device:secret' })
    const error = await failure(out.open(port, { proxy: at(way) }))
    expect(error).toMatchObject({ code: 'ERR_PROXY', remedy: 'retry' })
    expect(error.message).toMatch(/\(407\): it wants credentials$/)
    expect(error.hint).toContain('http://USER:PASSWORD@HOST:PORT')
  })

  it('a proxy that resets the connection is named', async () => {
    const { port } = await server()
    const way = await proxyThat((socket) => socket.resetAndDestroy())
    const error = await failure(out.open(port, { proxy: at(way) }))
    expect(error.code).toBe('ERR_PROXY')
    expect(error.message).toMatch(/closed the connection instead.*\(ECONNRESET\)$/)
  })

  it('a proxy that is not there is named', async () => {
    const gone = await startHttpProxy()
    await gone.close()
    const error = await failure(out.open(1, { proxy: at(gone) }))
    expect(error).toMatchObject({ code: 'ERR_PROXY', remedy: 'retry' })
    expect(error.message).toBe(`cannot reach proxy 127.0.0.1:${gone.port} (ECONNREFUSED)`)
  })

  it('a page after the tunnel was granted is told from a server', async () => {
    const { port } = await server()
    const way = await proxyThat((socket) => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.once('data', () => socket.end('<html>Welcome</html>'))
    })
    const error = await failure(out.open(port, { proxy: at(way) }))
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect(error.message).toContain('does not speak TLS')
    expect(error.hint).toContain(`what proxy 127.0.0.1:${way.port} leads to`)
  })

  it('a proxy that never answers costs no more than the deadline', async () => {
    const { port } = await server()
    const way = await proxyThat(() => {})
    const error = await failure(out.open(port, { proxy: at(way), deadlineMs: 300 }))
    expect(error).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
    expect(error.message).toBe(`proxy 127.0.0.1:${way.port} did not answer within 0.3 s`)
    await expect.poll(() => way.connected).toBe(0)
  })

  it('a tunnel that leads nowhere costs no more than the deadline, and names the server', async () => {
    const { port } = await server()
    const pass = ownDeadline()
    const way = await proxyThat((socket) => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.once('data', pass)
    })
    const error = await failure(out.open(port, { proxy: at(way) }))
    expect(error.code).toBe('ERR_TIMEOUT')
    expect(error.message).toContain(`${host}:${port} (through proxy 127.0.0.1:${way.port}) did not`)
    await expect.poll(() => way.connected).toBe(0)
  })

  it('a proxy that dies in the handshake is a fault of the network', async () => {
    const { port } = await server()
    const way = await proxyThat((socket) => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.once('data', () => socket.destroy())
    })
    const error = await failure(out.open(port, { proxy: at(way) }))
    expect(error).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect(error.message).toContain(`through proxy 127.0.0.1:${way.port}`)
    expect(way.opened).toBe(1)
  })

  it('gives up at once, with the signal’s reason, while the proxy is silent', async () => {
    const { port } = await server()
    const way = await proxyThat(() => {})
    const abort = new AbortController()
    const attempt = failure(out.open(port, { proxy: at(way), signal: abort.signal }))
    await expect.poll(() => way.requests.length).toBe(1)
    const reason = new Error('enough')
    abort.abort(reason)
    expect(await attempt).toBe(reason)
    await expect.poll(() => way.connected).toBe(0)
  })
})

it('a reply lost with its proxy is known to be lost, and the proxy is named', async () => {
  const peer = await listen(leaf, [], (socket) => void socket.once('data', () => way.cut()))
  onTestFinished(() => peer.close())
  const way = await proxy()
  const error = await failure(https.open(peer.port, { proxy: at(way) }))
  expect(error).toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'retry' })
  expect(error.message).toContain(`through proxy 127.0.0.1:${way.port}`)
})

it('a session lost with its proxy comes back with it', async () => {
  const { port } = await server()
  const first = await proxy()
  const ended: string[] = []
  let sessions = 0
  for await (const session of stayConnected(credential(port), {
    proxy: at(first),
    spreadMs: 1,
    backoff: { baseMs: 5, capMs: 20 },
    onRetry: ({ error }) => ended.push(error.code),
  })) {
    if (++sessions === 3) break
    first.cut()
    const end = await session.ended
    expect(end).toMatchObject({ reason: 'lost', error: { code: 'ERR_SESSION_LOST' } })
  }
  expect(first.opened).toBe(3)
  expect(new Set(ended)).toEqual(new Set(['ERR_SESSION_LOST']))
})
