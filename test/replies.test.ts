/**
 * What comes back from a vending machine, judged: everything but an honest reply is refused with a
 * code of its own, and nothing of it is kept but the key that was there before.
 */
import fs from 'node:fs'
import path from 'node:path'
import {
  CertvendError,
  type Credential,
  type CredentialStore,
  createClaim,
  createVendingServer,
  type EnrollOptions,
  type ErrorCode,
  enroll,
  ensureCredential,
  isCertvendError,
  openCredentialStore,
} from '@certvend/client'
import { type ProblemCode, problems, problemType } from '@certvend/client/wire'
import fc from 'fast-check'
import { HttpResponse } from 'msw'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  type CertificateOptions,
  type Certified,
  certificateIdOf,
  certify,
  certifyRequest,
  der,
  farAhead,
  makeKeys,
  pem,
  publicKeyOf,
  yesteryear,
} from './pki.ts'
import { allBytes, contents, temporaryDirectory } from './temporary.ts'
import {
  type Authorities,
  makeVendingMachine,
  type Reply,
  type Respond,
  type VendingMachine,
} from './vending-machine.ts'

const now = new Date('2027-03-01T12:00:00Z')
const clock = {
  now: () => now,
  wait: () => Promise.reject(new Error('a test of one attempt does not wait')),
}
const token = 'T0ken+of/one-use~0123456789._=='
const claim = createClaim({ deviceSerial: 'device-1', token })

let authorities: Authorities
let stranger: Certified
let impostor: Certified
let weakCa: Certified
/** The device CA's key under another name. */
let renamed: Certified
let pin: string

beforeAll(async () => {
  const [deviceCa, mqttCa] = await Promise.all([
    certify('Device CA', { ca: true }),
    certify('MQTT CA', { ca: true }),
  ])
  authorities = { deviceCa, mqttCa }
  stranger = await certify('Stranger CA', { ca: true })
  impostor = await certify('Device CA', { ca: true })
  renamed = await certify('Renamed CA', { ca: true, keys: deviceCa.keys })
  weakCa = await certify('Weak CA', { ca: true, keys: await makeKeys('RSA-1024') })
  pin = stranger.certificate
})

const server = () => createVendingServer({ url: 'https://vending.example', pins: pin })

async function openFresh(): Promise<CredentialStore> {
  return openCredentialStore(path.join(temporaryDirectory(), 'state'))
}

async function attempt(
  store: CredentialStore,
  machine: Pick<VendingMachine, 'send'>,
  options: EnrollOptions = {},
): Promise<Credential | CertvendError> {
  const asking = enroll(store, server(), claim, { clock, send: machine.send, ...options })
  return asking.catch((error) => {
    expect(error, String(error)).toBeInstanceOf(CertvendError)
    return error as CertvendError
  })
}

/**
 * One enrollment with a machine that answers by `respond`; asserts that nothing of it was kept, and
 * the key unless it was the key that was refused.
 */
async function refusalOf(respond: Respond): Promise<CertvendError> {
  const store = await openFresh()
  const error = await attempt(store, makeVendingMachine(authorities, respond))
  expect(error).toBeInstanceOf(CertvendError)
  expect(store.current()).toBeUndefined()
  const generation = ['generations/0000000001', 'generations/0000000001/private-key.pem']
  expect(contents(store.directory)).toEqual(
    isCertvendError(error, 'ERR_KEY_REFUSED')
      ? ['generations', 'lock']
      : ['generations', ...generation, 'lock', 'pending'],
  )
  store.close()
  return error as CertvendError
}

/** An honest reply, bent. */
const bent =
  (bend: (reply: Reply) => unknown, options?: CertificateOptions): Respond =>
  async (order, machine) => {
    const reply = await machine.honest(order, options)
    return HttpResponse.json((bend(reply) ?? reply) as never)
  }

const made = (options: CertificateOptions): Respond => bent(() => undefined, options)

