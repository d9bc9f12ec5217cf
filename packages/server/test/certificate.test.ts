/** What is encoded here, beside what `@peculiar/x509` and OpenSSL make of the same. */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash, generateKeyPairSync, KeyObject, webcrypto, X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  certificatePem,
  type Draft,
  prepareSelfSigner,
  prepareSigner,
  type SigningAuthority,
  signCertificate,
} from '../src/certificate.ts'
import { content, elements, tlv } from '../src/der.ts'
import { createLocalIssuer } from '../src/issuer/local.ts'
import * as x509 from '../src/x509.ts'

const opensslMissing =
  spawnSync('openssl', ['version']).status === 0 ? undefined : 'openssl is not installed'

const ec = (namedCurve: string) => ({ name: 'ECDSA', namedCurve, hash: 'SHA-256' })
const rsa = {
  name: 'RSASSA-PKCS1-v1_5',
  modulusLength: 2048,
  publicExponent: new Uint8Array([1, 0, 1]),
  hash: 'SHA-256',
}

/** A CA as others make them. */
interface Kind {
  readonly algorithm: typeof rsa | ReturnType<typeof ec>
  readonly name: ConstructorParameters<typeof x509.Name>[0]
  readonly identifier: 'sha1' | 'own' | 'none'
}

const kinds: readonly (Kind & { readonly of: string })[] = [
  { of: 'P-256', algorithm: ec('P-256'), name: 'CN=Device CA', identifier: 'sha1' },
  { of: 'RSA', algorithm: rsa, name: 'CN=Device CA', identifier: 'sha1' },
  {
    of: 'P-384 and with a long name',
    algorithm: ec('P-384'),
    name: [
      { C: ['DE'] },
      { O: ['Größe & Söhne'], OU: [{ bmpString: '部品' }, { printableString: 'Parts' }] },
      { DC: ['example'] },
      { CN: [{ utf8String: 'printable, and UTF-8 all the same' }] },
    ],
    identifier: 'sha1',
  },
  {
    of: 'P-256 and with a key identifier that is no hash',
    algorithm: ec('P-256'),
    name: 'O=Acme, CN=CA',
    identifier: 'own',
  },
  {
    of: 'P-256 and without a key identifier',
    algorithm: ec('P-256'),
    name: 'CN=Plain',
    identifier: 'none',
  },
]

async function makeForeignCa({ algorithm, name, identifier }: Kind) {
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair
  const hash = await x509.SubjectKeyIdentifierExtension.create(keys.publicKey)
  const keyId = identifier === 'own' ? '0102030405' : hash.keyId
  const parsed = await x509.X509CertificateGenerator.createSelfSigned({
    name,
    keys,
    signingAlgorithm: algorithm,
    serialNumber: '01',
    notBefore: new Date('2020-01-01T00:00:00Z'),
    notAfter: new Date('9999-12-31T23:59:59Z'),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      ...(identifier === 'none' ? [] : [new x509.SubjectKeyIdentifierExtension(keyId)]),
      ...(identifier === 'none' ? [] : [new x509.AuthorityKeyIdentifierExtension(keyId)]),
    ],
  })
  const privateKey = KeyObject.from(keys.privateKey)
  return { certificate: parsed.toString('pem'), privateKey, parsed, keys, keyId, algorithm }
}

const publicKeys: Readonly<Record<string, Buffer>> = Object.fromEntries(
  Object.entries({
    'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    'P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    RSA: generateKeyPairSync('rsa', { modulusLength: 3072 }),
    Ed25519: generateKeyPairSync('ed25519'),
  }).map(([kind, { publicKey }]) => [kind, publicKey.export({ type: 'spki', format: 'der' })]),
)

const extensions = [
  new x509.BasicConstraintsExtension(false, undefined, true),
  new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
  new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
]

/** The same numbers for the same seed. */
function seeded(seed: string) {
  let drawn = 0
  const octets = () => createHash('sha512').update(`${seed} ${drawn++}`).digest()
  const below = (bound: number) => octets().readUIntBE(0, 6) % bound
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]!
  return { octets, below, pick }
}

