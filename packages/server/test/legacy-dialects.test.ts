/** Each old dialect at its own URL: what its clients parse, and what they are told instead. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { minute } from '../src/clock.ts'
import type { LegacyName } from '../src/legacy/dialect.ts'
import { registryBusy } from '../src/registry/registry.ts'
import { anchor, belongTogether, type LegacyMachine, names, startLegacy, vended } from './legacy.ts'

/** What is refused, however it is said. */
const cases = [
  'an unknown device',
  'a wrong token',
  'no token',
  'a row without a token',
  'no serial',
  'a disabled device',
  'a spent claim',
  'a registry that is busy',
  'an issuer that fails',
] as const
type Case = (typeof cases)[number]

const denied = [403, 'Access Denied']
const tokenIsWrong = [200, atlas(403, 'Device token is not valid')]
const unauthorized = [401, '{"message":"Unauthorized"}']
const applied = (conCheck: string) => JSON.stringify({ conCheck })

/** Status and text. What an old client cannot tell is honest; what it parses is as it was. */
const said: Readonly<Record<LegacyName, Readonly<Record<Case, readonly unknown[]>>>> = {
  'awslabs-2018': {
    'an unknown device': [200, '"Access Deny!"'],
    'a wrong token': [200, '"Access Deny!"'],
    'no token': [200, '"Access Deny!"'],
    'a row without a token': [200, '"Access Deny!"'],
    'no serial': [200, '"Access Deny!"'],
    'a disabled device': [200, '"Access Deny!"'],
    'a spent claim': [200, 'null'],
    'a registry that is busy': [200, '"Identical serial number error!"'],
    'an issuer that fails': [200, 'null'],
  },
  'awslabs-2020': {
    'an unknown device': denied,
    'a wrong token': denied,
    'no token': denied,
    'a row without a token': denied,
    'no serial': [400, 'Service error'],
    'a disabled device': denied,
    'a spent claim': [409, 'Access Denied'],
    'a registry that is busy': [503, 'Service error'],
    'an issuer that fails': [500, 'Error issuing certificate!'],
  },
  'iot-atlas': {
    'an unknown device': tokenIsWrong,
    'a wrong token': tokenIsWrong,
    'no token': tokenIsWrong,
    'a row without a token': tokenIsWrong,
    'no serial': [200, atlas(400, 'Missing input data')],
    'a disabled device': [200, atlas(403, "Device isn't enabled")],
    'a spent claim': [200, atlas(409, 'Device is already registered')],
    'a registry that is busy': [200, atlas(503, 'Device database access error')],
    'an issuer that fails': [200, atlas(500, 'Unable to create device certificates')],
  },
  'gateway-2021': {
    'an unknown device': unauthorized,
    'a wrong token': unauthorized,
    'no token': unauthorized,
    'a row without a token': unauthorized,
    'no serial': [400, '{"status":false,"error":"Uncaught error..."}'],
    'a disabled device': [403, '{"Message":"User is not authorized to access this resource"}'],
    'a spent claim': [
      409,
      '{"status":false,"error":"Thing exists in the AWS IoT Account, exiting..."}',
    ],
    'a registry that is busy': [
      503,
      '{"status":false,"error":"Error registering thing agent in AWS IoT"}',
    ],
    'an issuer that fails': [
      500,
      '{"status":false,"error":"Error registering thing agent in AWS IoT"}',
    ],
  },
  'express-2017': {
    'an unknown device': [403, applied('40030')],
    'a wrong token': [403, applied('40030')],
    'no token': [403, applied('40030')],
    'a row without a token': [403, applied('40030')],
    'no serial': [200, 'Invalid requset!'],
    'a disabled device': [403, applied('40030')],
    'a spent claim': [409, applied('40010')],
    'a registry that is busy': [503, applied('50010')],
    'an issuer that fails': [500, applied('50010')],
  },
}

function atlas(statusCode: number, message: string): string {
  return JSON.stringify({ statusCode, status: 'ERROR', payload: { message } })
}

