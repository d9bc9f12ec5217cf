/** Pins that cannot be used are refused before any connection; decorated ones are understood. */
import { connect, createVendingServer, parseTrustAnchors } from '@certvend/client'
import { beforeAll, describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import { type Hierarchy, makeHierarchy } from './pin-hierarchy.ts'
import { device, pinnedWays } from './pinned-ways.ts'
import { type Certified, makeKeys } from './pki.ts'

const pinned = pinnedWays()

describe('a pin that cannot be used', () => {
  let h: Hierarchy
  let weak: Certified
  let nameless: Certified
  beforeAll(async () => {
    h = await makeHierarchy('EC')
    weak = await h.authority('Weak', { issuer: h.root, keys: await makeKeys('RSA-1024') })
    nameless = await h.authority('', { issuer: h.root })
  })

  const unusable: readonly (readonly [string, () => string | string[]])[] = [
    ['an empty text', () => ''],
    ['an empty list', () => []],
    ['a list of an empty text', () => ['']],
    ['white space', () => ' \n\t\n'],
    ['text that is not PEM', () => 'not a certificate'],
    ['a private key', () => h.inter.privateKey],
    ['PEM armour around nothing', () => '-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n'],
    [
      'PEM armour around garbage',
      () => '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----',
    ],
    ['a certificate cut short', () => h.inter.certificate.slice(0, 200)],
    ['a certificate on one line', () => h.inter.certificate.replaceAll('\n', '')],
    ['a certificate with literal \\n', () => h.inter.certificate.replaceAll('\n', '\\n')],
    ['an end-entity certificate', () => h.leaf.certificate],
    ['a CA and an end-entity certificate', () => [h.inter.certificate, h.leaf.certificate]],
    ['a CA and garbage after it', () => [h.inter.certificate, broken(h.inter.certificate)]],
    ['a CA with an RSA key of 1024 bits', () => weak.certificate],
    ['a CA without a subject', () => nameless.certificate],
  ]

  it.each(unusable)('is refused before any connection: %s', async (_title, pins) => {
    await pinned.show({ chain: [h.leaf], pins: [h.inter] })
    const url = `https://localhost:${pinned.peer?.port}`
    expect(() => createVendingServer({ url, pins: pins() })).toThrow(TypeError)
    expect(() => parseTrustAnchors(pins())).toThrow(TypeError)
    const trustAnchors = [pins()].flat()
    const endpoint = { host: 'localhost', port: pinned.peer?.port ?? 0, trustAnchors }
    await expect(connect(credentialFor(device, endpoint))).rejects.toThrow(TypeError)
    expect(pinned.peer?.opened).toBe(0)
  })

  it('is refused by name, and without one by what it lacks', () => {
    expect(() => parseTrustAnchors(weak.certificate)).toThrow('"CN=Weak" has an RSA key under 2048')
    expect(() => parseTrustAnchors(nameless.certificate)).toThrow('a certificate without a subject')
  })

  it('is understood with a byte order mark, CRLF line ends and words around it', async () => {
    const decorated = `\uFEFFsubject=CN = Intermediate\n${h.inter.certificate}\n# next year's\n${h.sibling.certificate}`
    const { certificates } = parseTrustAnchors(decorated.replaceAll('\n', '\r\n'))
    expect(certificates.map((one) => one.subject)).toEqual(['CN=Intermediate', 'CN=Sibling'])
  })
})

/** The same PEM with its middle turned to something that is not DER. */
const broken = (certificate: string): string =>
  certificate.replace(/^(.*\n)(.{40})/, (_all, head: string) => `${head}${'A'.repeat(40)}`)
