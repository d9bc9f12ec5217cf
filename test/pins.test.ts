/**
 * The pin matrix: what a server may show to a device that pins one intermediate CA, by both ways out
 * of the device (HTTPS to the vending server, MQTT to the broker) and for EC and RSA keys.
 */
import { execFile } from 'node:child_process'
import dns from 'node:dns'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import {
  type CertvendError,
  connect,
  createVendingServer,
  fetchCaCertificates,
  parseTrustAnchors,
} from '@certvend/client'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { credentialFor } from './device.ts'
import { eitherProtocol, http, listen, type Peer, type PeerOptions } from './hostile-server.ts'
import {
  type CertificateOptions,
  type Certified,
  certify,
  farAhead,
  type KeyType,
  makeKeys,
  yesteryear,
} from './pki.ts'

const run = promisify(execFile)

/** Root → inter (pinned) and sibling, with the end entities that a server may show. */
async function makeHierarchy(type: KeyType) {
  const serverKeys = await makeKeys(type)
  const authority = async (name: string, options: CertificateOptions = {}): Promise<Certified> =>
    certify(name, { ca: true, keys: await makeKeys(type), ...options })
  const server = (issuer: Certified, options: CertificateOptions = {}): Promise<Certified> =>
    certify('localhost', { issuer, keys: serverKeys, dns: ['localhost'], ...options })
  const root = await authority('Root')
  const inter = await authority('Intermediate', { issuer: root, pathLength: 0 })
  const sibling = await authority('Sibling', { issuer: root, pathLength: 0 })
  const foreignRoot = await authority('Foreign root')
  const below = await authority('Below the intermediate', { issuer: inter })
  const old = await authority('Old', { issuer: root, notAfter: yesteryear })
  const impostor = await authority('Intermediate', { issuer: root, pathLength: 0 })
  return {
    authority,
    server,
    root,
    inter,
    sibling,
    impostor,
    below,
    old,
    interCrossSigned: await certify('Intermediate', {
      issuer: foreignRoot,
      ca: true,
      pathLength: 0,
      keys: inter.keys,
    }),
    leaf: await server(inter),
    siblingLeaf: await server(sibling),
    impostorLeaf: await server(impostor),
    rootLeaf: await server(root),
    belowLeaf: await server(below),
    oldLeaf: await server(old),
  }
}
type Hierarchy = Awaited<ReturnType<typeof makeHierarchy>>

interface Shown {
  readonly chain: readonly [Certified, ...Certified[]]
  readonly pins: readonly Certified[]
  readonly host?: string
  readonly peer?: PeerOptions
}

let device: Certified
let peer: Peer | undefined
const reply = (pins: string): Buffer =>
  http(
    200,
    { 'content-type': 'application/json' },
    JSON.stringify({ deviceCa: [pins], trustAnchors: [pins] }),
  )

beforeAll(async () => {
  device = await certify('device-1')
})
afterEach(async () => {
  vi.restoreAllMocks()
  await peer?.close()
  peer = undefined
})

async function show({ chain: [leaf, ...rest], pins, peer: options }: Shown): Promise<Peer> {
  peer = await listen(leaf, rest, eitherProtocol(reply(pins[0]?.certificate ?? '')), options)
  return peer
}

/** Both ways out of the device; each resolves when the server was believed. */
const ways = {
  'HTTPS by undici': async (shown: Shown) => {
    const { port } = await show(shown)
    const server = createVendingServer({
      url: `https://${shown.host ?? 'localhost'}:${port}`,
      pins: shown.pins.map((pin) => pin.certificate),
    })
    await fetchCaCertificates(server)
  },
  'MQTT by TLS': async (shown: Shown) => {
    const { port } = await show(shown)
    const trustAnchors = shown.pins.map((pin) => pin.certificate)
    const host = (shown.host ?? 'localhost').replace(/^\[|\]$/g, '')
    const session = await connect(credentialFor(device, { host, port, trustAnchors }))
    await session.close()
  },
} satisfies Record<string, (shown: Shown) => Promise<void>>

async function refusal(attempt: Promise<void>): Promise<CertvendError> {
  const error = await attempt.then(
    () => undefined,
    (reason) => reason,
  )
  expect(error, 'the server was believed').toBeDefined()
  return error
}

const causeCode = (error: CertvendError): unknown => (error.cause as { code?: unknown }).code

/** Node's name for OpenSSL's "unable to get local issuer certificate". */
const noIssuer = 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY'
const selfSigned = 'SELF_SIGNED_CERT_IN_CHAIN'

