import { createHash, createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { judgeRequest } from '../src/policy.ts'
import {
  BasicConstraintsExtension,
  Extension,
  SubjectAlternativeNameExtension,
} from '../src/x509.ts'
import { type KeyName, makeDeviceKey } from './device.ts'

const derOf = (pem: string) => Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64')
const pemOf = (der: Buffer) =>
  `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`

const reasonOf = (pem: string, serial = 'SN-1'): string => {
  const judged = judgeRequest(pem, serial)
  return judged.ok ? 'accepted' : judged.reason
}

describe('a key', () => {
  for (const name of ['P-256', 'P-384', 'RSA-2048', 'RSA-3072', 'Ed25519'] as KeyName[])
    it(`of kind ${name} is accepted`, async () => {
      const key = await makeDeviceKey(name)
      const judged = judgeRequest(await key.csr('SN-1'), 'SN-1')
      if (!judged.ok) throw new Error(judged.reason)
      const spki = createPublicKey(key.privateKeyPem).export({ type: 'spki', format: 'der' })
      expect(judged.request.publicKeyInfo).toEqual(spki)
      expect(judged.request.publicKey).toBe(createHash('sha256').update(spki).digest('hex'))
    })

  for (const [name, reason] of [
    ['P-521', 'the key is on another curve than P-256 or P-384'],
    ['RSA-1024', 'the RSA key is not between 2048 and 4096 bits long'],
    ['RSA-2048 with exponent 3', 'the RSA exponent is not 65537'],
  ] as [KeyName, string][])
    it(`of kind ${name} is refused`, async () => {
      expect(reasonOf(await (await makeDeviceKey(name)).csr('SN-1'))).toBe(reason)
    })
})

describe('a key that takes long to make', () => {
  it('of more than 4096 bits of RSA is refused', () => {
    const csr = readFileSync(new URL('rsa-4160.csr.pem', import.meta.url), 'utf8')
    expect(reasonOf(csr)).toBe('the RSA key is not between 2048 and 4096 bits long')
  })
})

describe('a signature', () => {
  for (const name of ['P-256 with SHA-1', 'RSA-2048 with SHA-1'] as KeyName[])
    it(`of kind ${name} is refused`, async () => {
      const reason = reasonOf(await (await makeDeviceKey(name)).csr('SN-1'))
      expect(reason).toContain('not signed with SHA-256')
    })

  it('by another key is refused', async () => {
    const der = derOf(await (await makeDeviceKey()).csr('SN-1'))
    const other = derOf(await (await makeDeviceKey()).csr('SN-1'))
    const signatureLength = 72
    const forged = Buffer.concat([
      der.subarray(0, -signatureLength),
      other.subarray(-signatureLength),
    ])
    expect(reasonOf(pemOf(forged))).not.toBe('accepted')
  })

  it('does not hold after any one byte of the request changed', async () => {
    const der = derOf(await (await makeDeviceKey('Ed25519')).csr('SN-1'))
    for (let at = 0; at < der.length; at += 1) {
      const changed = Buffer.from(der)
      changed[at] = changed[at]! ^ 0x01
      expect(reasonOf(pemOf(changed)), `byte ${at}`).not.toBe('accepted')
    }
  })
})

describe('a subject', () => {
  it('must be the device serial, once, in the same letters', async () => {
    const key = await makeDeviceKey()
    for (const names of [
      [{ CN: ['SN-2'] }],
      [{ CN: ['sn-1'] }],
      [{ CN: ['SN-1 '] }],
      [{ CN: ['SN-1'] }, { CN: ['SN-2'] }],
      [{ CN: ['SN-1'] }, { CN: ['SN-1'] }],
      [{ O: ['SN-1'] }],
      [],
    ])
      expect(reasonOf(await key.csr(names))).toBe("the subject's one CN must be the device serial")
  })

  it('may name an organisation besides, which goes nowhere', async () => {
    const key = await makeDeviceKey()
    expect(reasonOf(await key.csr([{ O: ['Acme'] }, { CN: ['SN-1'] }]))).toBe('accepted')
  })
})

describe('an extension request', () => {
  it('for a CA certificate is refused', async () => {
    const key = await makeDeviceKey()
    const csr = await key.csr('SN-1', [new BasicConstraintsExtension(true, 3, true)])
    expect(reasonOf(csr)).toBe('the certification request asks for a CA certificate')
  })

  it('that cannot be read is refused', async () => {
    const key = await makeDeviceKey()
    const broken = new Extension('2.5.29.19', true, Buffer.from([0x30, 0x05, 0x01]))
    const csr = await key.csr('SN-1', [broken]).catch(() => undefined)
    if (csr) expect(reasonOf(csr)).not.toBe('accepted')
  })

  it('for anything else is accepted, and not honoured', async () => {
    const key = await makeDeviceKey()
    const names = new SubjectAlternativeNameExtension([{ type: 'dns', value: 'bank.example' }])
    expect(reasonOf(await key.csr('SN-1', [names, new BasicConstraintsExtension(false)]))).toBe(
      'accepted',
    )
  })
})

describe('an encoding', () => {
  it('that is not one DER structure in one PEM block is refused', async () => {
    const good = await (await makeDeviceKey()).csr('SN-1')
    const der = derOf(good)
    for (const bad of [
      '',
      'SN-1',
      pemOf(Buffer.alloc(0)),
      pemOf(Buffer.from([0x30])),
      pemOf(Buffer.from([0x30, 0x80, 0x00, 0x00])),
      pemOf(Buffer.from([0x30, 0x84, 0xff, 0xff, 0xff, 0xff])),
      pemOf(Buffer.from([0x30, 0x03, 0x02, 0x01, 0x00])),
      pemOf(der.subarray(0, -1)),
      pemOf(der.subarray(0, 40)),
      pemOf(Buffer.concat([der, Buffer.from([0])])),
      good.replace('-----BEGIN', '----BEGIN'),
      good.replace(/\n([A-Za-z0-9])/, '\n!$1'),
      `${good}${good}`,
      `text before\n${good}`,
    ])
      expect(reasonOf(bad)).toMatch(/not DER in PEM|not PKCS#10/)
    expect(reasonOf(good.replaceAll('\n', '\r\n'))).toBe('accepted')
  })

  it('is refused quickly however deeply it is nested', async () => {
    let der = Buffer.from([0x30, 0x00])
    for (let depth = 0; depth < 2_000; depth += 1) {
      const { length } = der
      const header = length < 0x80 ? [0x30, length] : [0x30, 0x82, length >> 8, length & 0xff]
      der = Buffer.concat([Buffer.from(header), der])
    }
    expect(reasonOf(pemOf(der))).not.toBe('accepted')
  })
})
