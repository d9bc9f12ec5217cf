/** Certification requests, read here and by `@peculiar/x509`; and as no library would write them. */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  type CertificationRequest,
  readCertificationRequest,
} from '../src/certification-request.ts'
import { content, sequence, tlv } from '../src/der.ts'
import { judgeRequest } from '../src/policy.ts'
import * as x509 from '../src/x509.ts'
import { type KeyName, makeDeviceKey } from './device.ts'

const opensslMissing =
  spawnSync('openssl', ['version']).status === 0 ? undefined : 'openssl is not installed'

const seed = process.env.CERTVEND_SEED ?? '1'
const derOf = (pem: string) => Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64')
const pemOf = (der: Buffer) =>
  `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`

/** What was read, or the error. Anything but a refusal by RangeError fails. */
function read(der: Buffer): ReturnType<typeof readByLibrary> {
  try {
    const { signed: _, algorithm: __, ...rest } = readCertificationRequest(der)
    return rest
  } catch (error) {
    expect(error).toBeInstanceOf(RangeError)
    return undefined
  }
}

function readByLibrary(
  der: Buffer,
): Omit<CertificationRequest, 'signed' | 'algorithm'> | undefined {
  try {
    const csr = new x509.Pkcs10CertificateRequest(der)
    return {
      signature: Buffer.from(csr.signature),
      publicKeyInfo: Buffer.from(csr.publicKey.rawData),
      commonNames: csr.subjectName.getField('CN'),
      asksToBeCa: csr.extensions.some(
        (extension) => extension instanceof x509.BasicConstraintsExtension && extension.ca,
      ),
    }
  } catch {
    return undefined
  }
}

/** What a judgement is about, or undefined if OpenSSL does not take the key. */
function judged(request: ReturnType<typeof readByLibrary>) {
  if (!request) return undefined
  const { commonNames, publicKeyInfo, ...rest } = request
  try {
    const key = createPublicKey({ key: publicKeyInfo, format: 'der', type: 'spki' })
    // A name that is no text is told as one thing here and as another there.
    const isNamed = commonNames.length === 1 && commonNames[0] === 'SN-1'
    return { ...rest, isNamed, key: key.export({ format: 'jwk' }) }
  } catch {
    return undefined
  }
}

const subjects: Parameters<Awaited<ReturnType<typeof makeDeviceKey>>['csr']>[0][] = [
  'SN-1',
  [],
  [{ C: ['DE'] }, { O: ['Größe & Söhne'], OU: ['部品'] }, { CN: ['SN-1'] }],
  [{ CN: ['a', 'b'] }, { CN: ['c'] }, { E: ['a@example.com'] }],
]
const wishes = [
  [],
  [new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: 'bank.example' }])],
  [
    new x509.BasicConstraintsExtension(false),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.cRLSign, true),
  ],
  [new x509.ExtendedKeyUsageExtension(['1.2.3']), new x509.BasicConstraintsExtension(true, 3)],
]

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const spki = publicKey.export({ type: 'spki', format: 'der' })
/** The curve's base point: a key that is the same in every run. */
const spkiOfBasePoint = Buffer.from(
  '3059301306072a8648ce3d020106082a8648ce3d03010703420004' +
    '6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296' +
    '4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5',
  'hex',
)
const hex = (text: string) => Buffer.from(text, 'hex')
const type = (text: string) => tlv(0x06, hex(text))
const ecdsaWithSha256 = sequence(type('2a8648ce3d040302'))
const commonName = (tag: number, octets: Buffer) =>
  tlv(0x31, sequence(type('550403'), tlv(tag, octets)))
const plainName = commonName(0x0c, Buffer.from('SN-1'))
const extensionRequest = (...extensions: Buffer[]) =>
  sequence(type('2a864886f70d01090e'), tlv(0x31, sequence(...extensions)))
const basicConstraints = (value: string) => sequence(type('551d13'), tlv(0x04, hex(value)))
const keyUsage = sequence(type('551d0f'), tlv(0x04, hex('030204f0')))