const raw = (
  status: number,
  type: string | undefined,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Respond => {
  return () =>
    new HttpResponse(body, {
      status,
      headers: { ...(type ? { 'content-type': type } : {}), ...headers },
    })
}

const json = 'application/json'

describe('an honest reply', () => {
  it('becomes the current credential, whole, with the key that was made before', async () => {
    const store = await openFresh()
    const machine = makeVendingMachine(authorities)
    const credential = (await attempt(store, machine)) as Credential
    expect(credential).toMatchObject({
      generation: 1,
      deviceSerial: 'device-1',
      thingName: 'device-1',
      keyOrigin: 'device',
      endpoint: {
        host: 'mqtt.example',
        port: 8883,
        trustAnchors: [authorities.mqttCa.certificate],
      },
      issuedAt: now,
    })
    expect(store.current()).toEqual(credential)
    expect(machine.orders).toHaveLength(1)
    expect(machine.orders[0]?.authorization).toBe(`Bearer ${token}`)
  })

  it('may bring the issuing CA, and members that nobody knows, which are not kept', async () => {
    const store = await openFresh()
    const respond = bent((reply) => ({
      ...reply,
      certificateChain: [...reply.certificateChain, authorities.deviceCa.certificate],
      RootCA: 'MALLORY',
      privateKey: 'MALLORY',
      endpoint: { ...reply.endpoint, alpn: 'x-amzn-mqtt-ca', pins: 'MALLORY' },
    }))
    const credential = (await attempt(
      store,
      makeVendingMachine(authorities, respond),
    )) as Credential
    expect(credential.endpoint.alpn).toBe('x-amzn-mqtt-ca')
    expect(credential.certificateChain.match(/BEGIN/g)).toHaveLength(2)
    expect(allBytes(store.directory).includes('MALLORY')).toBe(false)
  })

  it('may have a media type with parameters in any case', async () => {
    const respond: Respond = async (order, machine) =>
      HttpResponse.json((await machine.honest(order)) as never, {
        headers: { 'content-type': 'Application/JSON ; charset=UTF-8' },
      })
    const credential = await attempt(await openFresh(), makeVendingMachine(authorities, respond))
    expect(credential).toMatchObject({ thingName: 'device-1' })
  })

  it('is taken from a clock that lags four minutes behind the issuer, not six', async () => {
    const minutes = (count: number): Date => new Date(now.getTime() + count * 60_000)
    const store = await openFresh()
    const ahead = (count: number) =>
      makeVendingMachine(authorities, made({ notBefore: minutes(count) }))
    expect(await attempt(store, ahead(6))).toMatchObject({ code: 'ERR_CLOCK', remedy: 'retry' })
    expect(await attempt(store, ahead(4))).toMatchObject({ thingName: 'device-1' })
  })

  it('after any refusal is taken for the same key', async () => {
    const store = await openFresh()
    const lying = makeVendingMachine(authorities, raw(200, 'text/html', '<html>'))
    await attempt(store, lying)
    const key = fs.readFileSync(path.join(store.directory, 'pending/private-key.pem'), 'utf8')
    const machine = makeVendingMachine(authorities)
    const credential = (await attempt(store, machine)) as Credential
    expect(credential.privateKey.toPem()).toBe(key)
  })
})

describe('a certificate that does not fit', () => {
  const otherKey: Respond = async (order, machine) => {
    const { certificate } = await certify('device-1', { issuer: authorities.deviceCa })
    const reply = await machine.honest(order)
    return HttpResponse.json({
      ...reply,
      certificateChain: [certificate],
      certificateId: certificateIdOf(certificate),
    })
  }
  const chainOf = (...more: (() => Certified)[]): Respond =>
    bent((reply) => {
      reply.certificateChain.push(...more.map((one) => one().certificate))
    })

  it.each<readonly [string, Respond, RegExp]>([
    ['for another key', otherKey, /another key/],
    [
      'for another device serial',
      bent((r) => ({ ...r, deviceSerial: 'device-2' })),
      /another device serial/,
    ],
    ['that is a CA', made({ ca: true }), /CA:TRUE/],
    ['that has expired', made({ notAfter: yesteryear }), /expired on 2021-01-01/],
    ['with a foreign CA behind it', chainOf(() => stranger), /did not issue/],
    [
      'with a CA of the right key and another name behind it',
      chainOf(() => renamed),
      /did not issue/,
    ],
    [
      'with a CA of the right name and another key behind it',
      chainOf(() => impostor),
      /did not issue/,
    ],
    [
      'with a foreign CA at the end of the chain',
      chainOf(
        () => authorities.deviceCa,
        () => stranger,
      ),
      /certificate 3 .* did not issue/,
    ],
    [
      'behind its issuer',
      bent((r) => ({
        ...r,
        certificateChain: [authorities.deviceCa.certificate, ...r.certificateChain],
      })),
      /another key/,
    ],
    [
      'with the certificateId of another',
      bent((r) => ({ ...r, certificateId: '0'.repeat(64) })),
      /certificateId/,
    ],
  ])('is refused: one %s', async (_title, respond, message) => {
    const error = await refusalOf(respond)
    expect(error).toMatchObject({ code: 'ERR_CERTIFICATE_MISMATCH', remedy: 'operator' })
    expect(error.message).toMatch(message)
  })

  it('is a matter of the clock when it is not valid yet', async () => {
    const error = await refusalOf(made({ notBefore: new Date('2048-01-01'), notAfter: farAhead }))
    expect(error).toMatchObject({ code: 'ERR_CLOCK', remedy: 'retry' })
    expect(error.message).toMatch(/2048-01-01.*2027-03-01/)
  })

  it('is refused when its dates are not dates', async () => {
    const garbled: Respond = async (order, machine) => {
      const reply = await machine.honest(order)
      const bytes = der(reply.certificateChain[0] ?? '')
      const at = bytes.indexOf('490101000000Z') // notAfter as UTCTime
      expect(at).toBeGreaterThan(0)
      bytes.write('49XX01000000Z', at)
      const certificate = pem('CERTIFICATE', bytes)
      return HttpResponse.json({
        ...reply,
        certificateChain: [certificate],
        certificateId: certificateIdOf(certificate),
      })
    }
    const error = await refusalOf(garbled)
    expect(['ERR_CERTIFICATE_MISMATCH', 'ERR_REPLY_MALFORMED']).toContain(error.code)
  })

  it('does not hide behind a duplicate member: the last one counts, and is judged', async () => {
    const twice: Respond = async (order, machine) => {
      const honest = await machine.honest(order)
      const { certificate } = await certify('device-1', { issuer: authorities.deviceCa })
      const text = JSON.stringify(honest).replace(
        /}$/,
        `,"certificateChain":${JSON.stringify([certificate])}}`,
      )
      return new HttpResponse(text, { headers: { 'content-type': json } })
    }
    expect((await refusalOf(twice)).code).toBe('ERR_CERTIFICATE_MISMATCH')
  })
})

