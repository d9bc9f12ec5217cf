/** A credential store that was damaged: how it heals, and what it is not fooled by. */
import fs from 'node:fs'
import path from 'node:path'
import { openCredentialStore } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { runScript } from './process.ts'
import {
  failureOf,
  furnished,
  mqttCa,
  obtain,
  pemOf,
  portrait,
  succeeded,
} from './stored-credential.ts'
import { contents } from './temporary.ts'

describe('opening a store that was damaged', () => {
  const at = (directory: string, number: number, file = ''): string =>
    path.join(directory, 'generations', String(number).padStart(10, '0'), file)

  it.each(['certificate.pem', 'trust-anchors.pem', 'credential.json', 'private-key.pem'])(
    'takes a whole sibling when %s of the live one is damaged',
    async (file) => {
      const { directory, successor } = await succeeded()
      fs.appendFileSync(at(directory, 1, file), file === 'private-key.pem' ? '' : ' ')
      if (file === 'private-key.pem') fs.truncateSync(at(directory, 1, file), 100)
      if (file === 'credential.json') fs.truncateSync(at(directory, 1, file), 100)
      const store = await openCredentialStore(directory)
      expect(pemOf(store.current())).toBe(pemOf(successor))
      expect(store.mended.join()).toMatch(/generation 1 is damaged/)
      expect(fs.readlinkSync(path.join(directory, 'current'))).toBe('generations/0000000002')
      expect((await openCredentialStore(directory)).mended).toEqual([])
    },
  )

  it.each(['certificate.pem', 'trust-anchors.pem', 'credential.json'])(
    'keeps the key, to be asked for again, when there is no sibling and %s is gone',
    async (file) => {
      const { directory, credential } = await furnished()
      fs.rmSync(at(directory, 1, file))
      const store = await openCredentialStore(directory)
      expect(store.current()).toBeUndefined()
      expect(store.pending()).toMatchObject({ state: 'requested' })
      expect(store.mended.join()).toMatch(/its key is whole/)
      expect(store.begin().privateKey.toPem()).toBe(pemOf(credential))
      expect(pemOf(await obtain(store))).toBe(pemOf(credential))
    },
  )

  const rot = (file: string, from: RegExp | string, to: string): void => {
    const text = fs.readFileSync(file, 'utf8')
    expect(text).toMatch(from)
    fs.writeFileSync(file, text.replace(from, to))
  }

  it.each([
    ['thingName', 'device-1', 'devide-1'],
    ['certificateId', /(?<="certificateId": ")./, 'x'],
    ['certificateId', /(?<="certificateId": ")[0-9a-f]{2}/, '00'],
    ['issuedAt', '2026-12-01', '2036-12-01'],
    ['the port', '8883', '8882'],
    ['the host', 'mqtt.example', 'mqtt.dxample'],
    ['keyOrigin', '"device"', '"server"'],
    ['the seal', /(?<="digest": ")[0-9a-f]{2}/, '00'],
    ["the seal's name", '"digest"', '"dagest"'],
  ])('is not fooled by %s in credential.json, one bit of it another', async (_, from, to) => {
    const { directory, credential } = await furnished()
    rot(at(directory, 1, 'credential.json'), from, to)
    const store = await openCredentialStore(directory)
    expect(store.current()).toBeUndefined()
    expect(store.mended.join()).toMatch(/its key is whole/)
    expect(pemOf(await obtain(store))).toBe(pemOf(credential))
  })

  it('is not kept waiting by a rotten appointment in request.json', async () => {
    const { directory } = await furnished()
    const store = await openCredentialStore(directory)
    store.begin()
    const sentAt = new Date('2026-12-01T00:00:00Z')
    const notBefore = new Date('2026-12-01T02:00:00Z')
    store.recordRequest({
      dialect: 'certvend',
      urlHash: '0'.repeat(64),
      sentAt,
      attempts: 1,
      notBefore,
    })
    store.close()
    rot(at(directory, 2, 'request.json'), '2026-12-01T02', '9026-12-01T02')
    const { request } = (await openCredentialStore(directory)).pending() as { request?: unknown }
    expect(request).toBeUndefined()
  })

  it('reads what was stored before records were sealed, and nothing else without a seal', async () => {
    const { directory, credential } = await furnished()
    const file = at(directory, 1, 'credential.json')
    const { digest: _, ...before } = JSON.parse(fs.readFileSync(file, 'utf8'))
    fs.writeFileSync(file, `${JSON.stringify(before, undefined, 2)}\n`)
    const old = await openCredentialStore(directory)
    expect(pemOf(old.current())).toBe(pemOf(credential))
    expect(old.mended).toEqual([])
    fs.writeFileSync(file, JSON.stringify({ ...before, digesu: '00' }))
    expect((await openCredentialStore(directory, { readOnly: true })).current()).toBeUndefined()
  })

  it('says so, and deletes nothing, when the only key is damaged', async () => {
    const { directory } = await furnished()
    fs.truncateSync(at(directory, 1, 'private-key.pem'), 100)
    const before = portrait(directory)
    const failure = await failureOf(() => openCredentialStore(directory))
    expect(failure).toMatchObject({ code: 'ERR_STORE_CORRUPT', remedy: 'operator' })
    expect(failure.message).toContain(directory)
    expect(portrait(directory)).toEqual(before)
  })

  it.each<readonly [string, (directory: string) => void]>([
    ['is gone', () => {}],
    ['dangles', (d) => fs.symlinkSync('generations/0000000009', path.join(d, 'current'))],
    ['points outside', (d) => fs.symlinkSync('/etc', path.join(d, 'current'))],
    [
      'points upwards',
      (d) => fs.symlinkSync('../../generations/0000000001', path.join(d, 'current')),
    ],
    ['is a file', (d) => fs.writeFileSync(path.join(d, 'current'), 'generations/0000000001')],
  ])('finds the credential when its link %s', async (_title, bend) => {
    const { directory, credential } = await furnished()
    fs.rmSync(path.join(directory, 'current'))
    bend(directory)
    const store = await openCredentialStore(directory)
    expect(pemOf(store.current())).toBe(pemOf(credential))
    expect(fs.readlinkSync(path.join(directory, 'current'))).toBe('generations/0000000001')
  })

  it('removes what was never finished, and only that', async () => {
    const { directory } = await furnished()
    const clean = contents(directory)
    fs.writeFileSync(path.join(directory, 'README'), 'by the operator')
    fs.writeFileSync(path.join(directory, '.hidden'), 'by the operator')
    fs.symlinkSync('generations/0000000007', path.join(directory, '.current.0123456789abcdef'))
    fs.writeFileSync(at(directory, 1, '.credential.json.0123456789abcdef'), '{"version"')
    fs.mkdirSync(at(directory, 7))
    fs.writeFileSync(at(directory, 7, 'private-key.pem'), '-----BEGIN', { mode: 0o600 })
    fs.mkdirSync(path.join(directory, 'generations', 'tmp'))
    const store = await openCredentialStore(directory)
    expect(contents(directory)).toEqual([...clean, 'README', '.hidden'].sort())
    expect(store.current()?.generation).toBe(1)
  })

  it('opens a healthy store without touching it', async () => {
    const { directory } = await succeeded()
    const before = portrait(directory)
    const store = await openCredentialStore(directory)
    store.current()?.privateKey.toPem()
    store.pending()
    store.reload()
    store.close()
    expect(portrait(directory)).toEqual(before)
  })

  it('never shows half a credential, wherever a file was cut', async () => {
    const { directory, credential } = await furnished()
    for (const file of [
      'private-key.pem',
      'certificate.pem',
      'trust-anchors.pem',
      'credential.json',
    ]) {
      const whole = fs.readFileSync(at(directory, 1, file))
      for (let length = 0; length < whole.length; length += 41) {
        fs.writeFileSync(at(directory, 1, file), whole.subarray(0, length))
        const opened = await openCredentialStore(directory).catch((error) => error)
        if (opened instanceof Error)
          expect(opened, `${file} at ${length}`).toMatchObject({ code: 'ERR_STORE_CORRUPT' })
        else expect(opened.current(), `${file} at ${length}`).toBeUndefined()
        // Healing has made it a request; make it a credential again for the next cut.
        fs.writeFileSync(at(directory, 1, file), whole)
        for (const link of ['current', 'pending'])
          fs.rmSync(path.join(directory, link), { force: true })
        fs.symlinkSync('generations/0000000001', path.join(directory, 'current'))
      }
    }
    expect(pemOf((await openCredentialStore(directory)).current())).toBe(pemOf(credential))
  })

  it.each<readonly [string, (file: string) => void]>([
    ['a link to another file', (file) => fs.symlinkSync('/etc/hostname', file)],
    ['a link to itself', (file) => fs.symlinkSync('private-key.pem', file)],
    ['a directory', (file) => fs.mkdirSync(file)],
    ['enormous', (file) => fs.writeFileSync(file, 'x'.repeat(300_000), { mode: 0o600 })],
    ['binary', (file) => fs.writeFileSync(file, Buffer.alloc(1000, 0xff), { mode: 0o600 })],
    ['another key', (file) => fs.writeFileSync(file, mqttCa.privateKey, { mode: 0o600 })],
  ])('is not fooled by a private key that is %s', async (_title, replace) => {
    const { directory } = await furnished()
    const file = at(directory, 1, 'private-key.pem')
    fs.rmSync(file)
    replace(file)
    const opened = await openCredentialStore(directory).catch((error) => error)
    if (opened instanceof Error) expect(opened).toMatchObject({ code: 'ERR_STORE_CORRUPT' })
    else expect(opened.current()).toBeUndefined()
  })

  it('does not wait at a pipe that lies where a file belongs', async () => {
    const { directory } = await furnished()
    fs.rmSync(at(directory, 1, 'certificate.pem'))
    const told = await runScript<{ status: number; state: string }>(
      `import { spawnSync } from 'node:child_process'
       import { openCredentialStore } from '@certvend/client'
       const [directory, pipe] = process.argv.slice(1)
       const { status } = spawnSync('mkfifo', [pipe])
       const store = await openCredentialStore(directory)
       console.log(JSON.stringify({ status, state: store.pending()?.state }))`,
      { args: [directory, at(directory, 1, 'certificate.pem')] },
    )
    expect(told).toEqual({ status: 0, state: 'requested' })
  })

  it('refuses a key that others may read, and says how to mend it', async () => {
    const { directory } = await furnished()
    const file = at(directory, 1, 'private-key.pem')
    fs.chmodSync(file, 0o640)
    const failure = await failureOf(() => openCredentialStore(directory))
    expect(failure).toMatchObject({ code: 'ERR_STORE_UNSAFE', remedy: 'operator' })
    expect(failure.message).toContain(`chmod 600 ${file}`)
    fs.chmodSync(file, 0o600)
    expect((await openCredentialStore(directory)).current()?.generation).toBe(1)
  })
})