type Chain = readonly [Certified, ...Certified[]]

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

  describe.each(Object.entries(ways))('%s', (_way, open) => {
    it.each(believed)('believes %s', async (_title, chain) => {
      await open({ chain: chain(h), pins: [h.inter] })
    })

    it.each(refused)('refuses %s', async (_title, chain, code) => {
      const error = await refusal(open({ chain: chain(h), pins: [h.inter] }))
      expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
      expect(causeCode(error)).toBe(code)
      expect(peer?.received.length, 'bytes sent to a server that is not trusted').toBe(0)
    })

    it.each(faults)('refuses a leaf %s', async (_title, options, code) => {
      const leaf = await h.server(h.inter, options)
      const error = await refusal(open({ chain: [leaf, h.inter], pins: [h.inter] }))
      expect(error).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', remedy: 'operator' })
      expect(causeCode(error)).toBe(code)
      expect(peer?.received.length).toBe(0)
    })

    it('believes a server of either of two pins', async () => {
      await open({ chain: [h.siblingLeaf], pins: [h.inter, h.sibling] })
      await peer?.close()
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

describe.each(Object.entries(ways))('%s', (_way, open) => {
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
    expect(peer?.received.length).toBe(0)
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
    expect(peer?.received.length).toBe(0)
  })

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('checks every connection over %s anew', async (only) => {
    const tls = { minVersion: only, maxVersion: only }
    await open({ chain: [h.leaf], pins: [h.inter], peer: { tls } })
    await peer?.close()
    await open({ chain: [h.leaf], pins: [h.inter], peer: { tls } })
    await peer?.close()
    const error = await refusal(open({ chain: [h.siblingLeaf], pins: [h.inter], peer: { tls } }))
    expect(error.code).toBe('ERR_SERVER_UNTRUSTED')
  })

  describe('by wildcards', () => {
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

describe('the environment', () => {
  let h: Hierarchy
  let directory: string
  beforeAll(async () => {
    h = await makeHierarchy('EC')
    directory = await mkdtemp(path.join(tmpdir(), 'certvend-pins-'))
    await writeFile(path.join(directory, 'root.pem'), h.root.certificate)
  })
  afterAll(() => rm(directory, { recursive: true }))

  const child = `
    import { connect, createVendingServer, fetchCaCertificates } from '@certvend/client'
    import { createPrivateKey, createPublicKey } from 'node:crypto'
    const { port, pin, device } = JSON.parse(await new Response(process.stdin).text())
    const tell = (error) => console.log(error.code)
    const believed = () => console.log('believed')
    const server = createVendingServer({ url: 'https://localhost:' + port, pins: pin })
    await fetchCaCertificates(server).then(believed, tell)
    const privateKey = { publicKey: createPublicKey(device.privateKey), toPem: () => device.privateKey }
    await connect({
      thingName: 'device-1', notAfter: new Date('2049-01-01'), privateKey,
      certificateChain: device.certificate,
      endpoint: { host: 'localhost', port, trustAnchors: [pin] },
    }).then((session) => session.close().then(believed), tell)
  `

  async function boot(chain: Chain, env: Record<string, string>, flags: string[]) {
    const { port } = await show({ chain, pins: [h.inter] })
    const booting = run(process.execPath, [...flags, '--input-type=module', '-e', child], {
      cwd: import.meta.dirname,
      env: { PATH: process.env.PATH, ...env },
    })
    const { certificate, privateKey } = device
    booting.child.stdin?.end(
      JSON.stringify({ port, pin: h.inter.certificate, device: { certificate, privateKey } }),
    )
    return (await booting).stdout.trim().split('\n')
  }

  it.each([
    ['NODE_TLS_REJECT_UNAUTHORIZED=0', { NODE_TLS_REJECT_UNAUTHORIZED: '0' }, []],
    ['NODE_EXTRA_CA_CERTS', { NODE_EXTRA_CA_CERTS: 'root.pem' }, []],
    ['SSL_CERT_FILE', { SSL_CERT_FILE: 'root.pem' }, ['--use-openssl-ca']],
  ])('%s does not widen the trust', async (_name, env, flags) => {
    const full = Object.fromEntries(
      Object.entries(env).map(([name, value]) => [
        name,
        value === 'root.pem' ? path.join(directory, value) : value,
      ]),
    )
    const told = await boot([h.siblingLeaf, h.sibling, h.root], full, flags)
    expect(told).toEqual(['ERR_SERVER_UNTRUSTED', 'ERR_SERVER_UNTRUSTED'])
  })

  it('believes the pinned server in the same child process, so that the refusals mean something', async () => {
    expect(await boot([h.leaf], {}, [])).toEqual(['believed', 'believed'])
  })
})

describe('a pin that cannot be used', () => {
  let h: Hierarchy
  let weak: Certified
  beforeAll(async () => {
    h = await makeHierarchy('EC')
    weak = await h.authority('Weak', { issuer: h.root, keys: await makeKeys('RSA-1024') })
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
  ]

  it.each(unusable)('is refused before any connection: %s', async (_title, pins) => {
    await show({ chain: [h.leaf], pins: [h.inter] })
    const url = `https://localhost:${peer?.port}`
    expect(() => createVendingServer({ url, pins: pins() })).toThrow(TypeError)
    expect(() => parseTrustAnchors(pins())).toThrow(TypeError)
    const trustAnchors = [pins()].flat()
    const endpoint = { host: 'localhost', port: peer?.port ?? 0, trustAnchors }
    await expect(connect(credentialFor(device, endpoint))).rejects.toThrow(TypeError)
    expect(peer?.opened).toBe(0)
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