describe('a reply of another shape', () => {
  const leaf = async (order: { csr: string }): Promise<string> =>
    certifyRequest(order.csr, 'device-1', { issuer: authorities.deviceCa })
  const chainText =
    (bend: (certificate: string) => unknown): Respond =>
    async (order, machine) =>
      HttpResponse.json({
        ...(await machine.honest(order)),
        certificateChain: bend(await leaf(order)) as never,
      })
  const endpoint = (more: object): Respond =>
    bent((reply) => ({ ...reply, endpoint: { ...reply.endpoint, ...more } }))
  const without = (name: keyof Reply): Respond =>
    bent((reply) => {
      delete (reply as Partial<Reply>)[name]
    })

  it.each<readonly [string, Respond]>([
    ['HTML that says 200', raw(200, 'text/html', '<html><h1>Sign in</h1></html>')],
    ['HTML that says it is JSON', raw(200, json, '<html><h1>Sign in</h1></html>')],
    [
      'JSON that says it is HTML',
      async (order, machine) =>
        HttpResponse.json((await machine.honest(order)) as never, {
          headers: { 'content-type': 'text/html' },
        }),
    ],
    [
      'an honest reply without a media type',
      async (order, machine) =>
        new HttpResponse(Buffer.from(JSON.stringify(await machine.honest(order)))),
    ],
    [
      'an honest reply with status 201',
      async (order, machine) =>
        HttpResponse.json((await machine.honest(order)) as never, { status: 201 }),
    ],
    ['nothing at all', raw(200, json, '')],
    ['no content', () => new HttpResponse(null, { status: 204 })],
    ['null', raw(200, json, 'null')],
    ['a number', raw(200, json, '42')],
    ['a string', raw(200, json, '"certificate"')],
    ['an array', raw(200, json, '[]')],
    ['an empty object', raw(200, json, '{}')],
    ['JSON nested 10 000 deep', raw(200, json, '['.repeat(10_000) + ']'.repeat(10_000))],
    ['invalid UTF-8', raw(200, json, new Uint8Array([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]))],
    ['UTF-16', raw(200, json, new Uint8Array(Buffer.from('{}', 'utf16le')))],
    [
      'two documents',
      async (order, machine) => {
        const text = JSON.stringify(await machine.honest(order))
        return new HttpResponse(text + text, { headers: { 'content-type': json } })
      },
    ],
    ['no chain', without('certificateChain')],
    ['no endpoint', without('endpoint')],
    ['no certificateId', without('certificateId')],
    ['no device serial', without('deviceSerial')],
    [
      'members only in the prototype',
      async (order, machine) =>
        new HttpResponse(`{"__proto__":${JSON.stringify(await machine.honest(order))}}`, {
          headers: { 'content-type': json },
        }),
    ],
    ['an empty chain', chainText(() => [])],
    ['a chain of eleven', chainText((one) => Array(11).fill(one))],
    ['a chain that is one text', chainText((one) => one)],
    ['two certificates in one text', chainText((one) => [one + one])],
    ['a certificate with words before it', chainText((one) => [`subject=\n${one}`])],
    ['a certificate with words after it', chainText((one) => [`${one}hello`])],
    ['a certificate as DER in base64', chainText((one) => [der(one).toString('base64')])],
    ['a certificate cut short', chainText((one) => [pem('CERTIFICATE', der(one).subarray(0, -9))])],
    ['armour around garbage', chainText(() => [pem('CERTIFICATE', Buffer.from('garbage'))])],
    ['a private key as certificate', chainText(() => [stranger.privateKey])],
    [
      'an upper-case certificateId',
      bent((r) => ({ ...r, certificateId: r.certificateId.toUpperCase() })),
    ],
    ['a thing name with a slash', bent((r) => ({ ...r, thingName: 'a/b' }))],
    ['a thing name that is a topic filter', bent((r) => ({ ...r, thingName: '#' }))],
    ['an empty thing name', bent((r) => ({ ...r, thingName: '' }))],
    ['a thing name of 129 characters', bent((r) => ({ ...r, thingName: 'a'.repeat(129) }))],
    [
      'a thing name that leaves the directory',
      bent((r) => ({ ...r, thingName: '../../etc/passwd' })),
    ],
    ['port 0', endpoint({ port: 0 })],
    ['port 65536', endpoint({ port: 65536 })],
    ['a port as text', endpoint({ port: '8883' })],
    ['half a port', endpoint({ port: 8883.5 })],
    ['an empty host', endpoint({ host: '' })],
    ['a host with a path', endpoint({ host: 'mqtt.example/x' })],
    ['a host with a line break', endpoint({ host: 'mqtt.example\n' })],
    ['a host of 254 characters', endpoint({ host: 'a'.repeat(254) })],
    ['an ALPN name with a space', endpoint({ alpn: 'x amzn' })],
    ['no trust anchors', endpoint({ trustAnchors: [] })],
    ['an empty trust anchor', endpoint({ trustAnchors: [''] })],
    ['a garbage trust anchor', endpoint({ trustAnchors: [pem('CERTIFICATE', Buffer.from('x'))] })],
    [
      'a weak trust anchor',
      bent((r) => ({ ...r, endpoint: { ...r.endpoint, trustAnchors: [weakCa.certificate] } })),
    ],
    [
      'a trust anchor that is no CA',
      bent((r) => ({ ...r, endpoint: { ...r.endpoint, trustAnchors: r.certificateChain } })),
    ],
  ])('is refused as malformed: %s', async (_title, respond) => {
    const error = await refusalOf(respond)
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(error.message.length).toBeLessThan(400)
  })

  it.each([301, 302, 303, 307, 308])('a redirect (%i) is not followed', async (status) => {
    const orders: string[] = []
    const respond: Respond = ({ deviceSerial }) => {
      orders.push(deviceSerial)
      return new HttpResponse(null, {
        status,
        headers: { location: 'https://vending.example/v1/enroll' },
      })
    }
    const error = await refusalOf(respond)
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(error.message).toContain('redirect')
    expect(orders).toHaveLength(1)
  })

  it('truncated at any byte is refused, and nothing is stored', async () => {
    const store = await openFresh()
    const { privateKey } = store.begin()
    const csr = { csr: '', key: privateKey }
    const capture = makeVendingMachine(authorities, (order) => {
      csr.csr = order.csr
      return new HttpResponse(null, { status: 503 })
    })
    await attempt(store, capture)
    const order = { deviceSerial: 'device-1', csr: csr.csr, authorization: null }
    const body = Buffer.from(JSON.stringify(await capture.honest(order)))
    for (let length = 0; length < body.length; length++) {
      const reply = {
        status: 200,
        headers: { 'content-type': json },
        body: body.subarray(0, length),
      }
      const error = await attempt(store, { send: async () => reply })
      expect(error, `cut after ${length} bytes`).toMatchObject({ code: 'ERR_REPLY_MALFORMED' })
    }
    expect(store.current()).toBeUndefined()
    const whole = { status: 200, headers: { 'content-type': json }, body }
    expect(await attempt(store, { send: async () => whole })).toMatchObject({ generation: 1 })
  })

  it('with any bytes changed is refused with one of our errors or holds a certificate for our key', async () => {
    const store = await openFresh()
    const orders: Reply[] = []
    const capture = makeVendingMachine(authorities, async (order, machine) => {
      orders.push(await machine.honest(order))
      return new HttpResponse(null, { status: 503 })
    })
    await attempt(store, capture)
    const honest = orders[0]!
    const text = Buffer.from(JSON.stringify(honest))
    const id = honest.certificateId
    const edits = fc.array(
      fc.record({ at: fc.nat(text.length - 1), byte: fc.integer({ min: 0x20, max: 0x7e }) }),
      { minLength: 1, maxLength: 3 },
    )
    await fc.assert(
      fc.asyncProperty(edits, async (changes) => {
        const body = Buffer.from(text)
        for (const { at, byte } of changes) body[at] = byte
        const reply = { status: 200, headers: { 'content-type': json }, body }
        const outcome = await attempt(store, { send: async () => reply })
        if (outcome instanceof CertvendError) return store.current() === undefined
        const { certificateId } = outcome
        forget(store)
        return certificateId === id
      }),
      { numRuns: 400, seed: 20270301 },
    )
  })

  it('with a certificate of which any byte was changed, and its id with it, is refused with one of our errors or still ours', async () => {
    const store = await openFresh()
    const replies: Reply[] = []
    const capture = makeVendingMachine(authorities, async (order, machine) => {
      replies.push(await machine.honest(order))
      return new HttpResponse(null, { status: 503 })
    })
    await attempt(store, capture)
    const honest = replies[0]!
    const bytes = der(honest.certificateChain[0]!)
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 0x41
      const certificate = pem('CERTIFICATE', changed)
      const bent = {
        ...honest,
        certificateChain: [certificate],
        certificateId: certificateIdOf(certificate),
      }
      const body = Buffer.from(JSON.stringify(bent))
      const reply = { status: 200, headers: { 'content-type': json }, body }
      const outcome = await attempt(store, { send: async () => reply })
      if (outcome instanceof CertvendError) continue
      expect(Number.isNaN(outcome.notAfter.getTime()), `byte ${at}`).toBe(false)
      expect(Number.isNaN(outcome.notBefore.getTime()), `byte ${at}`).toBe(false)
      forget(store)
    }
  })
})

