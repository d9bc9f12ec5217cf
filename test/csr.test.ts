/** Certification requests, as others read them: OpenSSL and @peculiar/x509. */
import { spawnSync } from 'node:child_process'
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from 'node:crypto'
import path from 'node:path'
import { keyAlgorithms, openCredentialStore, type PrivateKey } from '@certvend/client'
import { createCertificationRequest } from '@certvend/client/csr'
import { describe, expect, it } from 'vitest'
import { subjectAndKeyOf } from './pki.ts'
import { temporaryDirectory } from './temporary.ts'

const opensslMissing =
  spawnSync('openssl', ['version']).status === 0 ? undefined : 'openssl is not installed'

const openssl = (input: string, ...args: string[]) => {
  const { status, stdout, stderr } = spawnSync('openssl', args, { input, encoding: 'utf8' })
  return { status, said: stdout + stderr }
}

const wrapped = (key: KeyObject): PrivateKey => ({
  publicKey: createPublicKey(key),
  sign: async (data, digest) => sign(digest, data, key),
})

const p256 = (): PrivateKey =>
  wrapped(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)

describe.each(keyAlgorithms)('a request for a key of kind %s', (algorithm) => {
  const make = async (subject: string) => {
    const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
    const { privateKey } = store.begin(algorithm)
    store.close()
    return { privateKey, csr: await createCertificationRequest(privateKey, subject) }
  }

  it.skipIf(opensslMissing)(`verifies with OpenSSL ${opensslMissing ?? ''}`, async () => {
    const { privateKey, csr } = await make('device-1')
    const { status, said } = openssl(csr, 'req', '-verify', '-noout', '-subject', '-pubkey')
    expect(status, said).toBe(0)
    expect(said).toMatch(/verify OK/)
    expect(said).toMatch(/^subject=\s*CN ?= ?device-1$/m)
    expect(said).toContain(privateKey.publicKey.export({ type: 'spki', format: 'pem' }))
  })

  it.skipIf(opensslMissing)(
    `no longer verifies with OpenSSL once any of it was changed ${opensslMissing ?? ''}`,
    async () => {
      const { csr } = await make('device-1')
      const der = Buffer.from(csr.replace(/-----[^-]+-----/g, ''), 'base64')
      der.write('device-2', der.indexOf('device-1'))
      const { status, said } = openssl(der as never, 'req', '-inform', 'DER', '-verify', '-noout')
      expect(status === 0 && /verify OK/.test(said)).toBe(false)
    },
  )

  it('verifies with @peculiar/x509', async () => {
    const { privateKey, csr } = await make('device-1')
    const { subject, publicKey } = await subjectAndKeyOf(csr)
    expect(subject).toBe('CN=device-1')
    const ours = privateKey.publicKey.export({ type: 'spki', format: 'der' })
    expect(Buffer.from(publicKey).equals(ours)).toBe(true)
  })
})

describe('a request', () => {
  it('is PEM with lines of 64 and one trailing line end', async () => {
    const lines = (await createCertificationRequest(p256(), 'device-1')).split('\n')
    expect(lines[0]).toBe('-----BEGIN CERTIFICATE REQUEST-----')
    expect(lines.slice(-2)).toEqual(['-----END CERTIFICATE REQUEST-----', ''])
    expect(Math.max(...lines.slice(1, -2).map((line) => line.length))).toBe(64)
  })

  it('is the same as OpenSSL makes of the same key, byte by byte', async () => {
    const fixed = createPrivateKey(`-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
`)
    // Ed25519 signatures are deterministic (RFC 8032), so the whole request is.
    expect(await createCertificationRequest(wrapped(fixed), 'device-1')).toBe(golden)
  })

  it.each([
    ['one character', 'a'],
    ['64 characters', 'a'.repeat(64)],
    ['64 characters of two bytes each', 'é'.repeat(64)],
    ['what means something to a shell, a path or DER', `$(id)/../"'\\,=+<>#;`],
  ])('takes a subject of %s', async (_title, name) => {
    const csr = await createCertificationRequest(p256(), name)
    const { commonName } = await subjectAndKeyOf(csr)
    expect(commonName).toBe(name)
    if (!opensslMissing) expect(openssl(csr, 'req', '-verify', '-noout').said).toMatch(/verify OK/)
  })

  it.each([
    ['nothing', ''],
    ['65 characters', 'a'.repeat(65)],
    ['10 000 characters', 'a'.repeat(10_000)],
  ])('refuses a subject of %s', async (_title, name) => {
    await expect(createCertificationRequest(p256(), name)).rejects.toThrow(RangeError)
  })

  it.each([
    ['P-521', () => generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey],
    ['secp256k1', () => generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey],
    ['X25519', () => generateKeyPairSync('x25519').privateKey],
    [
      'DSA',
      () => generateKeyPairSync('dsa', { modulusLength: 2048, divisorLength: 256 }).privateKey,
    ],
  ] as const)('refuses a key of kind %s', async (_title, make) => {
    await expect(createCertificationRequest(wrapped(make()), 'device-1')).rejects.toThrow(TypeError)
  })

  it('passes on the refusal of a token to sign', async () => {
    const reason = new Error('the token was pulled out')
    const key = { ...p256(), sign: () => Promise.reject(reason) }
    await expect(createCertificationRequest(key, 'device-1')).rejects.toBe(reason)
  })
})

/** What `openssl req -new -subj /CN=device-1` makes of the same key. */
const golden = `-----BEGIN CERTIFICATE REQUEST-----
MIGSMEYCAQAwEzERMA8GA1UEAwwIZGV2aWNlLTEwKjAFBgMrZXADIQADoQe/884Q
vh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuKAAMAUGAytlcANBAGh1qej6p0QV0Ctt
ctuWo8uE2dn6nMZRQulC2xNE9sykQN9uTZ/OLVVMdEY1rBWHnAhF4WvgXI+D+w20
vJh45QE=
-----END CERTIFICATE REQUEST-----
`