/** Signed by `privateKey`, unless it is given another signature. */
function handMade({
  name = sequence(plainName),
  key = spki,
  attributes = [tlv(0xa0)],
  behind = Buffer.alloc(0),
  signature,
}: {
  name?: Buffer
  key?: Buffer
  attributes?: Buffer[]
  behind?: Buffer
  signature?: Buffer
} = {}): string {
  const signed = sequence(hex('020100'), name, key, ...attributes)
  const made = signature ?? sign('sha256', signed, privateKey)
  return pemOf(
    Buffer.concat([sequence(signed, ecdsaWithSha256, tlv(0x03, hex('00'), made)), behind]),
  )
}

describe('a certification request', () => {
  it.each(['P-256', 'P-384', 'RSA-2048', 'Ed25519'] as KeyName[])(
    'by a %s key says here what it says to @peculiar/x509',
    async (kind) => {
      const key = await makeDeviceKey(kind)
      for (const subject of subjects)
        for (const wish of wishes) {
          const der = derOf(await key.csr(subject, wish))
          const { algorithm, signed: _, ...ours } = readCertificationRequest(der)
          expect(ours).toEqual(readByLibrary(der))
          expect(algorithm).toMatch(/^2[ab]/)
        }
    },
  )

  it(`that was damaged is refused, or says the same to both (seed ${seed})`, () => {
    const whole = derOf(
      handMade({
        name: sequence(commonName(0x13, Buffer.from('DE')), tlv(0x31), plainName),
        key: spkiOfBasePoint,
        attributes: [tlv(0xa0, extensionRequest(keyUsage, basicConstraints('30060101ff020103')))],
        signature: Buffer.alloc(70, 7),
      }),
    )
    let [both, neither] = [0, 0]
    for (let round = 0; round < 1000; round += 1) {
      const draw = createHash('sha256').update(`${seed} ${round}`).digest()
      const at = draw.readUInt32BE(0) % whole.length
      const [before, after] = [whole.subarray(0, at), whole.subarray(at)]
      const damaged = [
        Buffer.concat([before, draw.subarray(8, 9), after.subarray(1)]),
        Buffer.concat([before, draw.subarray(8, 9), after]),
        Buffer.concat([before, after.subarray(1)]),
        before,
      ][draw[4]! % 4]!
      const [ours, theirs] = [judged(read(damaged)), judged(readByLibrary(damaged))]
      if (!ours) neither += 1
      if (!ours || !theirs) continue
      both += 1
      expect(ours, `round ${round}`).toEqual(theirs)
    }
    expect([both > 50, neither > 300]).toEqual([true, true])
  })
})