/** Makes the store as if what was issued had never come, with the same key. */
function forget(store: CredentialStore): void {
  const home = path.join(store.directory, 'current')
  fs.rmSync(path.join(home, 'credential.json'))
  fs.renameSync(home, path.join(store.directory, 'pending'))
  store.reload()
}

describe('a problem document', () => {
  const expected: Record<ProblemCode, readonly [ErrorCode, 'retry' | 'operator']> = {
    'malformed-request': ['ERR_REQUEST_REFUSED', 'operator'],
    'csr-refused': ['ERR_REQUEST_REFUSED', 'operator'],
    'claim-refused': ['ERR_CLAIM_REFUSED', 'operator'],
    'device-disabled': ['ERR_CLAIM_REFUSED', 'operator'],
    'certificate-revoked': ['ERR_CLAIM_REFUSED', 'operator'],
    'not-found': ['ERR_REQUEST_REFUSED', 'operator'],
    'method-not-allowed': ['ERR_REQUEST_REFUSED', 'operator'],
    'claim-spent': ['ERR_CLAIM_SPENT', 'operator'],
    'key-in-use': ['ERR_KEY_REFUSED', 'retry'],
    'key-revoked': ['ERR_KEY_REFUSED', 'retry'],
    'request-too-large': ['ERR_REQUEST_REFUSED', 'operator'],
    'unsupported-media-type': ['ERR_REQUEST_REFUSED', 'operator'],
    'too-many-attempts': ['ERR_SERVER_BUSY', 'retry'],
    internal: ['ERR_SERVER_BUSY', 'retry'],
    busy: ['ERR_SERVER_BUSY', 'retry'],
  }
  const problem = (status: number, body: object, headers: Record<string, string> = {}): Respond =>
    raw(status, 'application/problem+json', JSON.stringify(body), headers)

  it.each(Object.entries(expected))('%s becomes %s', async (code, [ours, remedy]) => {
    const status = problems[code as ProblemCode]
    const type = problemType(code as ProblemCode)
    const error = await refusalOf(
      problem(status, { type, status, detail: 'the words of the server' }),
    )
    expect(error).toMatchObject({ code: ours, remedy })
    expect(error.message).toContain('the words of the server')
    expect(error.message).toContain(code)
  })

  it('has a meaning for every code of the protocol', () => {
    expect(Object.keys(expected).sort()).toEqual(Object.keys(problems).sort())
  })

  it.each([
    [400, 'ERR_REQUEST_REFUSED'],
    [401, 'ERR_REQUEST_REFUSED'],
    [418, 'ERR_REQUEST_REFUSED'],
    [429, 'ERR_SERVER_BUSY'],
    [500, 'ERR_SERVER_BUSY'],
    [503, 'ERR_SERVER_BUSY'],
  ])('of somebody else (%i) becomes %s', async (status, code) => {
    const type = 'https://problems.example/whatever'
    expect((await refusalOf(problem(status, { type, title: 'No' }))).code).toBe(code)
  })

  it.each(['constructor', '__proto__', 'toString', ''])(
    'with the code %j is nobody of ours',
    async (code) => {
      const error = await refusalOf(problem(400, { type: `urn:certvend:problem:${code}` }))
      expect(error.code).toBe('ERR_REQUEST_REFUSED')
    },
  )

  it.each([
    ['in the detail', { type: problemType('claim-refused'), detail: `Bearer ${token} is wrong` }],
    ['in the title', { type: problemType('claim-refused'), title: token }],
    ['in the type', { type: `https://x.example/?token=${token}` }],
    ['twice', { type: problemType('claim-refused'), detail: `${token}${token}` }],
    [
      'at the edge of what is quoted',
      { type: problemType('busy'), detail: `${'x'.repeat(190)}${token}` },
    ],
  ])('that echoes the token %s does not bring it into the error', async (_where, body) => {
    const error = await refusalOf(problem(401, body))
    for (let length = token.length; length >= 8; length--)
      expect(`${error.message} ${error.stack} ${error.hint}`).not.toContain(token.slice(0, length))
  })

  it('cannot write escape sequences, line breaks or a novel into the error', async () => {
    const detail = `\u001b[2J\u0007\u009b31m\r\nok: enrolled\u2028${'x'.repeat(100_000)}`
    const error = await refusalOf(problem(403, { type: problemType('device-disabled'), detail }))
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(error.message).not.toMatch(/[\u0000-\u001f\u007f-\uffff]/)
    expect(error.message.length).toBeLessThan(400)
  })

  it('cannot do so by its media type either', async () => {
    const type = `text/${'x'.repeat(5000)}\u009b31m${token}`
    const error = await refusalOf(raw(200, type, '<html>'))
    expect(error.message).not.toMatch(/[\u007f-\uffff]/)
    expect(error.message).not.toContain(token)
    expect(error.message.length).toBeLessThan(400)
  })

  it.each([
    ['not JSON', 'application/problem+json', '<html>'],
    ['without a type', 'application/problem+json', '{"detail":"no"}'],
    ['a page of a proxy', 'text/html', '<html>'],
  ])('that is none (%s) is malformed, whatever the status', async (_title, type, body) => {
    for (const status of [400, 401, 403, 404, 409, 500])
      expect((await refusalOf(raw(status, type, body))).code, String(status)).toBe(
        'ERR_REPLY_MALFORMED',
      )
  })
})