/** Brings the case about. */
async function refuse(name: LegacyName, what: Case) {
  const machine = await startLegacy(changesFor(what))
  const { deviceSerial, token } = await machine.addDevice('SN-1', {
    ...(what === 'a row without a token' && { token: null }),
  })
  if (what === 'a disabled device')
    await machine.registry.setDisabled(deviceSerial, true, machine.clock.now())
  if (what === 'a spent claim') await spend(machine, deviceSerial)
  const asks = {
    'an unknown device': { deviceSerial: 'SN-2', token },
    'a wrong token': { deviceSerial, token: 'another-token' },
    'no token': { deviceSerial },
    'a row without a token': { deviceSerial },
    'no serial': { token },
  }
  return machine.ask(name, what in asks ? asks[what as keyof typeof asks] : { deviceSerial, token })
}

const changesFor = (what: Case) => {
  const fail = (error: Error) => async () => {
    throw error
  }
  if (what === 'a registry that is busy')
    return { makeKey: fail(registryBusy(new Error('another process writes'))) }
  if (what === 'an issuer that fails') return { makeKey: fail(new Error('no entropy, no AWS')) }
  return {}
}

/** As if the claim had been vended before it was imported. */
async function spend({ registry, clock }: LegacyMachine, deviceSerial: string) {
  const device = await registry.find(deviceSerial)
  const { token } = device!.claim
  await registry.remove(deviceSerial, clock.now())
  await registry.addAll(
    [{ deviceSerial, thingName: deviceSerial, token: token!, spentOn: 'f'.repeat(64) }],
    clock.now(),
  )
}