describe('a certification request as OpenSSL writes it', () => {
  it.skipIf(opensslMissing)(`is accepted, whatever else it holds ${opensslMissing ?? ''}`, () => {
    const subject = '/C=DE/O=Größe \\+ Söhne/OU=部品+L=Köln/CN=SN-1'
    const made = (algorithm: string, ...options: string[]) =>
      execFileSync(
        'openssl',
        [
          ...['req', '-new', '-newkey', algorithm, '-nodes', '-keyout', '/dev/null', '-utf8'],
          ...['-subj', subject, '-multivalue-rdn', '-addext', 'subjectAltName=DNS:bank.example'],
          ...['-addext', 'basicConstraints=CA:FALSE', ...options],
        ],
        { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
      )
    for (const csr of [
      made('ed25519'),
      made('rsa:2048', '-sha384'),
      made('ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-sha512'),
      made('ec', '-pkeyopt', 'ec_paramgen_curve:P-384', '-addext', 'keyUsage=critical,keyCertSign'),
    ])
      expect(verdict(csr)).toBe('accepted')
  })
})

const verdict = (pem: string): string => {
  const judged = judgeRequest(pem, 'SN-1')
  return judged.ok ? 'accepted' : judged.reason
}

describe('a certification request that no library wrote', () => {
  it('is accepted with its name in any kind of string, and without attributes', () => {
    expect(verdict(handMade({ attributes: [] }))).toBe('accepted')
    for (const tag of [0x0c, 0x13, 0x14, 0x16])
      expect(
        verdict(handMade({ name: sequence(commonName(tag, Buffer.from('SN-1'))) })),
        `${tag}`,
      ).toBe('accepted')
    const wide = Buffer.from('SN-1', 'utf16le').swap16()
    expect(verdict(handMade({ name: sequence(commonName(0x1e, wide)) }))).toBe('accepted')
  })

  it('is refused with a name that only looks like the serial', () => {
    for (const name of [
      sequence(commonName(0x04, Buffer.from('SN-1'))),
      sequence(commonName(0x0c, Buffer.from('SN-1\0'))),
      sequence(commonName(0x0c, Buffer.from([0xef, 0xbb, 0xbf, 0x53, 0x4e, 0x2d, 0x31]))),
      sequence(commonName(0x1e, Buffer.from('SN-1'))),
      sequence(commonName(0x1e, Buffer.from('SN-'))),
      sequence(tlv(0x31, sequence(type('550403')))),
      sequence(tlv(0x31, sequence(tlv(0x0c, Buffer.from('SN-1'))))),
      sequence(plainName, tlv(0x31, sequence(type('55040a'), tlv(0x0c)), content(plainName))),
      plainName,
    ])
      expect(verdict(handMade({ name })), name.toString('hex')).toMatch(/one CN|not PKCS#10/)
  })

  it('is refused when it asks for a CA certificate, wherever it does', () => {
    const asks = basicConstraints('30030101ff')
    for (const attributes of [
      [extensionRequest(asks)],
      [extensionRequest(keyUsage, basicConstraints('3006010101020100'))],
      [extensionRequest(keyUsage), extensionRequest(asks)],
      [sequence(type('2a864886f70d01090e'), tlv(0x31, sequence(keyUsage), sequence(asks)))],
      [extensionRequest(sequence(type('551d13'), hex('0101ff'), tlv(0x04, hex('30030101ff'))))],
    ])
      expect(verdict(handMade({ attributes: [tlv(0xa0, ...attributes)] }))).toBe(
        'the certification request asks for a CA certificate',
      )
    const asksNot = [extensionRequest(basicConstraints('3000'), basicConstraints('3003010100'))]
    expect(verdict(handMade({ attributes: [tlv(0xa0, ...asksNot)] }))).toBe('accepted')
  })

  it('is refused when that cannot be read, or anything stands where nothing belongs', () => {
    const broken = ['', '30', '3001', '0101ff', '040101', '30800000'].map((value) =>
      tlv(0xa0, extensionRequest(basicConstraints(value))),
    )
    for (const attributes of [
      ...broken.slice(0, 3),
      ...broken.slice(4),
      tlv(0xa0, extensionRequest(sequence(type('551d13')))),
      tlv(0xa0, sequence(type('2a864886f70d01090e'))),
      tlv(0xa0, tlv(0x31)),
      hex('a00130'),
    ])
      expect(verdict(handMade({ attributes: [attributes] })), attributes.toString('hex')).toMatch(
        /not PKCS#10/,
      )
    for (const behind of [hex('00'), hex('3000')])
      expect(verdict(handMade({ behind }))).toMatch(/not PKCS#10/)
  })

  it('names one key by one hash, however the key is encoded', () => {
    const point = spki.subarray(-64)
    const compressed = Buffer.concat([hex(point[63]! & 1 ? '03' : '02'), point.subarray(0, 32)])
    const algorithm = sequence(type('2a8648ce3d0201'), type('2a8648ce3d030107'))
    const other = sequence(algorithm, tlv(0x03, hex('00'), compressed))
    const [usual, short] = [spki, other].map((key) => judgeRequest(handMade({ key }), 'SN-1'))
    if (!usual?.ok || !short?.ok) throw new Error('refused')
    expect(usual.request.publicKeyInfo).toEqual(spki)
    expect(short.request).toMatchObject({
      publicKeyInfo: spki,
      publicKey: usual.request.publicKey,
    })
    const offTheCurve = Buffer.concat([spki.subarray(0, -1), Buffer.from([point[63]! ^ 1])])
    expect(verdict(handMade({ key: offTheCurve }))).toMatch(/not PKCS#10/)
  })
})
