/**
 * What else a server shows to a device that pins, by both ways out of the device: addresses,
 * wildcards, weak keys, wrong dates and old TLS.
 */
import dns from 'node:dns'
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { type Hierarchy, makeHierarchy } from './pin-hierarchy.ts'
import { causeCode, pinnedWays, refusal, type Shown } from './pinned-ways.ts'
import { farAhead, makeKeys } from './pki.ts'

const pinned = pinnedWays()

describe.each(Object.entries(pinned.ways))('%s', (_way, open) => {
  let h: Hierarchy
  beforeAll(async () => {
    h = await makeHierarchy('EC')
  })

  it('believes an address that is in subjectAltName', async () => {
    const leaf = await h.server(h.inter, { dns: [], ip: ['127.0.0.1'] })
    await open({ chain: [leaf], pins: [h.inter], host: '127.0.0.1' })
  })

  it('believes an IPv6 address that is in subjectAltName', async () => {
    const leaf = await h.server(h.inter, { dns: [], ip: ['::1'] })
    await open({ chain: [leaf], pins: [h.inter], host: '[::1]', peer: { address: '::1' } })
  })

  it('refuses an address that is only a DNS name in subjectAltName', async () => {
    const leaf = await h.server(h.inter, { dns: ['127.0.0.1'] })
    const error = await refusal(open({ chain: [leaf], pins: [h.inter], host: '127.0.0.1' }))
    expect(causeCode(error)).toBe('ERR_TLS_CERT_ALTNAME_INVALID')
  })

  it('refuses another address than the one in subjectAltName', async () => {
    const leaf = await h.server(h.inter, { dns: ['localhost'], ip: ['127.0.0.2'] })
    const error = await refusal(open({ chain: [leaf], pins: [h.inter], host: '127.0.0.1' }))
    expect(causeCode(error)).toBe('ERR_TLS_CERT_ALTNAME_INVALID')
  })

  it('refuses a leaf with an RSA key of 1024 bits', async () => {
    const leaf = await h.server(h.inter, { keys: await makeKeys('RSA-1024') })
    const weak: Shown = {
      chain: [leaf],
      pins: [h.inter],
      peer: { tls: { ciphers: 'DEFAULT@SECLEVEL=0' } },
    }
    const error = await refusal(open(weak))
    expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
    expect(pinned.peer?.received.length).toBe(0)
  })

  it('refuses a leaf outside the name constraints of the pin', async () => {
    const inter = await h.authority('Constrained', { issuer: h.root, permittedDomain: 'example' })
    const error = await refusal(open({ chain: [await h.server(inter)], pins: [inter] }))
    expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
  })

  it('takes a leaf that is not valid yet for a wrong clock, which asking again may outlive', async () => {
    const leaf = await h.server(h.inter, { notBefore: new Date('2048-12-01'), notAfter: farAhead })
    const error = await refusal(open({ chain: [leaf], pins: [h.inter] }))
    expect(error).toMatchObject({ code: 'ERR_CLOCK', remedy: 'retry' })
  })

  it('refuses a server that speaks nothing newer than TLS 1.1', async () => {
    const old = {
      minVersion: 'TLSv1',
      maxVersion: 'TLSv1.1',
      ciphers: 'ALL:@SECLEVEL=0',
    } as const
    await refusal(open({ chain: [h.leaf], pins: [h.inter], peer: { tls: old } }))
    expect(pinned.peer?.received.length).toBe(0)
  })

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('checks every connection over %s anew', async (only) => {
    const tls = { minVersion: only, maxVersion: only }
    await open({ chain: [h.leaf], pins: [h.inter], peer: { tls } })
    await pinned.peer?.close()
    await open({ chain: [h.leaf], pins: [h.inter], peer: { tls } })
    await pinned.peer?.close()
    const error = await refusal(open({ chain: [h.siblingLeaf], pins: [h.inter], peer: { tls } }))
    expect(error.code).toBe('ERR_SERVER_UNTRUSTED')
  })

  describe('by wildcards', () => {
    afterEach(() => void vi.restoreAllMocks())

    const host = 'foo.vending.example'
    const toLoopback = () => {
      const { lookup } = dns
      vi.spyOn(dns, 'lookup').mockImplementation(((_name: string, ...rest: never[]) =>
        (lookup as (name: string, ...more: never[]) => void)('127.0.0.1', ...rest)) as never)
    }

    it('believes one that is a whole first label', async () => {
      toLoopback()
      const leaf = await h.server(h.inter, { dns: ['*.vending.example'] })
      await open({ chain: [leaf], pins: [h.inter], host })
    })

    it.each(['f*o.vending.example', 'foo*.vending.example', '*oo.vending.example'])(
      'refuses the partial one %s',
      async (name) => {
        toLoopback()
        const leaf = await h.server(h.inter, { dns: [name] })
        const error = await refusal(open({ chain: [leaf], pins: [h.inter], host }))
        expect(causeCode(error)).toBe('ERR_TLS_CERT_ALTNAME_INVALID')
      },
    )

    it('refuses one that would have to span two labels', async () => {
      toLoopback()
      const leaf = await h.server(h.inter, { dns: ['*.example'] })
      const error = await refusal(open({ chain: [leaf], pins: [h.inter], host }))
      expect(causeCode(error)).toBe('ERR_TLS_CERT_ALTNAME_INVALID')
    })
  })
})