const edges = ['1970-01-01T00:00:00Z', '2049-12-31T23:59:59.999Z', '2050-01-01T00:00:00Z']
// Not the four that `@peculiar/x509` reads as an escape or a quotation.
const alphabets = [
  [..."abcXYZ019 '()+,-./:=?"],
  [...'abc:._-@*!&;<>~'],
  [...'aß東🔑\u0301\u200f\n\u0000'],
]

function draw(seed: string): Draft {
  const { octets, below, pick } = seeded(seed)
  const instant = () =>
    below(3) === 0 ? new Date(pick(edges)) : new Date(below(Date.UTC(9999, 11, 31)))
  const alphabet = pick(alphabets)
  return {
    subject: Array.from({ length: 1 + below(64) }, () => pick(alphabet)).join(''),
    publicKeyInfo: publicKeys[pick(Object.keys(publicKeys))]!,
    certificateSerial: `${pick(['', '00', '0000', '7f', '80', 'ff'])}${octets().toString('hex', 0, 1 + below(16))}`,
    notBefore: instant(),
    notAfter: instant(),
    extensions: pick([extensions, extensions.slice(0, 1)]),
  }
}

type ForeignCa = Awaited<ReturnType<typeof makeForeignCa>>

async function reference(ca: ForeignCa, draft: Draft): Promise<Buffer> {
  const publicKey = new x509.PublicKey(draft.publicKeyInfo)
  const made = await x509.X509CertificateGenerator.create({
    serialNumber: draft.certificateSerial!,
    subject: new x509.Name([{ CN: [draft.subject] }]),
    issuer: ca.parsed.subjectName,
    notBefore: draft.notBefore,
    notAfter: draft.notAfter,
    publicKey,
    signingAlgorithm: ca.algorithm,
    signingKey: ca.keys.privateKey,
    extensions: [
      ...(draft.extensions as x509.Extension[]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      new x509.AuthorityKeyIdentifierExtension(ca.keyId),
    ],
  })
  return Buffer.from(made.rawData)
}

const seed = process.env.CERTVEND_SEED ?? '1'

describe('a certificate', () => {
  it.each(kinds)(`by a CA of $of is the one of @peculiar/x509 (seed ${seed})`, async (kind) => {
    const ca = await makeForeignCa(kind)
    const signer = prepareSigner(ca)
    const isRsa = ca.algorithm === rsa // whose signatures are the same each time
    for (let round = 0; round < 25; round += 1) {
      const draft = draw(`${seed} ${kind.of} ${round}`)
      const said = JSON.stringify({ ...draft, round, publicKeyInfo: undefined })
      const ours = await signCertificate(signer, draft)
      const theirs = await reference(ca, draft)
      const [signed, algorithm, signature] = elements(ours)
      const [expected, expectedAlgorithm, expectedSignature] = elements(theirs)
      expect(signed!.toString('hex'), said).toBe(expected!.toString('hex'))
      expect(algorithm).toEqual(expectedAlgorithm)
      if (isRsa) expect(signature).toEqual(expectedSignature)
      const { publicKey } = new X509Certificate(ca.certificate)
      expect(new X509Certificate(ours).verify(publicKey), said).toBe(true)
      expect(certificatePem(ours)).toBe(`${new x509.X509Certificate(ours).toString('pem')}\n`)
    }
  })

  it('has the name that it was given, whatever that looks like', async () => {
    const ca = await makeForeignCa(kinds[0]!)
    for (const subject of ['#0500', 'a"b"c', 'back\\slash', 'CN=x, O=y']) {
      const der = await signCertificate(prepareSigner(ca), { ...draw('name'), subject })
      const { subjectName } = new x509.X509Certificate(der)
      expect(subjectName.getField('CN')).toEqual([subject])
    }
  })

  it('that would last beyond the year 9999, or begin at no time, is refused', async () => {
    const signer = prepareSigner(await makeForeignCa(kinds[0]!))
    for (const date of [new Date(Date.UTC(10_000, 0, 1)), new Date(Number.NaN)])
      for (const end of ['notBefore', 'notAfter'])
        await expect(signCertificate(signer, { ...draw('end'), [end]: date })).rejects.toThrow(
          RangeError,
        )
  })

  it.skipIf(opensslMissing)(
    `for each kind of key, by each kind of CA, satisfies OpenSSL's strictest ${opensslMissing ?? ''}`,
    async () => {
      const directory = mkdtempSync(join(tmpdir(), 'certvend-certificate-'))
      try {
        for (const kind of kinds) {
          const ca = await makeForeignCa(kind)
          const caFile = join(directory, 'ca.pem')
          writeFileSync(caFile, ca.certificate)
          const issuer = createLocalIssuer(ca)
          const files = await Promise.all(
            Object.entries(publicKeys).map(async ([name, publicKeyInfo]) => {
              const certificate = await issueTo(issuer, publicKeyInfo)
              const file = join(directory, `${name}.pem`)
              writeFileSync(file, certificate)
              return file
            }),
          )
          // OpenSSL's strictest refuses every CA without a key identifier.
          const strict = kind.identifier === 'none' ? [] : ['-x509_strict']
          const parameters = ['-purpose', 'sslclient', '-check_ss_sig', '-CAfile', caFile]
          const said = execFileSync('openssl', ['verify', ...strict, ...parameters, ...files], {
            encoding: 'utf8',
          })
          expect(said.match(/: OK$/gm)).toHaveLength(files.length)
        }
      } finally {
        rmSync(directory, { recursive: true })
      }
    },
  )
})

async function issueTo(issuer: ReturnType<typeof createLocalIssuer>, publicKeyInfo: Buffer) {
  const now = new Date()
  const [deviceSerial, publicKey] = ['SN:1.2_3', 'x']
  const issued = await issuer.issue(
    { pem: '', publicKeyInfo, publicKey },
    { deviceSerial, thingName: 'thing', disabled: false, claim: { number: 1 } },
    {
      deviceSerial,
      publicKey,
      claimNumber: 1,
      certificateSerial: '40a1b2c3d4e5f60718293a4b5c6d7e8f90',
      reservedAt: now,
    },
    { signal: new AbortController().signal },
  )
  const [certificate] = issued.certificateChain
  const { raw } = new X509Certificate(certificate!)
  expect(issued.certificateId).toBe(createHash('sha256').update(raw).digest('hex'))
  return certificate!
}

describe('a CA', () => {
  it('with a key that is neither EC nor RSA is refused before anything is signed', () => {
    for (const { privateKey } of [
      generateKeyPairSync('ed25519'),
      generateKeyPairSync('rsa-pss', { modulusLength: 2048 }),
    ])
      expect(() => prepareSelfSigner('CA', privateKey)).toThrow(RangeError)
  })

  it('that is no certificate is refused', async () => {
    const ca: SigningAuthority = await makeForeignCa(kinds[0]!)
    expect(() => prepareSigner({ ...ca, certificate: 'nothing' })).toThrow()
  })
})

describe('DER', () => {
  it.each([0, 1, 127, 128, 255, 256, 65_535])(
    'of %d octets says so in as few as can be',
    (size) => {
      const inner = Buffer.alloc(size, 7)
      const element = tlv(0x04, inner)
      expect(element.length - size).toBe(size < 128 ? 2 : size < 256 ? 3 : 4)
      expect(content(element)).toEqual(inner)
    },
  )

  it('that is too long, or cut off, is refused', () => {
    expect(() => tlv(0x04, Buffer.alloc(65_536))).toThrow(RangeError)
    for (const hex of ['', '30', '3001', '30020401', '3080', '3004040205'])
      expect(() => elements(Buffer.from(hex, 'hex')), hex).toThrow(RangeError)
  })
})