describe('docs/legacy.md', () => {
  const page = readFileSync(new URL('../../../docs/legacy.md', import.meta.url), 'utf8')
  const rows = new Map(
    page
      .split('\n')
      .map((line) => line.split('|').map((cell) => cell.trim()))
      .map(([, title = '', ...cells]) => [title, cells]),
  )

  it.each([
    ['unknown device, wrong token, row without a token', 'a wrong token'],
    ['disabled', 'a disabled device'],
    ['spent', 'a spent claim'],
    ['no serial', 'no serial'],
    ['busy', 'a registry that is busy'],
    ['failed', 'an issuer that fails'],
  ] as const)('says what each dialect is told: %s', (title, what) => {
    const cells = rows.get(title)
    for (const [index, name] of names.entries()) {
      const [status, text] = said[name][what] as [number, string]
      const cell = cells?.[index] ?? ''
      expect(cell.startsWith(String(status)), `${name}: ${cell}`).toBe(true)
      const [, ...numbers] = cell.match(/\d+/g) ?? []
      const quotes = [...cell.matchAll(/`([^`]+?)(?: …)?`/g)].map(([, quote]) => quote!)
      for (const part of [...numbers, ...quotes]) expect(text, `${name}: ${cell}`).toContain(part)
    }
  })
})

describe.each(names)('%s', (name) => {
  it('vends a key with its certificate, and says what the MQTT server is judged by', async () => {
    const machine = await startLegacy()
    const { deviceSerial, token } = await machine.addDevice('SN-1', { thingName: 'thing-1' })
    const answer = await machine.ask(name, { deviceSerial, token })
    expect(answer.status).toBe(200)
    const got = vended(name, answer.text)
    expect(belongTogether(got)).toBe(true)
    expect(got.privateKey).toMatch(
      /^-----BEGIN RSA PRIVATE KEY-----\n[\s\S]+-----END RSA PRIVATE KEY-----\n$/,
    )
    expect(got.publicKey).toMatch(/^-----BEGIN PUBLIC KEY-----\n[\s\S]+-----END PUBLIC KEY-----\n$/)
    expect(got.certificatePem).toMatch(
      /^-----BEGIN CERTIFICATE-----\n[^-]+-----END CERTIFICATE-----\n$/,
    )
    expect(got.rootCa).toBe(`${anchor}\n`)
    const [recorded] = await machine.registry.certificates('SN-1')
    expect(recorded).toMatchObject({ certificateId: got.certificateId, status: 'ACTIVE' })
    expect(answer.headers.get('cache-control')).toBe('no-store')
  })

  it.each(cases)('refuses %s', async (what) => {
    const answer = await refuse(name, what)
    expect([answer.status, answer.text]).toEqual(said[name][what])
    expect(answer.headers.get('cache-control')).toBe('no-store')
    const isBusy = what === 'a registry that is busy'
    if (isBusy) expect(answer.headers.get('retry-after')).toBe('2')
    expect(answer.headers.get('www-authenticate')).toBe(
      answer.status === 401 ? 'DeviceToken' : null,
    )
  })

  it('says the same of an unknown device, a wrong token and a row without one', async () => {
    const answers = await Promise.all(
      cases.slice(0, 4).map(async (what) => {
        const { status, text, headers } = await refuse(name, what)
        return { status, text, headers: [...headers] }
      }),
    )
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
  })

  it('slows whoever guesses, in the same words, and never the one who knows', async () => {
    const machine = await startLegacy({ failures: { allowed: 2 } })
    const { deviceSerial, token } = await machine.addDevice()
    const guess = () => machine.ask(name, { deviceSerial, token: 'a-wrong-token' })
    const [first] = [await guess(), await guess()]
    const third = await guess()
    expect(third.headers.get('retry-after')).toBe('600')
    const words = ({ text }: { text: string }) =>
      text.replaceAll(/"statusCode":\d+/g, '').replace('Too Many Requests', 'Unauthorized')
    expect(words(third)).toBe(words(first!))
    expect((await machine.ask(name, { deviceSerial, token })).status).toBe(200)
    machine.clock.move(11 * minute)
    expect((await guess()).headers.get('retry-after')).toBeNull()
  })
})

describe('the shapes', () => {
  const shape = async (name: LegacyName) => {
    const machine = await startLegacy()
    const { deviceSerial, token } = await machine.addDevice('SN-1', { thingName: 'thing-1' })
    const { text, headers } = await machine.ask(name, { deviceSerial, token })
    const body = JSON.parse(text, (key, value) =>
      typeof value === 'string' &&
      !['statusCode', 'status', 'conCheck', 'endpoint', 'thing_name'].includes(key)
        ? value.slice(0, 14)
        : value,
    )
    return { body, text, type: headers.get('content-type') }
  }
  const created = {
    certificateArn: 'arn:aws:iot:lo',
    certificateId: expect.stringMatching(/^[0-9a-f]{14}$/),
    certificatePem: '-----BEGIN CER',
    keyPair: { PublicKey: '-----BEGIN PUB', PrivateKey: '-----BEGIN RSA' },
  }
  /** The names of the members at the top, in their order. */
  const order = (text: string) => Object.keys(JSON.parse(text))

  it('of awslabs 2018 is what AWS IoT returned, and RootCA behind it', async () => {
    const { body, text, type } = await shape('awslabs-2018')
    expect(body).toEqual({ ...created, RootCA: '-----BEGIN CER' })
    expect(order(text)).toEqual([...Object.keys(created), 'RootCA'])
    expect(text).not.toContain('\n')
    expect(type).toBe('application/json')
  })

  it('of awslabs 2020 is the same, indented by tabs', async () => {
    const { body, text, type } = await shape('awslabs-2020')
    expect(body).toEqual({ ...created, RootCA: '-----BEGIN CER' })
    expect(text).toMatch(
      /^\{\n\t"certificateArn": "arn:aws:iot:local:000000000000:cert\/[0-9a-f]{64}",\n/,
    )
    expect(type).toBe('application/json')
  })

  it('of IoT Atlas names the thing and the MQTT server, below a status', async () => {
    const { body } = await shape('iot-atlas')
    expect(body).toEqual({
      statusCode: 200,
      status: 'SUCCESS',
      payload: {
        endpoint: 'mqtt.example',
        thing_name: 'thing-1',
        certificates: { device_certificate: '-----BEGIN CER', root_ca: '-----BEGIN CER' },
        keyPair: { publicKey: '-----BEGIN PUB', privateKey: '-----BEGIN RSA' },
      },
    })
  })

  it('of the gateway of 2021 holds the certificate as pem, in snake case', async () => {
    const { body } = await shape('gateway-2021')
    expect(body).toEqual({
      certificateData: {
        pem: '-----BEGIN CER',
        key_pair: { public_key: '-----BEGIN PUB', private_key: '-----BEGIN RSA' },
      },
      rootCa: '-----BEGIN CER',
    })
  })

  it('of Express 2017 leads with the root and a code, which is a text', async () => {
    const { body, text, type } = await shape('express-2017')
    expect(body).toEqual({ rootCA: '-----BEGIN CER', conCheck: '20020', certdata: created })
    expect(order(text)).toEqual(['rootCA', 'conCheck', 'certdata'])
    expect(type).toBe('application/json; charset=utf-8')
  })
})

describe('other requests to the same URLs', () => {
  const method = (path: string, verb: string) =>
    new Request(`https://old.example${path}`, { method: verb })

  it.each([
    ['POST', '/LATEST/getcert', 405, '{"message":"Missing Authentication Token"}'],
    ['POST', '/Prod/getcert', 405, 'Bad Request'],
    ['GET', '/dev/registration', 405, '{"message":"Missing Authentication Token"}'],
    ['GET', '/prod/register', 200, '{"response":true,"time":1905249600}'],
    ['GET', '/', 200, 'Access Deny!'],
  ])('%s %s vends nothing', async (verb, path, status, text) => {
    const machine = await startLegacy()
    const answer = await machine.say(method(path, verb))
    expect([answer.status, answer.text]).toEqual([status, text])
    expect(machine.front.counts().size).toBe(0)
  })

  it('take the parameters of awslabs 2020 from a body over those of the query, as behind a proxy', async () => {
    const machine = await startLegacy()
    const { deviceSerial, token } = await machine.addDevice()
    const request = new Request('https://old.example/Prod/getcert?deviceToken=x&serialNumber=y')
    const withBody = Object.create(request, {
      method: { value: 'GET' },
      url: { value: request.url },
      headers: { value: request.headers },
      body: {
        value: [Buffer.from(JSON.stringify({ serialNumber: deviceSerial, deviceToken: token }))],
      },
    }) as Request
    expect((await machine.say(withBody)).status).toBe(200)
  })

  it('with a parameter twice name no device', async () => {
    const machine = await startLegacy()
    const { deviceSerial, token } = await machine.addDevice()
    const twice = `serialNumber=${deviceSerial}&serialNumber=SN-9&deviceToken=${token}`
    const answer = await machine.say(new Request(`https://old.example/Prod/getcert?${twice}`))
    expect(answer.text).toBe('Service error')
  })

  it('with a body as large as a server reads, or none that is JSON, are refused', async () => {
    const machine = await startLegacy()
    const post = (body: string) =>
      machine.say(new Request('https://old.example/dev/registration', { method: 'POST', body }))
    expect((await post('x'.repeat(17_000))).text).toContain('"statusCode":413')
    for (const body of ['', '[]', 'null', '"text"', '{"device_uid":{}}', '{"device_uid":"'])
      expect((await post(body)).text, body).toBe(atlas(400, 'Missing input data'))
  })

  it('for Express 2017 may be JSON, with the serial as a number', async () => {
    const machine = await startLegacy()
    const { token } = await machine.addDevice('12345')
    const answer = await machine.say(
      new Request('https://old.example/', {
        method: 'POST',
        headers: { 'content-type': 'application/json; charset=utf-8' },
        body: JSON.stringify({ seriaNum: 12345, accessToken: token }),
      }),
    )
    expect(belongTogether(vended('express-2017', answer.text))).toBe(true)
  })
})
