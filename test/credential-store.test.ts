/** The credential store: the life of a credential, and what a later boot does with it. */
import fs from 'node:fs'
import path from 'node:path'
import {
  type Credential,
  type CredentialStore,
  type Issued,
  openCredentialStore,
} from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { becomeNobody, nobody, notRoot, runScript } from './process.ts'
import {
  failureOf,
  furnished,
  issuedFor,
  mqttCa,
  obtain,
  pemOf,
  portrait,
  stateDirectory,
  succeeded,
} from './stored-credential.ts'
import { contents, temporaryDirectory } from './temporary.ts'

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
