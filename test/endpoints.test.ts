/** Endpoints in one word, Amazon's roots, and credentials that were made elsewhere. */
import { X509Certificate } from 'node:crypto'
import { inspect } from 'node:util'
import { amazonTrustAnchors, createCredential, createEndpoint } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { certificateIdOf, certify } from './pki.ts'

describe('an endpoint', () => {
  it.each([
    ['abc-ats.iot.eu-west-1.amazonaws.com', 'abc-ats.iot.eu-west-1.amazonaws.com', 8883, undefined],
    ['mqtt.example:8884', 'mqtt.example', 8884, undefined],
    ['mqtt.example:443', 'mqtt.example', 443, 'x-amzn-mqtt-ca'],
    ['10.0.0.1:1', '10.0.0.1', 1, undefined],
    ['[::1]', '::1', 8883, undefined],
    [' [fe80::1]:65535 ', 'fe80::1', 65_535, undefined],
  ])('"%s" is read', (address, host, port, alpn) => {
    const endpoint = createEndpoint(address)
    expect([endpoint.host, endpoint.port, endpoint.alpn]).toEqual([host, port, alpn])
  })

  it.each([
    '',
    ':8883',
    'a b',
    'host:0',
    'host:65536',
    'host:',
    'https://host',
    '::1',
    'a/b',
    'h:1:2',
  ])('"%s" is none', (address) => {
    expect(() => createEndpoint(address)).toThrow(TypeError)
  })

  it("is vouched for by Amazon's roots 1 and 3, or by the anchors that are given instead", async () => {
    const names = createEndpoint('host').trustAnchors.map((pem) => new X509Certificate(pem).subject)
    expect(names).toEqual([
      expect.stringContaining('Amazon Root CA 1'),
      expect.stringContaining('Amazon Root CA 3'),
    ])
    expect(amazonTrustAnchors().certificates).toHaveLength(2)
    const own = await certify('Own', { ca: true })
    const { trustAnchors } = createEndpoint('host', own.certificate)
    expect(trustAnchors.map(certificateIdOf)).toEqual([certificateIdOf(own.certificate)])
    const { certificate } = await certify('no CA')
    for (const anchors of ['', certificate])
      expect(() => createEndpoint('host', anchors)).toThrow(TypeError)
  })
})

describe('a credential made elsewhere', () => {
  const endpoint = createEndpoint('localhost')

  it('is read from PEM, with its chain, and shows its key to nobody', async () => {
    const ca = await certify('CA', { ca: true })
    const one = await certify('one', { issuer: ca })
    const credential = createCredential({
      thingName: 'one',
      certificateChain: one.certificate + ca.certificate,
      privateKey: one.privateKey,
      endpoint,
    })
    expect(credential).toMatchObject({
      generation: 0,
      deviceSerial: 'one',
      certificateId: certificateIdOf(one.certificate),
      issuedAt: credential.notBefore,
    })
    expect(credential.certificateChain.match(/BEGIN/g)).toHaveLength(2)
    const secret = one.privateKey.split('\n')[1] as string
    expect(inspect(credential, { depth: 9 }) + JSON.stringify(credential)).not.toContain(secret)
  })

  it('is refused when the key is of another certificate, or a part cannot be read', async () => {
    const one = await certify('one')
    const two = await certify('two')
    const parts = { thingName: 'one', certificateChain: one.certificate, endpoint }
    expect(() => createCredential({ ...parts, privateKey: two.privateKey })).toThrow(/not the one/)
    for (const privateKey of ['', 'SECRET', one.certificate])
      expect(() => createCredential({ ...parts, privateKey })).toThrow(/^(?!.*SECRET)/)
    const broken = { ...parts, certificateChain: '', privateKey: one.privateKey }
    expect(() => createCredential(broken)).toThrow(TypeError)
  })
})
