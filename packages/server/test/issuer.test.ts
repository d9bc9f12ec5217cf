import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { day, minute } from '../src/clock.ts'
import { createLocalIssuer, makeDeviceCa, openDeviceCa } from '../src/issuer/local.ts'
import { judgeRequest } from '../src/policy.ts'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsageExtension,
  X509Certificate as Parsed,
  SubjectAlternativeNameExtension,
} from '../src/x509.ts'
import { type KeyName, makeDeviceKey } from './device.ts'
import { movableClock } from './machine.ts'

const clock = movableClock(new Date('2030-05-17T12:00:00.789Z'))
const device = {
  deviceSerial: 'SN:1.2_3',
  thingName: 'thing',
  disabled: false,
  claim: { number: 1 },
  createdAt: clock.now(),
  changedAt: clock.now(),
}
const reservation = {
  deviceSerial: device.deviceSerial,
  claimNumber: 1,
  publicKey: 'x',
  certificateSerial: '40a1b2c3d4e5f60718293a4b5c6d7e8f90',
  reservedAt: clock.now(),
}

async function issue(keyName: KeyName, validityMs?: number) {
  const ca = await makeDeviceCa(clock)
  const issuer = createLocalIssuer(ca, validityMs === undefined ? {} : { validityMs })
  const names = new SubjectAlternativeNameExtension([{ type: 'dns', value: 'bank.example' }])
  const wanted = [names, new ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.1'])]
  const csr = await (await makeDeviceKey(keyName)).csr(
    [{ O: ['Acme'] }, { CN: [device.deviceSerial] }],
    wanted,
  )
  const judged = judgeRequest(csr, device.deviceSerial)
  if (!judged.ok) throw new Error(judged.reason)
  const { signal } = new AbortController()
  const issued = await issuer.issue(judged.request, device, reservation, { signal })
  return { ca: new X509Certificate(ca.certificate), issued }
}

describe('a device certificate', () => {
  for (const name of ['P-256', 'P-384', 'RSA-2048', 'Ed25519'] as KeyName[])
    it(`for a ${name} key says what it is for and nothing that the device asked for`, async () => {
      const { ca, issued } = await issue(name)
      const [pem] = issued.certificateChain
      const certificate = new X509Certificate(pem!)
      expect(issued.certificateChain).toHaveLength(1)
      expect(certificate.verify(ca.publicKey) && certificate.checkIssued(ca)).toBe(true)
      expect(certificate.ca).toBe(false)
      expect(certificate.subject).toBe('CN=SN:1.2_3')
      expect(certificate.subjectAltName).toBeUndefined()
      expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2'])
      expect(certificate.serialNumber).toBe('40A1B2C3D4E5F60718293A4B5C6D7E8F90')
      const parsed = new Parsed(pem!)
      expect(parsed.extensions.map((extension) => [extension.type, extension.critical])).toEqual([
        ['2.5.29.19', true],
        ['2.5.29.15', true],
        ['2.5.29.37', false],
        ['2.5.29.14', false],
        ['2.5.29.35', false],
      ])
      expect(parsed.getExtension(BasicConstraintsExtension)?.ca).toBe(false)
      expect(parsed.signatureAlgorithm).toMatchObject({ name: 'ECDSA', hash: { name: 'SHA-256' } })
    })

  it('begins five minutes early, for slow clocks, and lasts a year', async () => {
    const { issued } = await issue('P-256')
    const [pem] = issued.certificateChain
    const certificate = new X509Certificate(pem!)
    expect(new Date(certificate.validFrom)).toEqual(new Date('2030-05-17T11:55:00Z'))
    expect(new Date(certificate.validTo)).toEqual(new Date('2031-05-17T12:00:00Z'))
    expect(issued).toMatchObject({
      notBefore: new Date('2030-05-17T11:55:00Z'),
      notAfter: new Date('2031-05-17T12:00:00Z'),
    })
  })

  it('does not outlive its CA, and lasts a minute at least', async () => {
    const { ca, issued } = await issue('P-256', 100 * 365 * day)
    expect(issued.notAfter).toEqual(new Date(ca.validTo))
    const authority = await makeDeviceCa(clock)
    for (const validityMs of [0, -1, Number.NaN, minute - 1])
      expect(() => createLocalIssuer(authority, { validityMs })).toThrow(RangeError)
  })
})

describe('the device CA on disk', () => {
  let directory: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'certvend-ca-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  it('is made once, is its own root, and its key is for this user alone', async () => {
    const ca = await openDeviceCa(directory, clock)
    const again = await openDeviceCa(directory, clock)
    expect(again.certificate).toBe(ca.certificate)
    const certificate = new X509Certificate(ca.certificate)
    expect(certificate.ca && certificate.checkIssued(certificate)).toBe(true)
    expect(certificate.checkPrivateKey(ca.privateKey)).toBe(true)
    expect(statSync(join(directory, 'device-ca.key.pem')).mode & 0o777).toBe(0o600)
    const given = readFileSync(join(directory, 'device-ca.pem'), 'utf8')
    expect(given).toBe(ca.certificate)
    expect(given).not.toContain('PRIVATE')
  })

  it('is one and the same for two that start at once', async () => {
    const all = await Promise.all(Array.from({ length: 8 }, () => openDeviceCa(directory, clock)))
    expect(new Set(all.map((ca) => ca.certificate)).size).toBe(1)
  })

  it('that is damaged is not replaced', async () => {
    await openDeviceCa(directory, clock)
    const path = join(directory, 'device-ca.key.pem')
    const other = (await makeDeviceCa(clock)).certificate
    const key = readFileSync(path, 'utf8').split('-----BEGIN CERTIFICATE-----')[0]
    for (const damaged of ['', 'nothing', `${key}${other}`]) {
      writeFileSync(path, damaged)
      await expect(openDeviceCa(directory, clock)).rejects.toThrow()
      expect(readFileSync(path, 'utf8')).toBe(damaged)
    }
  })
})
