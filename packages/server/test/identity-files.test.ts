/** A certificate that is renewed while the server runs. */
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { day, later, systemClock } from '../src/clock.ts'
import { followIdentity, type Identity, readIdentity } from '../src/identity-files.ts'
import { listen } from '../src/listen.ts'
import { type Authority, makeCa, makeServer } from '../src/pki.ts'
import { identityOptions } from '../src/tls.ts'

const now = systemClock.now()
const year = { notBefore: later(now, -day), notAfter: later(now, 365 * day) }

let directory: string
let files: { cert: string; key: string }
let issuer: Authority
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'certvend-identity-'))
  files = { cert: join(directory, 'chain.pem'), key: join(directory, 'key.pem') }
  issuer = await makeCa({ commonName: 'A CA', ...year })
})
afterEach(() => rmSync(directory, { recursive: true }))

const make = async () =>
  identityOptions(await makeServer({ issuer, names: ['localhost'], ...year }))

/** As certbot does: each file whole, by rename. */
function put({ cert, key }: Identity): void {
  for (const [path, text] of [
    [files.key, key],
    [files.cert, cert],
  ] as const) {
    writeFileSync(`${path}.new`, text, { mode: 0o600 })
    renameSync(`${path}.new`, path)
  }
}

const fingerprint = (pem: string) => new X509Certificate(pem).fingerprint256

const shownAt = (port: number): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect({ port, host: 'localhost', ca: issuer.certificate }, () => {
      resolve(socket.getPeerX509Certificate()!.fingerprint256)
      socket.destroy()
    })
    socket.once('error', reject)
  })

/** Follows the files quickly; each call of `next` waits for one more word. */
function follow(first: Identity) {
  const words: (Identity | Error)[] = []
  let wake: (() => void) | undefined
  const told = (word: Identity | Error) => {
    words.push(word)
    wake?.()
  }
  const end = followIdentity(files, first, { changed: told, failed: told }, 5)
  return {
    words,
    end,
    async next(): Promise<Identity | Error> {
      if (words.length === 0)
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      return words.shift()!
    },
  }
}

describe('a server certificate in files', () => {
  it('that is replaced is shown from the next handshake on, and open connections stay', async () => {
    const [first, second] = [await make(), await make()]
    put(first)
    const handler = async () => new Response('ok')
    const listener = await listen(handler, { tls: first, port: 0, address: '127.0.0.1' })
    const following = follow(first)
    expect(await shownAt(listener.port)).toBe(fingerprint(first.cert))
    const open = connect({ port: listener.port, host: 'localhost', ca: issuer.certificate })
    await new Promise((resolve) => open.once('secureConnect', resolve))
    put(second)
    let word = await following.next()
    while (word instanceof Error) word = await following.next() // seen between the two renames
    listener.show(word)
    expect(await shownAt(listener.port)).toBe(fingerprint(second.cert))
    expect(open.destroyed).toBe(false)
    open.destroy()
    following.end()
    await listener.close(0)
  })

  it('is kept while its successor is half there or no certificate at all, and that is told once', async () => {
    const [first, second] = [await make(), await make()]
    put(first)
    const following = follow(first)
    writeFileSync(files.cert, second.cert)
    const mismatch = await following.next()
    expect(mismatch).toMatchObject({ message: expect.stringContaining('does not belong') })
    writeFileSync(files.cert, '<html>')
    expect(await following.next()).toMatchObject({ message: expect.stringContaining('not PEM') })
    put(second)
    expect(await following.next()).toEqual(second)
    following.end()
    expect(following.words).toEqual([])
  })

  it('is told to be gone when it is, and is found again', async () => {
    const first = await make()
    put(first)
    const following = follow(first)
    rmSync(files.key)
    expect(await following.next()).toBeInstanceOf(Error)
    const second = await make()
    put(second)
    expect(await following.next()).toEqual(second)
    following.end()
  })

  it('is refused at the start when it cannot be used', async () => {
    await expect(readIdentity(files)).rejects.toMatchObject({ exitCode: 2 })
    put({ ...(await make()), key: 'nothing' })
    await expect(readIdentity(files)).rejects.toThrow('is not PEM')
  })
})
