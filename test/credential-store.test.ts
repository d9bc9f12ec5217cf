/** The credential store: its life, its healing, and what it is not moved by. */
import fs from 'node:fs'
import path from 'node:path'
import {
  CertvendError,
  type Credential,
  type CredentialStore,
  type Issued,
  openCredentialStore,
} from '@certvend/client'
import { beforeAll, describe, expect, it } from 'vitest'
import { type Certified, certificateIdOf, certify } from './pki.ts'
import { becomeNobody, nextLine, nobody, notRoot, runScript, startScript } from './process.ts'
import { contents, temporaryDirectory } from './temporary.ts'

let deviceCa: Certified
let mqttCa: Certified
beforeAll(async () => {
  deviceCa = await certify('Device CA', { ca: true })
  mqttCa = await certify('MQTT CA', { ca: true })
})

/** What a vending server adds to the pending key. */
async function issuedFor(store: CredentialStore): Promise<Issued> {
  const { privateKey } = store.begin()
  const publicKey = privateKey.publicKey.export({ type: 'spki', format: 'der' })
  const { certificate } = await certify('device-1', { issuer: deviceCa, publicKey })
  return {
    deviceSerial: 'device-1',
    thingName: 'device-1',
    certificateId: certificateIdOf(certificate),
    certificateChain: certificate,
    endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: [mqttCa.certificate] },
    keyOrigin: 'device',
    issuedAt: new Date('2026-12-01T00:00:00Z'),
  }
}

const obtain = async (store: CredentialStore): Promise<Credential> =>
  store.issue(await issuedFor(store))

const stateDirectory = (): string => path.join(temporaryDirectory(), 'state')

/** A directory with one credential in use, and nobody who holds its lock. */
async function furnished(): Promise<{ directory: string; credential: Credential }> {
  const directory = stateDirectory()
  const store = await openCredentialStore(directory)
  const credential = await obtain(store)
  store.close()
  return { directory, credential }
}

/** As {@link furnished}, with a whole successor that waits for its proof. */
async function succeeded() {
  const { directory, credential } = await furnished()
  const store = await openCredentialStore(directory)
  const successor = await obtain(store)
  store.close()
  return { directory, credential, successor }
}

const pemOf = (credential?: Credential): string | undefined => credential?.privateKey.toPem()

/** Everything that can be seen of a directory: names, modes, owners, times, targets, content. */
function portrait(directory: string): unknown[] {
  return ['.', ...contents(directory)].map((name) => {
    const target = path.join(directory, name)
    const { mode, uid, mtimeNs, ctimeNs, ino } = fs.lstatSync(target, { bigint: true })
    const link = fs.lstatSync(target).isSymbolicLink() && fs.readlinkSync(target)
    const content = fs.lstatSync(target).isFile() && fs.readFileSync(target, 'utf8')
    return { name, mode, uid, mtimeNs, ctimeNs, ino, link, content }
  })
}

const failureOf = async (attempt: () => unknown): Promise<CertvendError> => {
  try {
    await attempt()
  } catch (error) {
    expect(error, String(error)).toBeInstanceOf(CertvendError)
    return error as CertvendError
  }
  throw new Error('it was expected to fail')
}

