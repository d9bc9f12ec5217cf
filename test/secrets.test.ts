/** Neither the token nor the private key shows in anything that this library hands out or says. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import path from 'node:path'
import { format, inspect } from 'node:util'
import {
  CertvendError,
  type Claim,
  type Credential,
  connect,
  createClaim,
  createVendingServer,
  enroll,
  ensureCredential,
  openCredentialStore,
  type Send,
} from '@certvend/client'
import { problemType } from '@certvend/client/wire'
import { HttpResponse } from 'msw'
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { broker, listen, type Talk } from './hostile-server.ts'
import { type Certified, certify, der } from './pki.ts'
import { allBytes, temporaryDirectory } from './temporary.ts'
import { makeVendingMachine } from './vending-machine.ts'

/** Letters of both cases, and characters that each encoding treats in its own way. */
const token = 'Zq7+mT/xW~v9.kP_d-3RbN8yLcE5hJ2g=='

let authorities: { deviceCa: Certified; mqttCa: Certified }
let mqttServer: Certified
let claim: Claim
beforeAll(async () => {
  authorities = {
    deviceCa: await certify('Device CA', { ca: true }),
    mqttCa: await certify('MQTT CA', { ca: true }),
  }
  mqttServer = await certify('localhost', { issuer: authorities.mqttCa, dns: ['localhost'] })
  claim = createClaim({ deviceSerial: 'device-1', token })
})

/** How bytes may be dressed up: raw, base64, base64url, hex, percent- and JSON-escaped. */
function dresses(secret: Buffer): string[] {
  const text = secret.toString('latin1')
  const bytes = [...secret]
  const hex = bytes.map((one) => one.toString(16).padStart(2, '0'))
  // Inside a longer text base64 starts at any of three offsets; its edges depend on the neighbours.
  const base64 = [0, 1, 2].flatMap((offset) => {
    const whole = Buffer.concat([Buffer.alloc(offset), secret]).toString('base64')
    const from = offset === 0 ? 0 : 4
    return [whole.slice(from).replace(/=+$/, '').slice(0, -2)]
  })
  return [
    text,
    ...base64,
    ...base64.map((one) => one.replaceAll('+', '-').replaceAll('/', '_')),
    hex.join(''),
    hex.join(' '),
    hex.join(':'),
    hex.map((one) => `%${one}`).join(''),
    encodeURIComponent(text),
    JSON.stringify(text).slice(1, -1),
    text.replaceAll('/', '\\/'),
    hex.map((one) => `\\u00${one}`).join(''),
    hex.map((one) => `\\x${one}`).join(''),
    bytes.join(','),
    bytes.join(', '),
  ]
}

/** The secrets behind a private key: its PEM, its DER and, for P-256, the number itself. */
function keySecrets(pem: string): string[] {
  const { d = '' } = createPrivateKey(pem).export({ format: 'jwk' })
  const lines = pem.split('\n').filter((line) => line && !line.startsWith('-----'))
  return [...lines.slice(0, -1), ...dresses(Buffer.from(d, 'base64url')), ...dresses(der(pem))]
}

/** Everything that a careless program might print of a value. */
function printed(value: unknown): string {
  const views = [
    String(value),
    inspect(value, {
      depth: Number.POSITIVE_INFINITY,
      maxStringLength: null,
      maxArrayLength: null,
    }),
    inspect(value, { depth: Number.POSITIVE_INFINITY, showHidden: true, maxStringLength: null }),
    format('%o %O %j %s', value, value, value, value),
    JSON.stringify(value),
  ]
  if (typeof value === 'object' && value !== null) {
    views.push(inspect({ ...value }), JSON.stringify({ ...value }), Object.entries(value).join())
    views.push(JSON.stringify(Object.assign({}, value)))
  }
  if (value instanceof Error)
    views.push(String(value.stack), inspect(value.cause, { depth: Number.POSITIVE_INFINITY }))
  return views.join('\n').toLowerCase()
}

function expectSilence(value: unknown, secrets: readonly string[]): void {
  const text = printed(value)
  for (const secret of secrets) {
    expect(secret.length).toBeGreaterThan(12)
    expect(text.includes(secret.toLowerCase()), `${secret} in ${text.slice(0, 2000)}`).toBe(false)
  }
}

const tokenSecrets = (): string[] => dresses(Buffer.from(token))