describe('a server that says later', () => {
  const minutes = (count: number): Date => new Date(now.getTime() + count * 60_000)

  it('with 202 has deferred the request', async () => {
    const error = await refusalOf(raw(202, undefined, '', { 'retry-after': '300' }))
    expect(error).toMatchObject({ code: 'ERR_DEFERRED', remedy: 'retry', retryAt: minutes(5) })
  })

  it('with 202 and no Retry-After has named no moment', async () => {
    const error = await refusalOf(raw(202, undefined, ''))
    expect(error.code).toBe('ERR_DEFERRED')
    expect(error.retryAt).toBeUndefined()
  })

  it.each([429, 502, 503, 504])('with %i is busy, even by a page of HTML', async (status) => {
    const error = await refusalOf(raw(status, 'text/html', '<html>', { 'retry-after': '120' }))
    expect(error).toMatchObject({ code: 'ERR_SERVER_BUSY', remedy: 'retry', retryAt: minutes(2) })
  })

  it('by an appointment of over an hour is remembered across a restart, and not asked before', async () => {
    const directory = path.join(temporaryDirectory(), 'state')
    const later = makeVendingMachine(
      authorities,
      raw(503, 'text/html', '', { 'retry-after': '7200' }),
    )
    const store = await openCredentialStore(directory)
    expect(await attempt(store, later)).toMatchObject({ retryAt: minutes(120) })
    store.close()
    const machine = makeVendingMachine(authorities)
    const again = await openCredentialStore(directory)
    const at = (moment: Date) => ({ clock: { ...clock, now: () => moment } })
    const early = await attempt(again, machine, at(minutes(119)))
    expect(early).toMatchObject({ code: 'ERR_SERVER_BUSY', retryAt: minutes(120) })
    expect(machine.orders).toHaveLength(0)
    expect(await attempt(again, machine, at(minutes(120)))).toMatchObject({ generation: 1 })
  })

  it('does not bind a device that was pointed at another server', async () => {
    const store = await openFresh()
    const later = makeVendingMachine(
      authorities,
      raw(503, 'text/html', '', { 'retry-after': '7200' }),
    )
    await attempt(store, later)
    const machine = makeVendingMachine(authorities)
    const elsewhere = createVendingServer({ url: 'https://other.example', pins: pin })
    const asking = enroll(store, elsewhere, claim, { clock, send: machine.send })
    expect(await asking).toMatchObject({ thingName: 'device-1' })
  })
})

