import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { day } from '../src/clock.ts'
import { openServerChain } from '../src/tls.ts'
import { movableClock } from './machine.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'certvend-tls-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

describe("the server's own chain", () => {
  it('is root, intermediate and leaf, and the leaf carries every name', async () => {
    const names = ['vending.example.com', '192.0.2.7', '2001:db8::7']
    const chain = await openServerChain(directory, names, movableClock())
    const [root, intermediate, leaf] = [
      chain.root.certificate,
      chain.intermediate.certificate,
      chain.cert,
    ].map((pem) => new X509Certificate(pem))
    expect(root!.checkIssued(root!)).toBe(true)
    expect(intermediate!.checkIssued(root!) && intermediate!.ca).toBe(true)
    expect(leaf!.checkIssued(intermediate!) && leaf!.verify(intermediate!.publicKey)).toBe(true)
    expect(leaf!.ca).toBe(false)
    for (const name of ['localhost', 'vending.example.com'])
      expect(leaf!.checkHost(name)).toBe(name)
    for (const address of ['127.0.0.1', '::1', '192.0.2.7', '2001:db8::7'])
      expect(leaf!.checkIP(address)).toBe(address)
    expect(chain.cert).toContain(chain.intermediate.certificate)
    expect(chain.cert).not.toContain(chain.root.certificate)
    expect(readFileSync(chain.pinPath, 'utf8')).toBe(chain.intermediate.certificate)
  })

  it('gives keys to this user alone, and none away', async () => {
    await openServerChain(directory, [], movableClock())
    for (const file of readdirSync(directory)) {
      const path = join(directory, file)
      const holdsKey = readFileSync(path, 'utf8').includes('PRIVATE KEY')
      expect(holdsKey, file).toBe(file.endsWith('.key.pem'))
      if (holdsKey) expect(statSync(path).mode & 0o777, file).toBe(0o600)
    }
  })

  it('stays as it is from start to start while it lasts', async () => {
    const clock = movableClock()
    const first = await openServerChain(directory, ['a.example'], clock)
    clock.move(59 * day)
    const second = await openServerChain(directory, ['a.example'], clock)
    expect([second.cert, second.key]).toEqual([first.cert, first.key])
    expect(second.intermediate.certificate).toBe(first.intermediate.certificate)
  })

  it('gets a new leaf under the same pin when less than a third of its life is left', async () => {
    const clock = movableClock()
    const first = await openServerChain(directory, [], clock)
    clock.move(61 * day)
    const second = await openServerChain(directory, [], clock)
    expect(second.cert).not.toBe(first.cert)
    expect(second.intermediate.certificate).toBe(first.intermediate.certificate)
    const leaf = new X509Certificate(second.cert)
    expect(Date.parse(leaf.validTo) - clock.now().getTime()).toBeGreaterThan(89 * day)
  })

  it('gets a new leaf when it is asked for a name that the old one does not carry', async () => {
    const clock = movableClock()
    const first = await openServerChain(directory, ['a.example'], clock)
    const second = await openServerChain(directory, ['b.example'], clock)
    expect(second.cert).not.toBe(first.cert)
    expect(new X509Certificate(second.cert).checkHost('b.example')).toBe('b.example')
  })

  it('replaces a damaged leaf, and refuses to replace a damaged CA', async () => {
    const clock = movableClock()
    const first = await openServerChain(directory, [], clock)
    writeFileSync(join(directory, 'server.key.pem'), 'half a f')
    const second = await openServerChain(directory, [], clock)
    expect(second.intermediate.certificate).toBe(first.intermediate.certificate)
    writeFileSync(join(directory, 'intermediate.key.pem'), 'half a f')
    await expect(openServerChain(directory, [], clock)).rejects.toThrow()
  })
})
