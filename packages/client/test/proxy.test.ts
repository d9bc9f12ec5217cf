import { describe, expect, it } from 'vitest'
import { authority, type Environment, proxyFor } from '../src/proxy.ts'

const proxy = 'http://proxy.example:3128'
const to = (host: string, port = 443) => ({ host, port })
const used = (host: string, noProxy: string, port = 443): boolean =>
  proxyFor(to(host, port), {}, { HTTPS_PROXY: proxy, NO_PROXY: noProxy }) !== undefined

describe('the environment', () => {
  const places: readonly (readonly [string, Environment, string | undefined])[] = [
    ['nothing', {}, undefined],
    ['HTTPS_PROXY', { HTTPS_PROXY: proxy }, 'proxy.example:3128'],
    ['https_proxy first', { https_proxy: 'http://a:1', HTTPS_PROXY: 'http://b:2' }, 'a:1'],
    ['an empty https_proxy as none', { https_proxy: '', HTTPS_PROXY: proxy }, 'proxy.example:3128'],
    ['an empty HTTPS_PROXY as none', { HTTPS_PROXY: '' }, undefined],
    ['a name without a scheme', { HTTPS_PROXY: 'proxy.example:3128' }, 'proxy.example:3128'],
    ['port 80 of http://', { HTTPS_PROXY: 'http://proxy.example' }, 'proxy.example:80'],
    ['port 443 of https://', { HTTPS_PROXY: 'https://proxy.example/' }, 'proxy.example:443'],
    ['an IPv6 address', { HTTPS_PROXY: 'http://[2001:db8::1]:3128' }, '[2001:db8::1]:3128'],
    ['no_proxy first', { HTTPS_PROXY: proxy, no_proxy: '*', NO_PROXY: '' }, undefined],
    ['never HTTP_PROXY or ALL_PROXY', { HTTP_PROXY: proxy, ALL_PROXY: proxy }, undefined],
  ]
  it.each(places)('is read: %s', (_title, environment, place) => {
    expect(proxyFor(to('vend.example'), {}, environment)?.place).toBe(place)
  })

  it.each(['localhost', 'LOCALHOST.', 'lab.localhost', '127.0.0.1', '127.9.8.7', '::1', '[::1]'])(
    'never leads to this machine by a proxy: %s',
    (host) => {
      expect(used(host, '')).toBe(false)
    },
  )

  it('leads anywhere by the proxy of the option, this machine included', () => {
    const options = { proxy: new URL('http://other.example:8080') }
    const found = proxyFor(to('localhost'), options, { HTTPS_PROXY: proxy, NO_PROXY: '*' })
    expect(found?.place).toBe('other.example:8080')
  })

  it('is not asked when the option is false', () => {
    expect(proxyFor(to('a.example'), { proxy: false }, { HTTPS_PROXY: proxy })).toBeUndefined()
  })
})

describe('NO_PROXY', () => {
  const rows: readonly (readonly [string, string, number, boolean])[] = [
    ['*', 'vend.example', 443, true],
    ['vend.example', 'vend.example', 443, true],
    ['VEND.example', 'vend.EXAMPLE', 443, true],
    ['vend.example', 'vend.example.', 443, true],
    ['example', 'vend.example', 443, true],
    ['.example', 'vend.example', 443, true],
    ['.vend.example', 'vend.example', 443, true],
    ['*.example', 'vend.example', 443, true],
    ['end.example', 'vend.example', 443, false],
    ['vend.example', 'example', 443, false],
    ['vend.example', 'vend.example.org', 443, false],
    ['vend.*', 'vend.example', 443, false],
    ['a.example, b.example\tvend.example', 'vend.example', 443, true],
    ['a.example,,', 'vend.example', 443, false],
    [',', 'vend.example', 443, false],
    ['', 'vend.example', 443, false],
    ['.', 'vend.example', 443, false],
    ['vend.example:443', 'vend.example', 443, true],
    ['vend.example:8883', 'vend.example', 443, false],
    ['.example:8883', 'mqtt.example', 8883, true],
    ['192.0.2.7', '192.0.2.7', 443, true],
    ['192.0.2.7', '192.0.2.70', 443, false],
    ['192.0.2.7:443', '192.0.2.7', 443, true],
    ['192.0.2.7:8883', '192.0.2.7', 443, false],
    ['192.0.2.0/24', '192.0.2.200', 443, true],
    ['192.0.2.0/24', '192.0.3.200', 443, false],
    ['192.0.2.0/99', '192.0.2.200', 443, false],
    ['192.0.2.0/x', '192.0.2.200', 443, false],
    ['0.2.7', '192.0.2.7', 443, false],
    ['2001:db8::1', '[2001:0db8:0::1]', 443, true],
    ['[2001:db8::1]', '2001:db8::1', 443, true],
    ['[2001:db8::1]:8883', '2001:db8::1', 8883, true],
    ['[2001:db8::1]:8883', '2001:db8::1', 443, false],
    ['2001:db8::/32', '2001:db8:1::9', 443, true],
    ['2001:db8::/32', '2001:db9::9', 443, false],
    ['2001:db8::/32', '192.0.2.7', 443, false],
    ['192.0.2.0/24', 'vend.example', 443, false],
  ]
  it.each(rows)('%j and %s:%i: exempt %s', (noProxy, host, port, exempt) => {
    expect(used(host, noProxy, port)).toBe(!exempt)
  })
})

describe('a proxy that cannot be used', () => {
  const secret = 'hunter2'
  it.each([
    ['is not a URL', `http://device:${secret}@[`],
    ['is not a URL', `http://device:${secret}@`],
    ['must start with http:// or https://, not with socks5://', `socks5://u:${secret}@proxy:1080`],
    ['must not have a path', `http://u:${secret}@proxy/path`],
    ['must not have a path, a query', `http://u:${secret}@proxy/?a=b`],
    ['has credentials that are not percent-encoded', `http://u:${secret}%zz@proxy:3128`],
  ])('is a TypeError that %s, without the secret', (words, value) => {
    const attempt = () => proxyFor(to('vend.example'), {}, { HTTPS_PROXY: value })
    expect(attempt).toThrow(TypeError)
    expect(attempt).toThrow(`HTTPS_PROXY ${words}`)
    expect(attempt).not.toThrow(secret)
  })
})

describe('credentials', () => {
  const authorization = (url: string): string | undefined =>
    proxyFor(to('vend.example'), { proxy: new URL(url) })?.authorization()
  const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`

  it('are none without a user', () => {
    expect(authorization('http://proxy:3128')).toBeUndefined()
  })
  it('are UTF-8, percent-decoded', () => {
    expect(authorization('http://d%C3%A9vice:p%3A%40%2F@proxy')).toBe(basic('dévice:p:@/'))
  })
  it('may lack a password', () => {
    expect(authorization('http://device@proxy')).toBe(basic('device:'))
  })
  it('do not show when the proxy is looked at', async () => {
    const { inspect } = await import('node:util')
    const found = proxyFor(to('a.example'), { proxy: new URL('http://device:hunter2@proxy') })
    expect(inspect(found, { depth: 9, showHidden: true }) + JSON.stringify(found)).not.toMatch(
      /hunter2|aHVudGVyMg|ZGV2aWNlOmh1bnRlcjI/,
    )
  })
})

it.each([
  ['vend.example', 'vend.example:443'],
  ['192.0.2.7', '192.0.2.7:443'],
  ['2001:db8::1', '[2001:db8::1]:443'],
  ['[2001:db8::1]', '[2001:db8::1]:443'],
])('%s and a port make %s', (host, text) => {
  expect(authority(host, 443)).toBe(text)
})
