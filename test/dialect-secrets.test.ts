/** Where a token stands in the URL, and where a private key comes over the wire: neither is seen elsewhere. */
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import {
  type CertvendError,
  createClaim,
  createVendingServer,
  enroll,
  openCredentialStore,
  saltedToken,
} from '@certvend/client'
import { describe, expect, it, onTestFinished } from 'vitest'
import { successOf } from './contracts/answers.ts'
import { machines, type OldDialect, oldDialects } from './contracts/machines.ts'
import { deviceCa, enter, optionsFor, vendingCa } from './contracts/reference.ts'
import { makeWorld } from './contracts/world.ts'
import { deviceSerial, token } from './dialect-attempt.ts'
import { http, listen, type Talk } from './hostile-server.ts'
import { certify } from './pki.ts'
import { allBytes, temporaryDirectory } from './temporary.ts'
import { serve } from './vending-machine.ts'

const identity = await certify('localhost', { issuer: vendingCa, dns: ['localhost'] })
const dressed = [token, encodeURIComponent(token), Buffer.from(token).toString('base64')]

/** What a device makes of a listener, all of it as text, and the bytes that it sent. */
async function meet(
  dialect: OldDialect,
  talk: Talk,
): Promise<{ error: CertvendError; said: string; received: string; state: Buffer }> {
  const peer = await listen(identity, [], talk)
  onTestFinished(() => peer.close())
  const directory = path.join(temporaryDirectory(), 'state')
  const store = await openCredentialStore(directory)
  const events: unknown[] = []
  const error = await enroll(
    store,
    createVendingServer({
      url: `https://localhost:${peer.port}`,
      pins: vendingCa.certificate,
      dialect: optionsFor(dialect),
    }),
    createClaim({ deviceSerial, token, dialect }),
    { deadlineMs: 400, log: (event) => void events.push(event) },
  ).then(
    () => {
      throw new Error('it was expected to fail')
    },
    (failure: CertvendError) => failure,
  )
  store.close()
  const said = inspect([error, error.cause, events], { depth: 12, showHidden: true })
  return { error, said, received: peer.received.toString(), state: allBytes(directory) }
}

const once = (reply: (request: string) => Buffer | string): Talk => {
  return (socket) => void socket.once('data', (bytes) => socket.write(reply(bytes.toString())))
}

const hostile: [string, Talk][] = [
  [
    'redirects with everything that it was sent',
    once((sent) => http(302, { location: `https://elsewhere.example${sent.split(' ')[1]}` })),
  ],
  ['echoes the request', once((sent) => http(200, { 'content-type': 'text/plain' }, sent))],
  [
    'echoes it as an error',
    once((sent) =>
      http(500, { 'content-type': 'application/json' }, JSON.stringify({ message: sent })),
    ),
  ],
  ['answers in no HTTP, with the request', once((sent) => `WHAT? ${sent}`)],
  [
    'names the token in a header',
    once((sent) => http(200, { 'content-type': `text/${sent.split(' ')[1]}`.slice(0, 200) }, '')),
  ],
  ['says nothing', () => {}],
  [
    'says half and stalls',
    once(() => http(200, { 'content-length': '5000' }, '{"certificatePem":"-----').subarray(0, 90)),
  ],
  ['closes at once', (socket) => void socket.once('data', () => socket.destroy())],
]

describe.each(oldDialects)('%s', (dialect) => {
  it.each(hostile)('with a server that %s lets no token out', async (_, talk) => {
    const { said, received, state } = await meet(dialect, talk)
    for (const secret of dressed) {
      expect(said).not.toContain(secret)
      expect(state.includes(secret)).toBe(false)
    }
    expect(received).not.toMatch(/referer/i)
    expect(received.split('HTTP/1.1')).toHaveLength(2)
  })

  it('cut on the wire at any byte is a lost or malformed answer, and nothing of it is kept', async () => {
    const { text } = await successOf(dialect, deviceSerial)
    const whole = http(200, { 'content-type': 'application/json' }, text)
    const body = whole.length - text.length
    for (const at of [1, 20, body - 2, body, body + 1, body + 700, whole.length - 1]) {
      const { error, said, state } = await meet(dialect, (socket) => {
        socket.once('data', () => socket.end(whole.subarray(0, at)))
      })
      expect(error.code, `cut at ${at}`).toMatch(/^ERR_REPLY_(LOST|MALFORMED)$/)
      expect(said).not.toContain('PRIVATE KEY')
      expect(state.toString()).not.toContain('BEGIN CERTIFICATE')
    }
  })
})

