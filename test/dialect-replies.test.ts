/** What comes back in an old dialect: accepted in every dress that the field knows, refused in any other. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { CertvendError, type Credential, createEndpoint } from '@certvend/client'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bent, parts, successOf } from './contracts/answers.ts'
import { machines, oldDialects } from './contracts/machines.ts'
import { deviceCa, enter, mqttCa, sendOver } from './contracts/reference.ts'
import { makeWorld } from './contracts/world.ts'
import {
  attempt,
  deviceSerial,
  openStore,
  refusalOf,
  type Saying,
  saying,
} from './dialect-attempt.ts'
import { certify } from './pki.ts'

const json = (body: unknown): Saying => ({ body: JSON.stringify(body) })
const crlf = (pem: string): string => pem.replaceAll('\n', '\r\n')
const pkcs8 = (pem: string): string =>
  createPrivateKey(pem).export({ type: 'pkcs8', format: 'pem' }).toString()
const another = await certify('AWS IoT Certificate', { issuer: deviceCa })
const authority = await certify('AWS IoT Certificate', { issuer: deviceCa, ca: true })
const ended = await certify('AWS IoT Certificate', {
  issuer: deviceCa,
  notAfter: new Date('2027-01-01T00:00:00Z'),
})

describe.each(oldDialects)('%s', (dialect) => {
  const { certificate, key } = parts[dialect]
  const honest = successOf(dialect, deviceSerial)

  describe('takes', () => {
    const taken = async (what: Saying): Promise<Credential> => {
      const store = await openStore()
      const credential = (await attempt(store, dialect, saying(what))) as Credential
      expect(credential, String(credential)).toEqual(store.current())
      expect(store.pending()).toBeUndefined()
      const { publicKey } = new X509Certificate(credential.certificateChain)
      expect(credential.privateKey.publicKey.equals(publicKey)).toBe(true)
      return credential
    }
    const dresses: [string, (pem: string) => string][] = [
      ['carriage returns', crlf],
      ['a byte order mark', (pem) => `\uFEFF${pem}`],
      ['escaped line breaks', (pem) => pem.replaceAll('\n', '\\n')],
      ['escaped carriage returns and line breaks', (pem) => crlf(pem).replaceAll('\r\n', '\\r\\n')],
      ['no line break at its end', (pem) => pem.trimEnd()],
      ['blanks at the ends of its lines', (pem) => pem.replaceAll('\n', ' \n')],
    ]

    it.each(dresses)('a certificate and a key with %s', async (_, dress) => {
      const { body } = await honest
      await taken(json(bent(bent(body, certificate, dress), key, dress)))
    })

    it('a key in PKCS#8, and stores it so', async () => {
      const { body } = await honest
      const credential = await taken(json(bent(body, key, pkcs8)))
      expect(credential.privateKey.toPem()).toMatch(/^-----BEGIN PRIVATE KEY-----\n/)
    })

    it('an RSA key in PKCS#1, as AWS makes them', async () => {
      const { body } = await successOf(dialect, deviceSerial, { keys: 'RSA' })
      const credential = await taken(json(body))
      expect(credential.privateKey.publicKey.asymmetricKeyType).toBe('rsa')
    })

    it('a whole reply with a byte order mark, with the wrong media type, and with status 500', async () => {
      const { text } = await honest
      await taken({ body: `\uFEFF${text}` })
      await taken({ body: text, type: 'text/plain' })
      await taken({ body: text, status: 500 })
    })

    it('members that nobody knows, and none of the root CA that is served', async () => {
      const { body } = await honest
      const credential = await taken(json({ ...body, surprise: { RootCA: 'MALLORY' } }))
      expect(JSON.stringify(credential.endpoint)).not.toContain('VGhpcyBpcyBub3Q')
    })

    it('a certificate that is not valid yet by a slow clock: it would not be had again', async () => {
      const soon = new Date('2027-03-01T13:00:00Z')
      const { body } = await successOf(dialect, deviceSerial, { keys: 'EC', notBefore: soon })
      const store = await openStore()
      const outcome = await attempt(store, dialect, saying(json(body)))
      // express-2017 may simply be asked again.
      if (dialect === 'express-2017') expect(outcome).toMatchObject({ code: 'ERR_CLOCK' })
      else expect(store.current()).toMatchObject({ notBefore: soon })
    })
  })

  describe('refuses as malformed', () => {
    const cases: [string, (text: string, body: unknown) => Saying][] = [
      [
        'the page of a captive portal with 200',
        () => ({ type: 'text/html', body: '<!doctype html><title>Welcome</title>' }),
      ],
      ['such a page that claims to be JSON', () => ({ body: '<html>Sign in</html>' })],
      ['nothing', () => ({ body: '' })],
      ['an empty object', () => json({})],
      ['an array', () => json([])],
      ['a number', () => json(7)],
      ['its success inside a JSON string', (text) => json(text)],
      ['its success inside an array', (_, body) => json([body])],
      ['a word that nobody knows', () => json('Access Granted!')],
      ...(dialect.startsWith('awslabs')
        ? []
        : ([['null', () => ({ body: 'null' })]] as [string, () => Saying][])),
      ['a word of another machine', () => ({ type: 'text/plain', body: 'Access Granted' })],
      ['a redirect', () => ({ status: 302, body: '', headers: { location: 'https://elsewhere' } })],
      ['bytes that are not UTF-8', () => ({ body: Buffer.from([0x7b, 0xff, 0xfe, 0x7d]) })],
      [
        'a key that comes twice',
        (text) => ({ body: text.replace(/"(\w+)":/, '"$1":"MALLORY","$1":') }),
      ],
      [
        'a key that comes twice, once escaped',
        (text) => ({
          body: text.replace(/"(\w)(\w*)":/, (_, first: string, rest: string) => {
            const escaped = `\\u${first.charCodeAt(0).toString(16).padStart(4, '0')}`
            return `"${first}${rest}":"MALLORY","${escaped}${rest}":`
          }),
        }),
      ],
      ['no certificate', (_, body) => json(bent(body, certificate, () => undefined))],
      ['no key', (_, body) => json(bent(body, key, () => undefined))],
      ['a certificate that is null', (_, body) => json(bent(body, certificate, () => null))],
      ['a key that is a number', (_, body) => json(bent(body, key, () => 7))],
      [
        'two certificates',
        (_, body) => json(bent(body, certificate, (pem) => pem + another.certificate)),
      ],
      ['two keys', (_, body) => json(bent(body, key, (pem) => pem + another.privateKey))],
      [
        'a key where the certificate belongs',
        (_, body) => json(bent(body, certificate, () => another.privateKey)),
      ],
      [
        'a certificate where the key belongs',
        (_, body) => json(bent(body, key, () => another.certificate)),
      ],
      [
        'an encrypted key',
        (_, body) =>
          json(
            bent(body, key, (pem) =>
              createPrivateKey(pem)
                .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' })
                .toString(),
            ),
          ),
      ],
      [
        'a certificate that is no DER',
        (_, body) =>
          json(bent(body, certificate, (pem) => pem.replace(/MII[A-Za-z0-9+/]{8}/, 'MIIAAAAAAAA'))),
      ],
      [
        'a key that is no DER',
        (_, body) =>
          json(bent(body, key, (pem) => pem.replace(/\nM[A-Za-z0-9+/]{8}/, '\nMAAAAAAAA'))),
      ],
    ]
    it.each(cases)('%s', async (_, make) => {
      const { text, body } = await honest
      const error = await refusalOf(dialect, make(text, body))
      expect(error.code).toBe('ERR_REPLY_MALFORMED')
      const once = !['awslabs-2020', 'express-2017'].includes(dialect)
      expect(error.remedy).toBe(once ? 'operator' : 'retry')
      if (once) expect(error.hint).toMatch(new RegExp(`${deviceSerial}.*certvend enroll --again`))
    })

    it('with its first bytes, and none of a key', async () => {
      const { body } = await honest
      const { text } = await honest
      const error = await refusalOf(dialect, { body: text.slice(0, -1) })
      expect(error.message).toContain(`${text.length - 1} bytes: {`)
      const [, secret = ''] = String(key.reduce((at, name) => at[name], body)).split('\n')
      expect(error.message).not.toContain(secret.slice(0, 16))
      const bare = await refusalOf(dialect, { body: `{"k":"${secret}` })
      expect(bare.message).not.toContain(secret.slice(0, 16))
    })
  })

  describe('refuses as not fitting', () => {
    const cases: [string, (body: unknown) => unknown][] = [
      ['a key of another certificate', (body) => bent(body, key, () => another.privateKey)],
      [
        'a certificate of another key',
        (body) => bent(body, certificate, () => another.certificate),
      ],
      [
        'a CA certificate',
        (body) =>
          bent(
            bent(body, certificate, () => authority.certificate),
            key,
            () => authority.privateKey,
          ),
      ],
      [
        'a certificate that has ended',
        (body) =>
          bent(
            bent(body, certificate, () => ended.certificate),
            key,
            () => ended.privateKey,
          ),
      ],
      ...(dialect.startsWith('awslabs')
        ? [
            [
              'a certificateId that is not the SHA-256 of the certificate',
              (body) => ({ ...(body as object), certificateId: '0'.repeat(64) }),
            ] as [string, (body: unknown) => unknown],
          ]
        : []),
      ...(dialect === 'iot-atlas'
        ? [
            [
              'a thing name that is no legal one',
              (body) => bent(body, ['payload', 'thing_name'], () => 'thing/../#'),
            ] as [string, (body: unknown) => unknown],
          ]
        : []),
    ]
    it.each(cases)('%s', async (_, bend) => {
      const { body } = await honest
      const error = await refusalOf(dialect, json(bend(body)))
      expect(error).toMatchObject({ code: 'ERR_CERTIFICATE_MISMATCH', remedy: 'operator' })
    })
  })

  it.each(oldDialects.filter((other) => other !== dialect))(
    'is not satisfied with the success of %s, unless the two share it',
    async (other) => {
      const { text } = await successOf(other, deviceSerial)
      const shared = dialect.startsWith('awslabs') && other.startsWith('awslabs')
      if (shared) {
        const store = await openStore()
        expect(await attempt(store, dialect, saying({ body: text }))).toEqual(store.current())
      } else {
        const error = await refusalOf(dialect, { body: text })
        expect(error.code).toBe('ERR_REPLY_MALFORMED')
      }
    },
  )

  it.each(oldDialects.filter((other) => other !== dialect))(
    'asked of a machine that speaks %s gets a typed error, or what the two share',
    async (other) => {
      const world = makeWorld({ deviceCa, keys: 'EC' })
      enter(world, other, deviceSerial)
      const store = await openStore()
      const outcome = await attempt(store, dialect, sendOver(machines[other](world)))
      if (dialect.startsWith('awslabs') && other.startsWith('awslabs'))
        return expect(outcome).toEqual(store.current())
      expect((outcome as CertvendError).code).toMatch(
        /^ERR_(REPLY_MALFORMED|REPLY_LOST|REQUEST_REFUSED|CLAIM_REFUSED)$/,
      )
      expect(store.current()).toBeUndefined()
      expect(world.certificates.size).toBe(0)
    },
  )

  it('cut at any byte is a typed error and never a credential', async () => {
    const { text } = await honest
    const store = await openStore()
    for (let at = 0; at < text.length; at++) {
      const cut = saying({ body: text.slice(0, at) })
      // A person says each time that it may be asked again; and a clock that is past the last request.
      const later = new Date(Date.UTC(2027, 2, 1) + at * 3_600_000)
      const clock = { now: () => later, wait: () => Promise.reject(new Error('no')) }
      const error = (await attempt(store, dialect, cut, { again: true, clock })) as CertvendError
      expect(error, `cut at ${at}`).toBeInstanceOf(CertvendError)
      expect(error.code, `cut at ${at}`).toBe('ERR_REPLY_MALFORMED')
      expect(store.current()).toBeUndefined()
    }
    expect(store.pending()?.generation).toBe(1)
  }, 120_000)

  it('with any byte changed is a typed error or a credential that fits, never another', async () => {
    const { text } = await honest
    const store = await openStore()
    let hours = 0
    await fc.assert(
      fc.asyncProperty(
        fc.nat(text.length - 1),
        fc.integer({ min: 0x20, max: 0x7e }),
        async (at, byte) => {
          const changed = text.slice(0, at) + String.fromCharCode(byte) + text.slice(at + 1)
          hours++
          const later = new Date(Date.UTC(2027, 2, 1) + hours * 3_600_000)
          const clock = { now: () => later, wait: () => Promise.reject(new Error('no')) }
          const outcome = await attempt(store, dialect, saying({ body: changed }), {
            again: true,
            clock,
          })
          if (outcome instanceof CertvendError) return
          const { publicKey } = new X509Certificate(outcome.certificateChain)
          expect(outcome.privateKey.publicKey.equals(publicKey)).toBe(true)
          if (store.pending()) store.discard()
        },
      ),
      { numRuns: 100 },
    )
  }, 120_000)
})

describe('iot-atlas', () => {
  it("takes the endpoint that is served, with Amazon's anchors and never the served root", async () => {
    const { body } = await successOf('iot-atlas', deviceSerial)
    const store = await openStore()
    await attempt(store, 'iot-atlas', saying(json(body)))
    const { endpoint, thingName } = store.current() as Credential
    expect(thingName).toBe(`thing_${deviceSerial}`)
    expect(endpoint).toMatchObject({ host: body.payload.endpoint, port: 8883 })
    expect(endpoint.trustAnchors.map((one) => new X509Certificate(one).subject)).toEqual([
      'C=US\nO=Amazon\nCN=Amazon Root CA 1',
      'C=US\nO=Amazon\nCN=Amazon Root CA 3',
    ])
  })

  it.each(['', 'a host', 'https://a.example', 'a.example/x'])(
    'refuses %j as an endpoint',
    async (host) => {
      const { body } = await successOf('iot-atlas', deviceSerial)
      const error = await refusalOf(
        'iot-atlas',
        json(bent(body, ['payload', 'endpoint'], () => host)),
      )
      expect(error.code).toBe('ERR_REPLY_MALFORMED')
    },
  )
})

describe('a dialect that names no endpoint', () => {
  it('gets the configured one, with the configured anchors', async () => {
    const { body } = await successOf('awslabs-2020', deviceSerial)
    const store = await openStore()
    await attempt(store, 'awslabs-2020', saying(json(body)))
    expect(store.current()?.endpoint).toEqual(
      createEndpoint('mqtt.example:8883', mqttCa.certificate),
    )
  })
})
