/** Which URLs of a vending machine are taken, and what becomes of their paths. */
import { createVendingServer, enroll } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { claim, clock, openFresh, pin } from './attempt.ts'

describe('a vending URL', () => {
  const target = async (url: string): Promise<URL> => {
    const urls: URL[] = []
    const store = await openFresh()
    await enroll(store, createVendingServer({ url, pins: pin }), claim, {
      clock,
      send: async (request) => {
        urls.push(request.url)
        return { status: 503, headers: {}, body: new Uint8Array() }
      },
    }).catch(() => {})
    return urls[0]!
  }

  it.each([
    ['https://vending.example', 'https://vending.example/v1/enroll'],
    ['https://vending.example/', 'https://vending.example/v1/enroll'],
    ['https://vending.example:8443/a/b/', 'https://vending.example:8443/a/b/v1/enroll'],
    ['https://vending.example/a//', 'https://vending.example/a/v1/enroll'],
  ])('%s keeps its path as a prefix', async (url, expected) => {
    expect((await target(url)).href).toBe(expected)
  })

  it('whose path begins with two slashes stays on its host', async () => {
    expect((await target('https://vending.example//evil.example/')).host).toBe('vending.example')
  })

  it.each([
    'http://vending.example',
    'vending.example',
    '',
    'file:///etc/passwd',
    'https://user:secret@vending.example',
    'https://vending.example/?token=secret',
    'https://vending.example/#x',
  ])('is refused: %j', (url) => {
    expect(() => createVendingServer({ url, pins: pin })).toThrow(TypeError)
  })
})