describe('NODE_DEBUG', () => {
  it.each(['undici', 'fetch', 'net,tls,http,*'])(
    'cannot make undici tell the token, nor Node: %s',
    async (debug) => {
      const world = makeWorld({ deviceCa })
      const claim = enter(world, 'awslabs-2020')
      const { port, close } = await serve(machines['awslabs-2020'](world), identity)
      onTestFinished(close)
      const directory = temporaryDirectory()
      const write = (name: string, text: string): void =>
        fs.writeFileSync(path.join(directory, name), text, { mode: 0o600 })
      write('token', claim.token)
      write('pin.pem', vendingCa.certificate)
      const binary = fileURLToPath(new URL('../packages/agent/dist/main.js', import.meta.url))
      const output = fs.openSync(path.join(directory, 'said'), 'w')
      const child = spawn(
        process.execPath,
        [
          binary,
          'enroll',
          '--once',
          '--server',
          `https://localhost:${port}/Prod`,
          '--pin',
          'pin.pem',
        ]
          .concat(['--serial', claim.deviceSerial, '--token-file', 'token', '--state-dir', 'state'])
          .concat(['--dialect', 'awslabs-2020', '--endpoint', 'mqtt.example']),
        // To a file: of the megabytes that `*` makes, a pipe would lose the end when the process exits.
        {
          cwd: directory,
          env: { PATH: process.env.PATH, NODE_DEBUG: debug },
          stdio: ['ignore', output, output],
        },
      )
      await new Promise((resolve) => child.once('close', resolve))
      fs.closeSync(output)
      const said = fs.readFileSync(path.join(directory, 'said'), 'utf8')
      for (const secret of dressed) expect(said).not.toContain(secret)
      expect(said).not.toContain('deviceToken=')
      expect(said).toContain('hint: take undici and fetch out of NODE_DEBUG')
    },
  )
})

describe('a salted token', () => {
  it('is the one of the page, by SHA-256', () => {
    const made = saltedToken('sha256', { salt: 'YOUR_SECRET_SALT', deviceSerial: 'DEVICE001' })
    expect(made).toMatch(/^ecab8927[0-9a-f]{52}5787$/)
  })

  it('is what openssl makes, by HMAC-SHA256', () => {
    const made = saltedToken('hmac-sha256', { salt: 's3cret', deviceSerial: 'DEVICE001' })
    const openssl = spawnSync('openssl', ['dgst', '-sha256', '-hmac', 's3cret'], {
      input: 'DEVICE001',
      encoding: 'utf8',
    })
    if (!openssl.error) expect(openssl.stdout.trim().split(' ').at(-1)).toBe(made)
    expect(made).not.toBe(saltedToken('sha256', { salt: 's3cret', deviceSerial: 'DEVICE001' }))
  })

  it('is not made of nothing, nor by another formula', () => {
    const parts = { salt: 'x', deviceSerial: 'y' }
    expect(() => saltedToken('sha256', { ...parts, salt: '' })).toThrow(TypeError)
    expect(() => saltedToken('md5' as never, parts)).toThrow(RangeError)
  })
})

describe('a claim for an old dialect', () => {
  it('may be short and of any visible characters, and is sent as it is', () => {
    expect(createClaim({ deviceSerial, token: '0a1b2c', dialect: 'awslabs-2018' }).token).toBe(
      '0a1b2c',
    )
    expect(() => createClaim({ deviceSerial, token: '0a1b2c' })).toThrow(TypeError)
    for (const bad of ['', ' ', 'two words', 'ü', 'x'.repeat(513)])
      expect(() => createClaim({ deviceSerial, token: bad, dialect: 'iot-atlas' })).toThrow(
        TypeError,
      )
  })
})

describe('a vending server', () => {
  const pins = vendingCa.certificate
  const make = (url: string, dialect: OldDialect | 'certvend', given?: string) =>
    createVendingServer({
      url,
      ...(given === undefined ? {} : { pins: given }),
      dialect: dialect === 'certvend' ? dialect : optionsFor(dialect),
    })

  it.each(['certvend', ...oldDialects.filter((one) => one !== 'express-2017')] as const)(
    'that speaks %s is never asked over plain HTTP, nor without a pin',
    (dialect) => {
      expect(() => make('http://a.example', dialect)).toThrow(/https/)
      expect(() => make('http://a.example', dialect, pins)).toThrow(/https/)
      expect(() => make('https://a.example', dialect)).toThrow(TypeError)
      expect(() => make('https://a.example', dialect, '')).toThrow(TypeError)
    },
  )

  it('that speaks express-2017 is pinned, or asked over plain HTTP without the pretence of a pin', () => {
    expect(make('https://a.example', 'express-2017', pins).pins.certificates).toHaveLength(1)
    expect(make('http://a.example:3000', 'express-2017').pins.certificates).toHaveLength(0)
    expect(() => make('http://a.example', 'express-2017', pins)).toThrow(/pin/)
    expect(() => make('https://a.example', 'express-2017')).toThrow(TypeError)
    expect(() => make('ftp://a.example', 'express-2017')).toThrow(TypeError)
  })

  it.each([
    [{ name: 'awslabs-2018' }, /endpoint/],
    [{ name: 'awslabs-2020' }, /endpoint/],
    [{ name: 'gateway-2021' }, /endpoint/],
    [{ name: 'express-2017' }, /endpoint/],
    [{ ...optionsFor('awslabs-2020'), thingName: 'a/b' }, /thingName/],
    [{ ...optionsFor('awslabs-2020'), authorizationScheme: 'X' }, /gateway-2021/],
    [{ ...optionsFor('gateway-2021'), authorizationScheme: 'two words' }, /one word/],
    [{ ...optionsFor('gateway-2021'), authorizationScheme: 'X\r\nInjected: y' }, /one word/],
    [{ ...optionsFor('iot-atlas'), thingName: 'x' }, /thingName/],
    [{ name: 'certvend', thingName: 'x' }, /certvend/],
    [{ name: 'awslabs' }, /one of certvend, awslabs-2018/],
  ])('is refused with the dialect %j', (dialect, complaint) => {
    expect(() =>
      createVendingServer({ url: 'https://a.example', pins, dialect: dialect as never }),
    ).toThrow(complaint)
  })
})