describe('asking until it helps', () => {
  it('survives every kind of bad day and makes one key', async () => {
    const badDays: Respond[] = [
      raw(503, 'text/html', '', { 'retry-after': '60' }),
      raw(200, 'text/html', '<html>captive portal</html>'),
      raw(202, undefined, ''),
      raw(500, 'application/problem+json', JSON.stringify({ type: problemType('internal') })),
      made({ notBefore: new Date('2048-01-01') }),
    ]
    const waits: number[] = []
    const machine = makeVendingMachine(authorities, (order, honest) => {
      const respond = badDays.shift()
      return respond
        ? respond(order, honest)
        : honest.honest(order).then((reply) => HttpResponse.json(reply as never))
    })
    const store = await openFresh()
    const credential = await ensureCredential(store, server(), claim, {
      send: machine.send,
      random: () => 0.5,
      clock: {
        now: () => now,
        wait: async (ms) => {
          waits.push(ms)
        },
      },
    })
    expect(credential.generation).toBe(1)
    const keys = await Promise.all(machine.orders.map(({ csr }) => publicKeyOf(csr)))
    expect(keys).toHaveLength(6)
    expect(new Set(keys.map((key) => Buffer.from(key).toString('hex'))).size).toBe(1)
    expect(waits).toEqual([60_500, 1000, 2000, 4000, 8000])
  })

  it('ends at once when only a person can help', async () => {
    const machine = makeVendingMachine(
      authorities,
      raw(401, 'application/problem+json', JSON.stringify({ type: problemType('claim-refused') })),
    )
    const store = await openFresh()
    const asking = ensureCredential(store, server(), claim, { send: machine.send, clock })
    await expect(asking).rejects.toMatchObject({ code: 'ERR_CLAIM_REFUSED', remedy: 'operator' })
    expect(machine.orders).toHaveLength(1)
  })

  it('with a stored credential asks nobody', async () => {
    const store = await openFresh()
    const machine = makeVendingMachine(authorities)
    await attempt(store, machine)
    const again = await ensureCredential(store, server(), claim, {
      clock,
      send: () => Promise.reject(new Error('a request was made')),
    })
    expect(again.generation).toBe(1)
  })
})

