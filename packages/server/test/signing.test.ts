/** Certificates signed by a key that is somewhere else, as in AWS KMS. */
import {
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  X509Certificate,
} from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { KeyElsewhere, SigningAuthority } from '../src/certificate.ts'
import { day, later } from '../src/clock.ts'
import { createOwnCaIssuer } from '../src/issuer/aws-iot-own-ca.ts'
import { amazonTrustAnchors, createIotEndpoint } from '../src/issuer/iot-endpoint.ts'
import { sharedPolicy } from '../src/issuer/iot-policy.ts'
import { createLocalIssuer, makeDeviceCa } from '../src/issuer/local.ts'
import { makeCaCertificate } from '../src/pki.ts'
import { movableClock, startMachine } from './machine.ts'

const clock = movableClock()

function elsewhere(privateKey: KeyObject): KeyElsewhere {
  return {
    asymmetricKeyType: privateKey.asymmetricKeyType as 'ec' | 'rsa',
    publicKeyInfo: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
    sign: async (data) => sign('sha256', data, privateKey),
  }
}

async function authority(privateKey: KeyObject): Promise<SigningAuthority> {
  const key = elsewhere(privateKey)
  const validity = { notBefore: later(clock.now(), -day), notAfter: later(clock.now(), 3650 * day) }
  const certificate = await makeCaCertificate({ commonName: 'CA', pathLength: 0, ...validity }, key)
  return { certificate, privateKey: key }
}

describe('a CA whose key is elsewhere', () => {
  it.each([
    ['P-256', generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey],
    ['RSA', generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey],
  ])('of %s signs itself and devices, and both verify', async (_, privateKey) => {
    const ca = await authority(privateKey)
    const root = new X509Certificate(ca.certificate)
    expect(root.ca && root.verify(root.publicKey)).toBe(true)
    const machine = await startMachine({ issuer: createLocalIssuer(ca) })
    for (let round = 0; round < 20; round += 1) {
      const device = await machine.addDevice()
      const [pem] = (await machine.enroll(device)).reply.certificateChain
      const certificate = new X509Certificate(pem!)
      expect(certificate.verify(root.publicKey) && certificate.checkIssued(root)).toBe(true)
      expect(certificate.subject).toBe(`CN=${device.deviceSerial}`)
    }
  })

  it.each([
    ['P-256', generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey],
    ['RSA', generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey],
  ])(
    'of %s that answers with no signature of its own has signed nothing',
    async (_, privateKey) => {
      const { certificate } = await authority(privateKey)
      const key = elsewhere(privateKey)
      const answers: ((data: Buffer) => Promise<Buffer>)[] = [
        async () => Buffer.alloc(0),
        async (data) => (await key.sign(data)).subarray(1),
        async () => key.sign(Buffer.from('something else')),
        async (data) => sign('sha512', data, privateKey),
      ]
      const signs = async (data: Buffer) => (answers.shift() ?? key.sign)(data)
      const ca = { certificate, privateKey: { ...key, sign: signs } }
      const machine = await startMachine({ issuer: createLocalIssuer(ca) })
      const device = await machine.addDevice()
      for (let remaining = answers.length; remaining > 0; remaining -= 1) {
        expect((await machine.enroll(device)).status).toBe(500)
        expect(await machine.registry.certificates(device.deviceSerial)).toEqual([])
      }
      expect((await machine.enroll(device)).status).toBe(200)
    },
  )
})

describe('what AWS IoT is told', () => {
  it('lets a device be its own thing and nothing else', () => {
    const place = { partition: 'aws', region: 'eu-west-1', account: '123456789012' }
    const text = JSON.stringify(sharedPolicy(place))
    expect(text).not.toMatch(/iot:\*|"\*"|AssumeRole/)
    const { Statement: statements } = sharedPolicy(place, 'backup') as {
      Statement: { Action: string | string[]; Resource: string[] }[]
    }
    expect(statements.flatMap(({ Action }) => Action)).toEqual([
      'iot:Connect',
      'iot:Publish',
      'iot:Receive',
      'iot:RetainPublish',
      'iot:Subscribe',
      'iot:AssumeRoleWithCertificate',
    ])
    for (const { Action, Resource } of statements)
      for (const resource of Resource)
        expect(resource).toMatch(
          Action === 'iot:AssumeRoleWithCertificate'
            ? /^arn:aws:iot:eu-west-1:123456789012:rolealias\/backup$/
            : /^arn:aws:iot:eu-west-1:123456789012:(client|topic|topicfilter)\/.*\$\{iot:Connection\.Thing\.ThingName\}/,
        )
    // AWS IoT's limit, without white space.
    expect(text.length).toBeLessThan(2048)
  })

  it('sends devices to two roots that Node carries', () => {
    expect(amazonTrustAnchors().map((pem) => new X509Certificate(pem).subject)).toEqual([
      'C=US\nO=Amazon\nCN=Amazon Root CA 1',
      'C=US\nO=Amazon\nCN=Amazon Root CA 3',
    ])
  })
})

describe('where devices connect', () => {
  const iot = (endpointAddress: string) => {
    const asked: string[] = []
    const call = async (name: string) => {
      asked.push(name)
      if (asked.length === 1 && endpointAddress === 'fails once') throw new Error('down')
      return { endpointAddress }
    }
    return { asked, iot: { call, close: () => undefined } as never }
  }

  it('is asked of AWS once, when it is needed', async () => {
    const { asked, iot: opened } = iot('abc-ats.iot.eu-west-1.amazonaws.com')
    const endpoint = createIotEndpoint(opened)
    expect(asked).toEqual([])
    const told = await Promise.all([endpoint(), endpoint()])
    expect(told[0]).toMatchObject({ host: 'abc-ats.iot.eu-west-1.amazonaws.com', port: 8883 })
    expect(told[0].alpn).toBeUndefined()
    expect(asked).toEqual(['DescribeEndpoint'])
  })

  it('is asked again if AWS did not answer', async () => {
    const endpoint = createIotEndpoint(iot('fails once').iot)
    await expect(endpoint()).rejects.toThrow('down')
    expect((await endpoint()).host).toBe('fails once')
  })

  it('needs a word more on port 443', async () => {
    const on443 = await createIotEndpoint(iot('host').iot, { port: 443 })()
    expect(on443).toMatchObject({ port: 443, alpn: 'x-amzn-mqtt-ca' })
  })
})

describe('just-in-time registration', () => {
  it('gives the CA along with the certificate, and asks AWS for nothing', async () => {
    const ca = await makeDeviceCa(clock)
    const iot = {
      call: () => Promise.reject(new Error('AWS was called')),
      close: () => undefined,
    }
    const issuer = createOwnCaIssuer({ iot, ca, registration: 'just-in-time' })
    const machine = await startMachine({ issuer })
    const answer = await machine.enroll(await machine.addDevice())
    expect(answer.status).toBe(200)
    expect(answer.reply.certificateChain).toHaveLength(2)
    expect(answer.reply.certificateChain[1]).toBe(ca.certificate)
  })
})
