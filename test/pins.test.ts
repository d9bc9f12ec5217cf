/**
 * The pin matrix: what a server may show to a device that pins one intermediate CA, by both ways out
 * of the device (HTTPS to the vending server, MQTT to the broker) and for EC and RSA keys.
 */
import { beforeAll, describe, expect, it } from 'vitest'
import { type Chain, type Hierarchy, makeHierarchy } from './pin-hierarchy.ts'
import { causeCode, pinnedWays, refusal } from './pinned-ways.ts'
import { type CertificateOptions, yesteryear } from './pki.ts'

const pinned = pinnedWays()

/** Node's name for OpenSSL's "unable to get local issuer certificate". */
const noIssuer = 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY'
const selfSigned = 'SELF_SIGNED_CERT_IN_CHAIN'

const believed: readonly (readonly [string, (h: Hierarchy) => Chain])[] = [
  ['the leaf alone', (h) => [h.leaf]],
  ['the leaf and the pinned intermediate', (h) => [h.leaf, h.inter]],
  ['the leaf, the pinned intermediate and the root', (h) => [h.leaf, h.inter, h.root]],
  ['the leaf and the intermediate signed by a foreign root', (h) => [h.leaf, h.interCrossSigned]],
]
const refused: readonly (readonly [string, (h: Hierarchy) => Chain, string])[] = [
  ["the sibling's leaf alone", (h) => [h.siblingLeaf], noIssuer],
  ["the sibling's leaf and the sibling", (h) => [h.siblingLeaf, h.sibling], noIssuer],
  [
    "the sibling's leaf, the sibling and the root",
    (h) => [h.siblingLeaf, h.sibling, h.root],
    selfSigned,
  ],
  [
    "the sibling's leaf, the sibling, the root and the pinned certificate",
    (h) => [h.siblingLeaf, h.sibling, h.root, h.inter],
    selfSigned,
  ],
  [
    "the sibling's leaf, the sibling and the pinned certificate",
    (h) => [h.siblingLeaf, h.sibling, h.inter],
    noIssuer,
  ],
  [
    "the sibling's leaf and the pinned certificate, a lie",
    (h) => [h.siblingLeaf, h.inter],
    noIssuer,
  ],
  ['a leaf that the root issued itself', (h) => [h.rootLeaf, h.root], selfSigned],
  [
    'a leaf of a CA below the pin, which has pathlen:0',
    (h) => [h.belowLeaf, h.below],
    'PATH_LENGTH_EXCEEDED',
  ],
  [
    'a leaf of a CA of the same name with another key',
    (h) => [h.impostorLeaf],
    'CERT_SIGNATURE_FAILURE',
  ],
  [
    'a leaf of a CA of the same name with another key, and that CA',
    (h) => [h.impostorLeaf, h.impostor],
    'CERT_SIGNATURE_FAILURE',
  ],
]

/** Leaves that the pinned intermediate did issue, each with one fault. */
const faults: readonly (readonly [string, CertificateOptions, string])[] = [
  ['that has expired', { notAfter: yesteryear }, 'CERT_HAS_EXPIRED'],
  ['for another host', { dns: ['other.example'] }, 'ERR_TLS_CERT_ALTNAME_INVALID'],
  [
    'for another host and an address',
    { dns: ['other.example'], ip: ['127.0.0.1'] },
    'ERR_TLS_CERT_ALTNAME_INVALID',
  ],
  ['with the name only in the CN', { dns: [] }, 'ERR_TLS_CERT_ALTNAME_INVALID'],
  ['that may only authenticate clients', { extendedKeyUsage: ['clientAuth'] }, 'INVALID_PURPOSE'],
]

describe.each(['EC', 'RSA'] as const)('with %s keys', (type) => {
  let h: Hierarchy
  beforeAll(async () => {
    h = await makeHierarchy(type)
  })

  describe.each(Object.entries(pinned.ways))('%s', (_way, open) => {
    it.each(believed)('believes %s', async (_title, chain) => {
      await open({ chain: chain(h), pins: [h.inter] })
    })

    it.each(refused)('refuses %s', async (_title, chain, code) => {
      const error = await refusal(open({ chain: chain(h), pins: [h.inter] }))
      expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
      expect(causeCode(error)).toBe(code)
      expect(pinned.peer?.received.length, 'bytes sent to a server that is not trusted').toBe(0)
    })

    it.each(faults)('refuses a leaf %s', async (_title, options, code) => {
      const leaf = await h.server(h.inter, options)
      const error = await refusal(open({ chain: [leaf, h.inter], pins: [h.inter] }))
      expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
      expect(causeCode(error)).toBe(code)
      expect(pinned.peer?.received.length).toBe(0)
    })

    it('believes a server of either of two pins', async () => {
      await open({ chain: [h.siblingLeaf], pins: [h.inter, h.sibling] })
      await pinned.peer?.close()
      await open({ chain: [h.leaf], pins: [h.inter, h.sibling] })
    })

    it('believes a server of the pin that is left when the other has expired', async () => {
      await open({ chain: [h.leaf], pins: [h.old, h.inter] })
    })

    it('refuses a server whose only pin has expired', async () => {
      const error = await refusal(open({ chain: [h.oldLeaf], pins: [h.old] }))
      expect(error.code).toBe('ERR_SERVER_UNTRUSTED')
      expect(error.message).toMatch(/expired|EXPIRED/)
    })

    it('refuses a server of an expired pin beside a valid one', async () => {
      const error = await refusal(open({ chain: [h.oldLeaf], pins: [h.old, h.inter] }))
      expect(error.code).toBe('ERR_SERVER_UNTRUSTED')
      expect(causeCode(error)).toBe('CERT_HAS_EXPIRED')
    })

    it('refuses a pin that may only vouch for clients', async () => {
      const clients = await h.authority('Clients', {
        issuer: h.root,
        extendedKeyUsage: ['clientAuth'],
      })
      const leaf = await h.server(clients)
      const error = await refusal(open({ chain: [leaf], pins: [clients] }))
      expect(error.code).toBe('ERR_SERVER_UNTRUSTED')
      expect(causeCode(error)).toBe('INVALID_PURPOSE')
    })

    it('believes a copy of the pin that another root signed', async () => {
      await open({ chain: [h.leaf, h.inter], pins: [h.interCrossSigned] })
    })
  })
})
