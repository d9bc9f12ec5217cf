/**
 * Keys in a PKCS#11 token: made there by the operator, named in the store, used for the request and
 * for TLS; the PIN is nowhere but in its file.
 */
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { inspect, promisify } from 'node:util'
import {
  type CertvendError,
  type Credential,
  connect,
  createClaim,
  createCredential,
  createVendingServer,
  ensureCredential,
  errorCodes,
  openCredentialStore,
  openPkcs11Key,
  type Pkcs11Key,
} from '@certvend/client'
import { openSession } from '@certvend/client/aws-iot'
import { type Lab, startLab } from '@certvend/server/lab'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { watchFor } from './process-watch.ts'
import { makeToken, type Token, type TokenKeyType, tokenPackagesMissing } from './softhsm.ts'
import { allBytes, contents, temporaryDirectory } from './temporary.ts'

const failureOf = (attempt: Promise<unknown>): Promise<CertvendError> =>
  attempt.then(
    () => expect.fail('it was expected to fail'),
    (error) => error,
  )

describe('the URI of a key', () => {
  const good =
    'pkcs11:token=a%20b;object=k;type=private?module-path=/usr/lib/m.so&pin-source=file:/etc/pin'
  it.each([
    ['holds the PIN', good.replace('?', '?pin-value=4711&'), /must not hold the PIN/],
    [
      'holds the PIN as an attribute',
      good.replace(';', ';pin-value=4711;'),
      /must not hold the PIN/,
    ],
    ['is none', 'file:/etc/key', /does not begin with pkcs11:/],
    ['has no query', 'pkcs11:token=a;object=b', /does not begin|no \?/],
    ['names no token', good.replace('token=a%20b;', ''), /has no token/],
    ['names no object', good.replace('object=k;', ''), /has no object/],
    ['names no module', good.replace('module-path=/usr/lib/m.so&', ''), /has no module-path/],
    ['names no PIN file', good.replace('&pin-source=file:/etc/pin', ''), /has no pin-source/],
    ['would run a program', good.replace('file:/etc/pin', '|cat /etc/pin'), /is not file:/],
    ['names a PIN file by a relative path', good.replace('/etc/pin', 'pin'), /is not file:/],
    ['names a module by a relative path', good.replace('/usr/lib/m.so', 'm.so'), /not absolute/],
    ['names the key by its id', good.replace('object=k', 'id=%01'), /not understood \(id\)/],
    ['names a certificate', good.replace('private', 'cert'), /something else than a private key/],
    ['names two tokens', good.replace('token', 'token=x;token'), /has two of token/],
    ['has a line end in a name', good.replace('a%20b', 'a%0Ab'), /has no usable token/],
    ['has broken escapes', good.replace('a%20b', 'a%2'), /has no usable token/],
  ])('is refused when it %s', async (_title, uri, message) => {
    const error = await failureOf(openPkcs11Key(uri))
    expect(error).toBeInstanceOf(TypeError)
    expect(error.message).toMatch(message)
    expect(error.message).not.toContain('4711')
  })
})

const missing = tokenPackagesMissing.join(', ')
const skipped = missing === '' ? '' : ` (skipped: apt install ${missing})`