describe('the life of a credential', () => {
  it('begins with an opening that creates nothing', async () => {
    const directory = stateDirectory()
    const store = await openCredentialStore(directory)
    expect(store.current()).toBeUndefined()
    expect(store.pending()).toBeUndefined()
    expect(fs.existsSync(directory)).toBe(false)
  })

  it('makes one key, whoever asks and however often', async () => {
    const directory = stateDirectory()
    const store = await openCredentialStore(directory)
    const key = store.begin().privateKey.toPem()
    expect(store.begin('RSA-2048').privateKey.toPem()).toBe(key)
    store.close()
    const again = await openCredentialStore(directory)
    expect(again.pending()).toMatchObject({ state: 'requested', generation: 1 })
    expect(again.begin().privateKey.toPem()).toBe(key)
  })

  it('puts the first credential to use at once, and it reads back the same', async () => {
    const { directory, credential } = await furnished()
    const store = await openCredentialStore(directory)
    expect(store.mended).toEqual([])
    expect(store.pending()).toBeUndefined()
    const { privateKey, ...rest } = store.current() as Credential
    const { privateKey: before, ...expected } = credential
    expect(rest).toEqual(expected)
    expect(privateKey.toPem()).toBe(before.toPem())
  })

  it('lets a successor wait until it has proven itself, then removes the old one', async () => {
    const { directory, credential, successor } = await succeeded()
    const store = await openCredentialStore(directory)
    expect(pemOf(store.current())).toBe(pemOf(credential))
    expect(store.pending()).toMatchObject({ state: 'issued', generation: 2 })
    expect(pemOf(store.promote())).toBe(pemOf(successor))
    expect(store.pending()).toBeUndefined()
    expect(fs.readdirSync(path.join(directory, 'generations'))).toEqual(['0000000002'])
  })

  it('drops what waits and never what is in use', async () => {
    const { directory, credential } = await succeeded()
    const store = await openCredentialStore(directory)
    store.discard()
    store.discard()
    expect(store.pending()).toBeUndefined()
    expect(pemOf(store.current())).toBe(pemOf(credential))
    expect(fs.readdirSync(path.join(directory, 'generations'))).toEqual(['0000000001'])
  })

  it('never uses a generation number twice', async () => {
    const { directory } = await succeeded()
    const store = await openCredentialStore(directory)
    store.promote()
    expect(store.begin().generation).toBe(3)
  })

  it('remembers that a request was sent', async () => {
    const directory = stateDirectory()
    const store = await openCredentialStore(directory)
    store.begin()
    const record = {
      dialect: 'certvend',
      urlHash: 'ab'.repeat(32),
      sentAt: new Date('2026-12-01T00:00:00Z'),
      attempts: 3,
      notBefore: new Date('2026-12-02T00:00:00Z'),
    }
    store.recordRequest(record)
    store.close()
    expect((await openCredentialStore(directory)).pending()).toMatchObject({ request: record })
  })

  it.each<readonly [string, (store: CredentialStore, issued: Issued) => unknown]>([
    ['issued without a request', (store, issued) => store.issue(issued)],
    ['promoted when none waits', (store) => store.promote()],
    [
      'recorded without a key',
      (store) =>
        store.recordRequest({
          dialect: 'x',
          urlHash: 'ab'.repeat(32),
          sentAt: new Date(0),
          attempts: 1,
        }),
    ],
  ])('is a misuse when %s', async (_title, misuse) => {
    const issued = await issuedFor(await openCredentialStore(stateDirectory()))
    const store = await openCredentialStore(stateDirectory())
    expect(() => misuse(store, issued)).toThrow(TypeError)
  })

  it('is a misuse when begun while an issued one waits', async () => {
    const { directory } = await succeeded()
    const store = await openCredentialStore(directory)
    expect(() => store.begin()).toThrow(TypeError)
  })

  it.each([0o000, 0o022, 0o077, 0o277, 0o777])('has private modes under umask %o', async (mask) => {
    const base = temporaryDirectory()
    const before = process.umask(mask)
    try {
      const directory = path.join(base, 'a', 'b', 'state')
      const store = await openCredentialStore(directory)
      await obtain(store)
      store.begin()
      for (const name of contents(base)) {
        const found = fs.lstatSync(path.join(base, name))
        if (found.isDirectory()) expect(found.mode & 0o7777, name).toBe(0o700)
        if (found.isFile()) expect(found.mode & 0o7777, name).toBe(0o600)
      }
    } finally {
      process.umask(before)
    }
  })
})

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

describe('the lock', () => {
  const holder = `
    import { openCredentialStore } from '@certvend/client'
    import { spawn } from 'node:child_process'
    const store = await openCredentialStore(process.argv[1])
    try {
      store.lock()
      const child = spawn('sleep', ['60'])
      console.log('held ' + child.pid)
    } catch (error) {
      console.log(error.code)
    }
    process.stdin.resume().once('end', () => process.exit())
  `

  it('refuses a second writer at once, who may still read', async () => {
    const { directory } = await furnished()
    const first = await openCredentialStore(directory)
    const second = await openCredentialStore(directory)
    first.lock()
    for (const write of [() => second.lock(), () => second.begin(), () => second.discard()]) {
      const failure = await failureOf(write)
      expect(failure).toMatchObject({ code: 'ERR_STORE_LOCKED', remedy: 'operator' })
      expect(failure.message).toContain(path.join(directory, 'lock'))
    }
    expect(second.current()?.generation).toBe(1)
    const third = await openCredentialStore(directory)
    expect(third.current()?.generation).toBe(1)
    first.close()
    second.lock()
    expect((await failureOf(() => first.begin())).code).toBe('ERR_STORE_LOCKED')
  })

  it('sees what another process wrote before it had the lock', async () => {
    const directory = stateDirectory()
    const late = await openCredentialStore(directory)
    const early = await openCredentialStore(directory)
    const credential = await obtain(early)
    early.close()
    expect(late.current()).toBeUndefined()
    late.lock()
    expect(pemOf(late.current())).toBe(pemOf(credential))
  })

  it('is free at once when its holder was killed, even while a child of the holder lives on', async () => {
    const { directory } = await furnished()
    const child = startScript(holder, { args: [directory] })
    const [word, orphan] = (await nextLine(child)).split(' ')
    expect(word).toBe('held')
    const store = await openCredentialStore(directory)
    expect((await failureOf(() => store.lock())).code).toBe('ERR_STORE_LOCKED')
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await gone
    try {
      store.lock()
      expect(process.kill(Number(orphan), 0)).toBe(true)
    } finally {
      process.kill(Number(orphan))
    }
  })

  it('has one winner among eight that come at once', async () => {
    const { directory } = await furnished()
    const children = Array.from({ length: 8 }, () => startScript(holder, { args: [directory] }))
    const words = await Promise.all(children.map(nextLine))
    const winners = words.filter((word) => word.startsWith('held'))
    process.kill(Number(winners[0]?.split(' ')[1]))
    expect(winners).toHaveLength(1)
    expect(new Set(words.filter((word) => !word.startsWith('held')))).toEqual(
      new Set(['ERR_STORE_LOCKED']),
    )
  })

  it('does not follow a link that lies in its place', async () => {
    const { directory } = await furnished()
    const victim = path.join(path.dirname(directory), 'victim')
    fs.rmSync(path.join(directory, 'lock'))
    fs.symlinkSync(victim, path.join(directory, 'lock'))
    const store = await openCredentialStore(directory)
    expect((await failureOf(() => store.lock())).code).toBe('ERR_STORE_UNWRITABLE')
    expect(fs.existsSync(victim)).toBe(false)
  })

  it('says what is missing where there is no flock command', async () => {
    const { directory } = await furnished()
    const told = await runScript<{ code: string; hint: string }>(
      `import { openCredentialStore } from '@certvend/client'
       const store = await openCredentialStore(process.argv[1])
       try { store.lock() } catch ({ code, hint }) { console.log(JSON.stringify({ code, hint })) }`,
      { args: [directory], env: { PATH: '/nonexistent' } },
    )
    expect(told.code).toBe('ERR_STORE_UNWRITABLE')
    expect(told.hint).toMatch(/flock/)
  })
})