async function obtain(send?: Send) {
  const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
  const server = createVendingServer({
    url: 'https://vending.example',
    pins: authorities.mqttCa.certificate,
  })
  const events: unknown[] = []
  const machine = makeVendingMachine(authorities)
  const credential = await ensureCredential(store, server, claim, {
    send: send ?? machine.send,
    log: (event) => events.push(event),
    clock: { now: () => new Date(), wait: () => Promise.resolve() },
  })
  return { store, server, credential, events }
}

describe('the search itself', () => {
  it.each([
    ['raw', () => token],
    ['in base64', () => Buffer.from(`Bearer ${token}\n`).toString('base64')],
    ['in base64url', () => Buffer.from(`x${token}yz`).toString('base64url')],
    ['in hex', () => Buffer.from(token).toString('hex').toUpperCase()],
    ['percent-escaped', () => encodeURIComponent(token)],
    [
      'as bytes',
      () => inspect([...Buffer.from(token)], { maxArrayLength: null }).replace(/\s+/g, ' '),
    ],
    ['as a buffer', () => inspect(Buffer.from(token))],
  ])('finds the token %s', (_title, dress) => {
    expect(() => expectSilence({ note: dress() }, tokenSecrets())).toThrow()
  })

  it('finds the key in a certificate’s company', async () => {
    const { credential } = await obtain()
    const pem = credential.privateKey.toPem()
    expect(() => expectSilence({ pem }, keySecrets(pem))).toThrow()
    expect(() => expectSilence(der(pem), keySecrets(pem))).toThrow()
  })
})

describe('a claim', () => {
  it('shows its serial and never its token', () => {
    expectSilence(claim, tokenSecrets())
    expect(printed(claim)).toContain('device-1')
    expect(claim.token).toBe(token)
    expect({ ...claim }).toEqual({ deviceSerial: 'device-1' })
    expect(Object.isFrozen(claim)).toBe(true)
  })

  it.each([
    ['with a serial that is none', { deviceSerial: '../x', token }],
    ['with a token that has a space in it', { deviceSerial: 'device-1', token: `${token} x` }],
    [
      'with a token of 513 characters',
      { deviceSerial: 'device-1', token: token.padStart(513, token) },
    ],
    ['with a token that is a list', { deviceSerial: 'device-1', token: [token] as never }],
  ])('%s is refused without repeating the token', (_title, parts) => {
    let refusal: unknown
    try {
      createClaim(parts)
    } catch (error) {
      refusal = error
    }
    expect(refusal).toBeInstanceOf(TypeError)
    expectSilence(refusal, tokenSecrets())
  })

  it.each(['', 'a/b', '..', '-x', 'a b', 'ü', 'a\n', 'a\0', 'x'.repeat(65), 'x'.repeat(10_000)])(
    'is refused for the serial %j',
    (deviceSerial) => {
      expect(() => createClaim({ deviceSerial, token })).toThrow(TypeError)
    },
  )
})

describe('a credential', () => {
  it('shows no key: neither itself, nor its key, its store, the events or its server', async () => {
    const { store, credential, events, server } = await obtain()
    const secrets = [...keySecrets(credential.privateKey.toPem()), ...tokenSecrets()]
    for (const value of [credential, credential.privateKey, store, store.current(), events, server])
      expectSilence(value, secrets)
    expect(printed(credential)).toContain('begin certificate')
    expect(() => structuredClone(credential)).toThrow() // functions do not travel
    store.close()
  })

  it('leaves no token on the disk, and the key in one file', async () => {
    const { store } = await obtain()
    const disk = allBytes(store.directory).toString('latin1')
    for (const secret of tokenSecrets()) expect(disk.includes(secret)).toBe(false)
    expect(disk.match(/PRIVATE KEY-----/g)).toHaveLength(2)
    store.close()
  })
})