describe('a vending URL', () => {
  const target = async (url: string): Promise<URL> => {
    const urls: URL[] = []
    const store = await openFresh()
    await enroll(store, createVendingServer({ url, pins: pin }), claim, {
      clock,
      send: async (request) => {
        urls.push(request.url)
        return { status: 503, headers: {}, body: new Uint8Array() }
      },
    }).catch(() => {})
    return urls[0]!
  }

  it.each([
    ['https://vending.example', 'https://vending.example/v1/enroll'],
    ['https://vending.example/', 'https://vending.example/v1/enroll'],
    ['https://vending.example:8443/a/b/', 'https://vending.example:8443/a/b/v1/enroll'],
    ['https://vending.example/a//', 'https://vending.example/a/v1/enroll'],
  ])('%s keeps its path as a prefix', async (url, expected) => {
    expect((await target(url)).href).toBe(expected)
  })

  it('whose path begins with two slashes stays on its host', async () => {
    expect((await target('https://vending.example//evil.example/')).host).toBe('vending.example')
  })

  it.each([
    'http://vending.example',
    'vending.example',
    '',
    'file:///etc/passwd',
    'https://user:secret@vending.example',
    'https://vending.example/?token=secret',
    'https://vending.example/#x',
  ])('is refused: %j', (url) => {
    expect(() => createVendingServer({ url, pins: pin })).toThrow(TypeError)
  })
})