describe('a later boot', () => {
  const boot = `
    import { createRequire } from 'node:module'
    import { createClaim, createVendingServer, ensureCredential, openCredentialStore } from '@certvend/client'
    const [directory, port, pins] = process.argv.slice(1)
    const server = createVendingServer({ url: 'https://127.0.0.1:' + port, pins })
    const claim = createClaim({ deviceSerial: 'device-1', token: '0123456789abcdef' })
    const store = await openCredentialStore(directory)
    const outcome = await ensureCredential(store, server, claim, { signal: AbortSignal.timeout(2000) })
      .then(({ generation }) => 'generation ' + generation, () => 'none')
    const loaded = Object.keys(createRequire(import.meta.url).cache)
    const has = (name) => loaded.some((file) => file.includes('node_modules/' + name + '/'))
    console.log(JSON.stringify({ outcome, undici: has('undici'), mqtt: has('mqtt') }))
  `
  // Port 9 of loopback: discard, where nobody listens.
  it('makes no request, writes nothing and loads neither undici nor MQTT.js', async () => {
    const { directory } = await furnished()
    const before = portrait(directory)
    const args = [directory, '9', mqttCa.certificate]
    expect(await runScript(boot, { args })).toEqual({
      outcome: 'generation 1',
      undici: false,
      mqtt: false,
    })
    expect(portrait(directory)).toEqual(before)
  })

  it('does load undici when there is nothing in the store, so that the test above means something', async () => {
    const args = [stateDirectory(), '9', mqttCa.certificate]
    expect(await runScript(boot, { args })).toEqual({ outcome: 'none', undici: true, mqtt: false })
  })

  it.skipIf(notRoot)(`reads the store as root and leaves no trace ${notRoot ?? ''}`, async () => {
    const { directory } = await furnished()
    // Something that its owner would mend.
    fs.writeFileSync(path.join(directory, '.current.0123456789abcdef'), '')
    for (const name of ['.', ...contents(directory)])
      fs.lchownSync(path.join(directory, name), nobody, nobody)
    const before = portrait(directory)
    const store = await openCredentialStore(directory)
    expect(store.current()?.generation).toBe(1)
    for (const write of [
      () => store.lock(),
      () => store.begin(),
      () => store.discard(),
      () => store.promote(),
    ]) {
      const failure = await failureOf(write)
      expect(failure).toMatchObject({ code: 'ERR_STORE_UNWRITABLE', remedy: 'operator' })
      expect(failure.message).toMatch(/another user/)
    }
    expect(portrait(directory)).toEqual(before)
    // And its owner still can.
    fs.chmodSync(path.dirname(directory), 0o755)
    const told = await runScript(
      `import { openCredentialStore } from '@certvend/client'
       ${becomeNobody}
       const store = await openCredentialStore(process.argv[1])
       console.log(JSON.stringify(store.begin().generation))`,
      { args: [directory] },
    )
    expect(told).toBe(2)
  })
})