describe('an error', () => {
  const problem = (detail: string) => async () =>
    new HttpResponse(JSON.stringify({ type: problemType('claim-refused'), detail }), {
      status: 401,
      headers: { 'content-type': 'application/problem+json' },
    })

  it.each([
    ['raw', (text: string) => text],
    ['as a header', (text: string) => `authorization: Bearer ${text}`],
    ['in base64', (text: string) => Buffer.from(text).toString('base64')],
    ['in base64url', (text: string) => Buffer.from(text).toString('base64url')],
    ['in hex', (text: string) => Buffer.from(text).toString('hex')],
    ['percent-escaped', (text: string) => encodeURIComponent(text)],
    ['JSON-escaped', (text: string) => text.replaceAll('/', '\\/')],
    [
      'JSON-escaped throughout',
      (text: string) => text.replace(/[+=/]/g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`),
    ],
  ])('does not repeat a token that the server echoes %s', async (_title, dress) => {
    const machine = makeVendingMachine(authorities, problem(`no: ${dress(token)}`))
    const failure = await obtain(machine.send).catch((error) => error)
    expect(failure).toBeInstanceOf(CertvendError)
    expectSilence(failure, tokenSecrets())
  })

  it.each<readonly [string, Talk, number]>([
    ['a lost reply', (socket) => void socket.once('data', () => socket.end()), 2000],
    ['a deadline', () => {}, 200],
    [
      'a reply that is not HTTP',
      (socket) => void socket.once('data', (bytes) => socket.write(bytes)),
      2000,
    ],
  ])(
    'of %s holds nothing of the request, down to the last cause',
    async (_title, talk, deadlineMs) => {
      const peer = await listen(mqttServer, [], talk)
      onTestFinished(() => peer.close())
      const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
      const server = createVendingServer({
        url: `https://localhost:${peer.port}`,
        pins: authorities.mqttCa.certificate,
      })
      const failure = await enroll(store, server, claim, { deadlineMs }).catch((error) => error)
      expect(failure).toBeInstanceOf(CertvendError)
      const key = store.pending()
      if (key?.state !== 'requested') throw new Error('no key is pending')
      expectSilence(failure, [...tokenSecrets(), ...keySecrets(key.privateKey.toPem())])
      store.close()
    },
  )

  it('of a key or a URL that cannot be read does not quote it', () => {
    const url = `https://user:${token}@vending.example/?${token}#${token}`
    const pins = authorities.mqttCa.certificate
    for (const [options, secrets] of [
      [{ url, pins }, tokenSecrets()],
      [{ url: 'https://x', pins: mqttServer.privateKey }, keySecrets(mqttServer.privateKey)],
    ] as const) {
      let refusal: unknown
      try {
        createVendingServer(options)
      } catch (error) {
        refusal = error
      }
      expect(refusal).toBeInstanceOf(Error)
      expectSilence(refusal, secrets)
    }
  })
})

describe('a session', () => {
  const meet = async (talk: Talk): Promise<Credential> => {
    const peer = await listen(mqttServer, [], talk)
    onTestFinished(() => peer.close())
    const { credential, store } = await obtain()
    store.close()
    const endpoint = { ...credential.endpoint, host: 'localhost', port: peer.port }
    return { ...credential, endpoint }
  }

  it('shows no key, nor does its end', async () => {
    const cut: (() => void)[] = []
    const credential = await meet((socket, reset) => {
      cut.push(() => socket.destroy())
      broker()(socket, reset)
    })
    const secrets = keySecrets(credential.privateKey.toPem())
    const session = await connect(credential)
    expectSilence(session, secrets)
    const messages = await session.subscribe('t')
    expectSilence(messages, secrets)
    cut[0]?.()
    expectSilence(await session.ended, secrets)
    expectSilence(await session.publish('t', 'x').catch((error) => error), secrets)
  })

  it.each<readonly [string, Talk]>([
    [
      'refused',
      (socket) => void socket.once('data', () => socket.write(Buffer.from([0x20, 2, 0, 5]))),
    ],
    ['cut off', (socket) => void socket.once('data', () => socket.destroy())],
    [
      'answered in another language',
      (socket) => void socket.once('data', () => socket.write('HTTP/1.1 400\r\n\r\n')),
    ],
  ])('that is %s leaves an error without the key, down to the last cause', async (_title, talk) => {
    const credential = await meet(talk)
    const failure = await connect(credential).catch((error) => error)
    expect(failure).toBeInstanceOf(CertvendError)
    expectSilence(failure, keySecrets(credential.privateKey.toPem()))
  })

  it('for whose broker nobody vouches leaves an error without the key', async () => {
    const credential = await meet(broker())
    const trustAnchors = [authorities.deviceCa.certificate]
    const endpoint = { ...credential.endpoint, trustAnchors }
    const failure = await connect({ ...credential, endpoint }).catch((error) => error)
    expect(failure).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED' })
    expectSilence(failure, keySecrets(credential.privateKey.toPem()))
  })

  it('of a key that does not fit leaves an error without the key', async () => {
    const credential = await meet(broker())
    const { certificate } = await certify('device-1', { issuer: authorities.deviceCa })
    expect(new X509Certificate(certificate).subject).toBe('CN=device-1')
    const failure = await connect({ ...credential, certificateChain: certificate }).catch((e) => e)
    expectSilence(failure, keySecrets(credential.privateKey.toPem()))
  })
})