describe.skipIf(missing !== '')(`a key in a SoftHSM token${skipped}`, () => {
  const pin = `4${String(Math.random()).slice(2, 12)}`
  const directory = fs.mkdtempSync(path.join(fs.realpathSync('/tmp'), 'certvend-token-'))
  let token: Token
  let lab: Lab
  let key: Pkcs11Key
  /** A state directory whose credential has `key`; tests work on copies. */
  const enrolled = path.join(directory, 'enrolled')

  beforeAll(async () => {
    token = makeToken(directory, pin)
    process.env.SOFTHSM2_CONF = token.configuration
    for (const type of ['EC:prime256v1', 'EC:secp384r1', 'rsa:2048'] as const)
      token.makeKey(type, type)
    token.makeKey('device key', 'EC:prime256v1')
    lab = await startLab()
    key = await openPkcs11Key(token.uri('device key'))
    const store = await openCredentialStore(enrolled)
    await ensureCredential(store, vendingServer(), createClaim(await lab.addDevice()), { key })
    store.close()
  })
  afterAll(async () => {
    await lab.close()
    fs.rmSync(directory, { recursive: true })
  })

  const vendingServer = () => createVendingServer({ url: lab.vendingUrl, pins: lab.pins })
  const copy = (): string => {
    const state = path.join(temporaryDirectory(), 'state')
    fs.cpSync(enrolled, state, { recursive: true, verbatimSymlinks: true })
    return state
  }

  it.each<TokenKeyType>(['EC:prime256v1', 'EC:secp384r1', 'rsa:2048'])(
    'of the kind %s enrolls, connects and publishes; no key and no PIN is ever outside',
    async (type) => {
      const enough = await watchFor(pin)
      const said: string[] = []
      const device = await lab.addDevice()
      const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
      const credential = await ensureCredential(store, vendingServer(), createClaim(device), {
        key: await openPkcs11Key(token.uri(type)),
        log: (event) => said.push(inspect(event)),
      })
      expect(credential).toMatchObject({ thingName: device.deviceSerial, keyOrigin: 'device' })

      const before = lab.mqtt.received.length
      const session = await connect(credential, { transport: openSession })
      await session.publish(`${credential.thingName}/up`, 'signed in the token')
      await session.close()
      expect(lab.mqtt.received.slice(before)).toMatchObject([
        { clientId: credential.thingName, topic: `${credential.thingName}/up`, qos: 1 },
      ])

      const watched = await enough()
      expect(watched.hits).toEqual([])
      expect(watched.openssl, 'processes of openssl seen').toBeGreaterThan(0)
      const names = contents(store.directory)
      expect(names).toContain('generations/0000000001/private-key.uri')
      expect(names.join()).not.toContain('private-key.pem')
      const bytes = allBytes(store.directory).toString('latin1')
      expect(bytes).not.toContain('PRIVATE KEY')
      expect(bytes).not.toContain(pin)
      said.push(inspect(credential, { depth: 9 }), JSON.stringify(credential))
      expect(said.join()).not.toContain(pin)
    },
  )

  it('is what the watch would have found the PIN with, had it been on a command line', async () => {
    const enough = await watchFor(pin)
    const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)', pin])
    const other = spawn('sleep', ['60'], { env: { PATH: process.env.PATH, SECRET: pin } })
    await new Promise((resolve) => other.once('spawn', resolve))
    const { hits } = await enough()
    child.kill()
    other.kill()
    expect(hits.join('\n')).toMatch(/setTimeout/)
    expect(hits.join('\n')).toMatch(/environment of/)
  })

  it('is found again by a later boot, which asks neither the token nor the server', async () => {
    const state = copy()
    const requests = lab.requests.length
    const hidden = `${token.pinFile}.hidden`
    fs.renameSync(token.pinFile, hidden)
    try {
      const later = await openCredentialStore(state)
      expect(later.mended).toEqual([])
      const found = later.current()?.privateKey as Pkcs11Key
      expect(found.uri).toBe(key.uri)
      expect(found.publicKey.equals(key.publicKey)).toBe(true)
    } finally {
      fs.renameSync(hidden, token.pinFile)
    }
    expect(lab.requests.length).toBe(requests)
  })

  it('stays in the token when the credential is renewed, unless another is asked for', async () => {
    const store = await openCredentialStore(copy())
    expect(store.begin().privateKey).toMatchObject({ uri: key.uri })
    store.discard()
    expect(store.begin('P-256').privateKey).not.toHaveProperty('uri')
    expect(() => store.begin(key)).toThrow(/another key is pending/)
    store.discard()
    const other = await openPkcs11Key(token.uri('rsa:2048'))
    expect(store.begin(other).privateKey).toMatchObject({ uri: other.uri })
    expect(store.begin().privateKey).toMatchObject({ uri: other.uri })
    expect(() => store.begin(key)).toThrow(/another key is pending/)
    store.close()
  })

  it('that another device has enrolled is a matter for the operator, who makes another', async () => {
    const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
    const claim = createClaim(await lab.addDevice())
    const error = await failureOf(ensureCredential(store, vendingServer(), claim, { key }))
    expect(error).toMatchObject({ code: 'ERR_KEY_REFUSED', remedy: 'operator' })
    expect(store.pending()).toBeUndefined()
    store.close()
  })

  it('goes with a certificate that a factory put on the device', async () => {
    const { certificateChain, thingName, endpoint } = (
      await openCredentialStore(copy(), { readOnly: true })
    ).current() as Credential
    const credential = createCredential({ thingName, certificateChain, endpoint, privateKey: key })
    const session = await connect(credential, { transport: openSession })
    await session.close()
    const other = await openPkcs11Key(token.uri('rsa:2048'))
    const parts = { thingName, certificateChain, endpoint, privateKey: other }
    expect(() => createCredential(parts)).toThrow(/not the one of the first certificate/)
  })

  it('is refused by the default transport in words that name the one that can', async () => {
    const { current } = await openCredentialStore(copy())
    const error = await failureOf(connect(current() as Credential))
    expect(error).toBeInstanceOf(TypeError)
    expect(error.message).toContain('@certvend/client/aws-iot')
  })

  const described = (hint: RegExp | string) => ({
    name: 'CertvendError',
    code: 'ERR_KEY_UNAVAILABLE',
    remedy: 'operator',
    hint: typeof hint === 'string' ? hint : expect.stringMatching(hint),
  })

  /** A PIN file of its own, with what is wrong about it. */
  function otherPinFile(content: string, mode = 0o600): string {
    const file = path.join(temporaryDirectory(), 'pin')
    fs.writeFileSync(file, content)
    fs.chmodSync(file, mode)
    return file
  }

  type Wrong = Parameters<Token['uri']>[1]
  const outOfOrder: readonly (readonly [
    title: string,
    wrong: () => Wrong & { object?: string },
    message: RegExp,
    hint: RegExp,
  ])[] = [
    [
      'no such module',
      () => ({ module: '/nowhere/m.so' }),
      /module \/nowhere\/m.so cannot/,
      /there/,
    ],
    ['a module that is none', () => ({ module: '/etc/hostname' }), /cannot be loaded/, /hostname/],
    ['no such token', () => ({ token: 'nowhere' }), /no token "nowhere"/, /--list-token-slots/],
    ['no such key', () => ({ object: 'none' }), /no private key "none"/, /--list-objects/],
    ['no PIN file', () => ({ pinFile: '/nowhere/pin' }), /cannot be read \(ENOENT\)/, /./],
    ['a directory as PIN file', () => ({ pinFile: '/etc' }), /is not a file/, /./],
    [
      'a PIN file for everybody',
      () => ({ pinFile: otherPinFile(pin, 0o604) }),
      /open to/,
      /chmod 600/,
    ],
    [
      'a PIN file for a group',
      () => ({ pinFile: otherPinFile(pin, 0o620) }),
      /open to/,
      /chmod 600/,
    ],
    ['an empty PIN file', () => ({ pinFile: otherPinFile('') }), /is empty/, /./],
    [
      'a line end after the PIN',
      () => ({ pinFile: otherPinFile(`${pin}\n`) }),
      /a line end/,
      /printf/,
    ],
  ]

  describe.each(['opening it', 'opening a session with it'])('%s', (way) => {
    it.each(outOfOrder)('with %s is said so', async (_title, wrong, message, hint) => {
      const { object = 'device key', ...rest } = wrong()
      const error = await failureOf(
        way === 'opening it'
          ? openPkcs11Key(token.uri(object, rest))
          : connect(await named(token.uri(object, rest)), { transport: openSession }),
      )
      expect(error).toMatchObject({
        ...described(hint),
        message: expect.stringMatching(message),
      })
      expect(errorCodes).toContain(error.code)
      expect(inspect(error, { depth: 9 })).not.toContain(pin)
    })
  })

  /** A credential that names its key by `uri`, as a store holds it. */
  async function named(uri: string): Promise<Credential> {
    const state = copy()
    const file = (name: string): string => path.join(state, 'current', name)
    const text = fs.readFileSync(file('private-key.uri'), 'utf8').replace(/^.*/, uri)
    const { digest: _, ...record } = JSON.parse(fs.readFileSync(file('credential.json'), 'utf8'))
    record.files['private-key.uri'] = createHash('sha256').update(text).digest('hex')
    fs.writeFileSync(file('private-key.uri'), text)
    fs.writeFileSync(file('credential.json'), JSON.stringify(record))
    return (await openCredentialStore(state, { readOnly: true })).current() as Credential
  }

  it('whose PIN file is wrong is not tried twice, until the file is written anew', async () => {
    const pinFile = otherPinFile('000000')
    const wrong = (await named(token.uri('device key', { pinFile }))).privateKey
    const sign = () => wrong.sign(Buffer.from('data'), 'sha256')
    expect(await failureOf(sign())).toMatchObject({
      ...described(/locks after a few/),
      message: expect.stringMatching(/refused the PIN in/),
    })
    const enough = await watchFor(pin)
    expect(await failureOf(sign())).toMatchObject({
      ...described(/write the right PIN/),
      message: expect.stringMatching(/is not tried again/),
    })
    expect((await enough()).openssl, 'no openssl was started').toBe(0)
    fs.writeFileSync(pinFile, pin)
    expect((await sign()).length).toBeGreaterThan(0)
  })

  it('whose PIN is wrong is told by the session too, from a process that never logged in', async () => {
    const script = `
      import { connect, openCredentialStore } from '@certvend/client'
      import { openSession } from '@certvend/client/aws-iot'
      const store = await openCredentialStore(process.argv[1], { readOnly: true })
      for (let times = 0; times < 2; times++)
        await connect(store.current(), { transport: openSession }).catch((error) =>
          console.log(error.code, error.message))
    `
    fs.writeFileSync(token.pinFile, '000000')
    try {
      const { stdout } = await promisify(execFile)(
        process.execPath,
        ['--input-type=module', '-e', script, copy()],
        { cwd: import.meta.dirname },
      )
      expect(stdout.split('\n')).toEqual([
        expect.stringMatching(/^ERR_KEY_UNAVAILABLE the token .* refused the PIN/),
        expect.stringMatching(/^ERR_KEY_UNAVAILABLE .* is not tried again/),
        '',
      ])
    } finally {
      fs.writeFileSync(token.pinFile, pin)
    }
  })

  it('that was replaced by another of the same name signs nothing', async () => {
    token.makeKey('replaced', 'EC:prime256v1')
    const first = await openPkcs11Key(token.uri('replaced'))
    token.removeKey('replaced')
    token.makeKey('replaced', 'EC:prime256v1')
    const error = await failureOf(first.sign(Buffer.from('data'), 'sha256'))
    expect(error).toMatchObject({
      ...described(/enroll with it/),
      message: expect.stringMatching(/another key than the one that was enrolled/),
    })
  })

  it('may be given up while the token is asked', async () => {
    const signal = AbortSignal.abort(new Error('enough'))
    const error = await failureOf(openPkcs11Key(token.uri('rsa:2048'), { signal }))
    expect(error.message).toBe('enough')
    const soon = new AbortController()
    const asked = openPkcs11Key(token.uri('rsa:2048'), { signal: soon.signal })
    soon.abort(new Error('enough'))
    expect((await failureOf(asked)).message).toBe('enough')
  })
})
