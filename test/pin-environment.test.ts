/** The environment of a device that pins: none of its variables widens the trust. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PeerOptions } from './hostile-server.ts'
import { type Chain, type Hierarchy, makeHierarchy } from './pin-hierarchy.ts'
import { device, pinnedWays } from './pinned-ways.ts'
import { makeKeys } from './pki.ts'

const pinned = pinnedWays()

const run = promisify(execFile)

describe('the environment', () => {
  let h: Hierarchy
  let directory: string
  beforeAll(async () => {
    h = await makeHierarchy('EC')
    directory = await mkdtemp(path.join(tmpdir(), 'certvend-pins-'))
    await writeFile(path.join(directory, 'root.pem'), h.root.certificate)
    await writeFile(path.join(directory, 'weak.cnf'), weakConfiguration)
  })
  afterAll(() => rm(directory, { recursive: true }))

  const weakConfiguration = [
    'nodejs_conf = all',
    'openssl_conf = all',
    '[all]\nssl_conf = ssl',
    '[ssl]\nsystem_default = weak',
    '[weak]\nMinProtocol = TLSv1\nCipherString = ALL:@SECLEVEL=0',
  ].join('\n')

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

  async function boot(
    chain: Chain,
    env: Record<string, string>,
    flags: string[],
    { pin = h.inter, tls }: { pin?: Chain[0]; tls?: PeerOptions['tls'] } = {},
  ) {
    const { port } = await pinned.show({ chain, pins: [pin], ...(tls ? { peer: { tls } } : {}) })
    const booting = run(process.execPath, [...flags, '--input-type=module', '-e', child], {
      cwd: import.meta.dirname,
      env: { PATH: process.env.PATH, ...env },
    })
    const { certificate, privateKey } = device
    booting.child.stdin?.end(
      JSON.stringify({ port, pin: pin.certificate, device: { certificate, privateKey } }),
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

  const weakening = (): Record<string, string>[] => [
    {},
    { NODE_OPTIONS: '--tls-min-v1.0 --tls-cipher-list=ALL:eNULL:@SECLEVEL=0' },
    { OPENSSL_CONF: path.join(directory, 'weak.cnf') },
  ]

  it('does not make a weak CA between server and pin strong enough', async () => {
    const weak = await h.authority('Weak', { issuer: h.root, keys: await makeKeys('RSA-1024') })
    const chain: Chain = [await h.server(weak), weak]
    const how = { pin: h.root, tls: { ciphers: 'DEFAULT:@SECLEVEL=0' } }
    for (const env of weakening())
      expect(await boot(chain, env, [], how), JSON.stringify(env)).toEqual([
        'ERR_SERVER_UNTRUSTED',
        'ERR_SERVER_UNTRUSTED',
      ])
  })

  it('does not let a server do without encryption', async () => {
    const tls = { ciphers: 'eNULL:@SECLEVEL=0', maxVersion: 'TLSv1.2' } as const
    for (const env of weakening())
      expect(await boot([h.leaf], env, [], { tls }), JSON.stringify(env)).toEqual([
        'ERR_NETWORK',
        'ERR_NETWORK',
      ])
  })

  it('believes the pinned server in the same child process, so that the refusals mean something', async () => {
    expect(await boot([h.leaf], {}, [])).toEqual(['believed', 'believed'])
  })
})
