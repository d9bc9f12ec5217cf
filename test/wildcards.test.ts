/** Wildcard certificates under a CA that is excluded from names: who may be reached through them. */
import dns from 'node:dns'
import { connect, isCertvendError } from '@certvend/client'
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { credentialFor } from './device.ts'
import { connack, listen, type Peer } from './hostile-server.ts'
import { type Certified, certify } from './pki.ts'

const answer = (socket: { once(event: 'data', then: () => void): void; write(b: Buffer): void }) =>
  socket.once('data', () => socket.write(connack()))

describe('a wildcard under a CA that is excluded from one name', () => {
  let device: Certified
  let root: Certified
  let constrained: Certified
  let leaf: Certified
  let peer: Peer | undefined

  beforeAll(async () => {
    device = await certify('device-1')
    root = await certify('Root', { ca: true })
    constrained = await certify('Constrained', {
      issuer: root,
      ca: true,
      excludedDomain: 'secret.vending.example',
    })
    leaf = await certify('server', { issuer: constrained, dns: ['*.vending.example'] })
  })
  beforeEach(() => {
    const { lookup } = dns
    vi.spyOn(dns, 'lookup').mockImplementation(((_name: string, ...rest: never[]) =>
      (lookup as (name: string, ...more: never[]) => void)('127.0.0.1', ...rest)) as never)
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    await peer?.close()
  })

  async function reach(host: string, chain: Certified[], anchor: Certified): Promise<void> {
    peer = await listen(chain[0] as Certified, chain.slice(1), answer)
    const endpoint = { host, port: peer.port, trustAnchors: [anchor.certificate] }
    const session = await connect(credentialFor(device, endpoint))
    await session.close()
  }

  it.each([
    ['the root is trusted', () => ({ chain: [leaf, constrained], anchor: root })],
    ['the constrained CA itself is pinned', () => ({ chain: [leaf], anchor: constrained })],
  ])('reaches other hosts, not that one, when %s', async (_title, shown) => {
    const { chain, anchor } = shown()
    await reach('open.vending.example', chain, anchor)
    await peer?.close()
    const error = await reach('secret.vending.example', chain, anchor).then(
      () => undefined,
      (reason) => reason,
    )
    expect(isCertvendError(error, 'ERR_SERVER_UNTRUSTED')).toBe(true)
    expect(error.message).toMatch(/may not speak for that name/)
  })

  it('is not hidden by a CA of the same name and key, shown first, that nobody vouches for', async () => {
    const decoy = await certify('Constrained', { ca: true, keys: constrained.keys })
    await expect(
      reach('secret.vending.example', [leaf, decoy, constrained], root),
    ).rejects.toMatchObject({ code: 'ERR_SERVER_UNTRUSTED' })
  })
})
