import { createPublicKey, X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { day, minute } from '../src/clock.ts'
import type { Issuer } from '../src/issuer/issuer.ts'
import { createLocalIssuer, makeDeviceCa } from '../src/issuer/local.ts'
import type { Registry } from '../src/registry/registry.ts'
import { createTokenJudge, hashToken } from '../src/tokens.ts'
import { makeDeviceKey } from './device.ts'
import { movableClock, startMachine } from './machine.ts'

describe('enrolling', () => {
  it('gives a certificate for the key that asked, and says where to connect', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice('SN-1', { thingName: 'thing-1', policyName: 'devices' })
    const answer = await machine.enroll(device)
    expect(answer.status).toBe(200)
    const { reply } = answer
    const certificate = new X509Certificate(reply.certificateChain[0]!)
    expect(certificate.publicKey.export({ type: 'spki', format: 'pem' })).toEqual(
      createPublicKey(device.key.privateKeyPem).export({ type: 'spki', format: 'pem' }),
    )
    expect(certificate.subject).toBe('CN=SN-1')
    expect(certificate.fingerprint256.replaceAll(':', '').toLowerCase()).toBe(reply.certificateId)
    expect(reply).toMatchObject({ deviceSerial: 'SN-1', thingName: 'thing-1' })
    expect(reply.endpoint).toMatchObject({ host: 'mqtt.example', port: 8883 })
    const [recorded] = await machine.registry.certificates('SN-1')
    expect(recorded).toMatchObject({
      certificateId: reply.certificateId,
      thingName: 'thing-1',
      policyName: 'devices',
      status: 'ACTIVE',
      issuedAt: machine.clock.now(),
    })
  })

  it('answers the same request with the same certificate, however often it is asked', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const first = await machine.enroll(device)
    machine.clock.move(30 * day)
    expect((await machine.enroll(device)).text).toBe(first.text)
    expect((await machine.enroll(device, { through: machine.another() })).text).toBe(first.text)
    expect(await machine.registry.certificates(device.deviceSerial)).toHaveLength(1)
  })

  it('makes one certificate of fifty identical requests at once', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const csr = await device.key.csr(device.deviceSerial)
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => machine.enroll(device, { csr })),
    )
    expect(new Set(answers.map((answer) => `${answer.status} ${answer.text}`)).size).toBe(1)
    expect(answers[0]!.status).toBe(200)
    expect(await machine.registry.certificates(device.deviceSerial)).toHaveLength(1)
  })

  it('makes one certificate of fifty identical requests to fifty processes at once', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => machine.enroll(device, { through: machine.another() })),
    )
    expect(new Set(answers.map((answer) => `${answer.status} ${answer.text}`)).size).toBe(1)
    expect(answers[0]!.status).toBe(200)
    expect(await machine.registry.certificates(device.deviceSerial)).toHaveLength(1)
  })

  it('lets one of two racing keys win, and refuses the other with an alarm', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const thief = await makeDeviceKey()
    const answers = await Promise.all([
      machine.enroll(device),
      machine.enroll(device, { key: thief, through: machine.another() }),
    ])
    expect(answers.map((answer) => answer.status).sort()).toEqual([200, 409])
    expect(answers.find((answer) => answer.status === 409)?.problem).toBe('claim-spent')
    expect(await machine.registry.certificates(device.deviceSerial)).toHaveLength(1)
    expect(await machine.alarms()).toEqual(['claim-conflict'])
    expect(machine.events.filter((event) => event.level === 'alarm')).toHaveLength(1)
  })
})

describe('a crash', () => {
  /** A registry whose method `name` dies once, before or after it did its work. */
  const dying = (registry: Registry, name: 'reserve' | 'record', when: 'before' | 'after') => {
    let alive = false
    const method = registry[name] as (...parameters: unknown[]) => Promise<unknown>
    return {
      ...registry,
      async [name](...parameters: unknown[]) {
        if (alive) return method(...parameters)
        alive = true
        if (when === 'after') await method(...parameters)
        throw new Error('the process died here')
      },
    } as Registry
  }

  for (const [name, when] of [
    ['reserve', 'before'],
    ['reserve', 'after'],
    ['record', 'before'],
    ['record', 'after'],
  ] as const)
    it(`${when} ${name} is repaired by the next request with the same key`, async () => {
      const machine = await startMachine()
      const device = await machine.addDevice()
      const crashed = machine.another({ registry: dying(machine.registry, name, when) })
      const lost = await machine.enroll(device, { through: crashed })
      expect([lost.status, lost.problem]).toEqual([500, 'internal'])
      expect(lost.headers.get('retry-after')).toBe('30')
      const answer = await machine.enroll(device)
      expect(answer.status).toBe(200)
      expect((await machine.enroll(device)).text).toBe(answer.text)
      expect(await machine.registry.certificates(device.deviceSerial)).toHaveLength(1)
    })

  it('after the key was bound keeps the claim closed to every other key', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const crashed = machine.another({ registry: dying(machine.registry, 'record', 'before') })
    await machine.enroll(device, { through: crashed })
    const other = await machine.enroll(device, { key: await makeDeviceKey() })
    expect([other.status, other.problem]).toEqual([409, 'claim-spent'])
  })

  it('between issuing and recording leads to a certificate of the serial that was written down', async () => {
    const clock = movableClock()
    const local = createLocalIssuer(await makeDeviceCa(clock))
    const signed: string[] = []
    const issuer: Issuer = {
      ...local,
      async issue(...parameters) {
        const issued = await local.issue(...parameters)
        signed.push(new X509Certificate(issued.certificateChain[0]!).serialNumber)
        return issued
      },
    }
    const machine = await startMachine({ issuer })
    const device = await machine.addDevice()
    const crashed = machine.another({ registry: dying(machine.registry, 'record', 'before') })
    await machine.enroll(device, { through: crashed })
    machine.clock.move(minute)
    await machine.enroll(device)
    expect(signed).toHaveLength(2)
    expect(new Set(signed).size).toBe(1)
  })

  it('a month before the next request leads to a certificate of full length', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const crashed = machine.another({ registry: dying(machine.registry, 'record', 'before') })
    await machine.enroll(device, { through: crashed })
    machine.clock.move(30 * day)
    await machine.enroll(device)
    const [certificate] = await machine.registry.certificates(device.deviceSerial)
    expect(certificate!.notAfter.getTime() - machine.clock.now().getTime()).toBe(365 * day)
  })

  it('of an issuer that hangs is answered with an error, and the next request is served', async () => {
    const clock = movableClock()
    const local = createLocalIssuer(await makeDeviceCa(clock))
    let hangs = true
    const issuer: Issuer = {
      ...local,
      issue: (request, device, reservation, options) =>
        hangs
          ? new Promise((_, reject) => {
              const { signal } = options
              signal.addEventListener('abort', () => reject(signal.reason))
            })
          : local.issue(request, device, reservation, options),
    }
    const machine = await startMachine({ issuer, issueTimeoutMs: 20 })
    const device = await machine.addDevice()
    expect((await machine.enroll(device)).status).toBe(500)
    hangs = false
    expect((await machine.enroll(device)).status).toBe(200)
  })
})

describe('a token', () => {
  it('that is wrong and a device that is unknown get the same answer', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const wrong = await machine.enroll(device, { token: 'another-token-altogether' })
    const unknown = await machine.enroll(device, { deviceSerial: 'SN-unknown' })
    const missing = await machine.enroll(device, { token: undefined })
    expect([wrong.status, wrong.problem]).toEqual([401, 'claim-refused'])
    for (const answer of [unknown, missing]) {
      expect(answer.text).toBe(wrong.text)
      expect([...answer.headers]).toEqual([...wrong.headers])
    }
    expect(wrong.headers.get('www-authenticate')).toBe('Bearer')
    expect(await machine.registry.certificates(device.deviceSerial)).toHaveLength(0)
  })

  it('that is refused costs the same work whatever the reason', async () => {
    const salts: string[] = []
    const judgeToken = createTokenJudge(async (_, salt) => {
      salts.push(salt.toString('hex'))
      return Buffer.alloc(32, 1)
    })
    const machine = await startMachine({ judgeToken })
    const device = await machine.addDevice('SN-strong')
    await machine.addDevice('SN-tokenless', { token: null })
    const work = async (deviceSerial: string) => {
      salts.length = 0
      await machine.enroll(device, { deviceSerial, token: 'another-token-altogether' })
      return salts.length
    }
    const all = ['SN-strong', 'SN-tokenless', 'SN-unknown']
    for (const serial of all) expect(await work(serial)).toBe(0)
    await machine.registry.add(
      { deviceSerial: 'SN-weak', thingName: 'SN-weak' },
      await hashToken('12345678', 'imported'),
      machine.clock.now(),
    )
    for (const serial of [...all, 'SN-weak']) expect(await work(serial)).toBe(1)
  })

  it('that must be stretched waits behind no more than two others, and past a hundred is not judged at all', async () => {
    let stretching = 0
    const release: (() => void)[] = []
    const judgeToken = createTokenJudge(async () => {
      stretching += 1
      await new Promise<void>((resolve) => release.push(resolve))
      return Buffer.alloc(32, 1)
    })
    const machine = await startMachine({ judgeToken })
    const device = await machine.addDevice('SN-strong')
    await machine.registry.add(
      { deviceSerial: 'SN-weak', thingName: 'SN-weak' },
      await hashToken('12345678', 'imported'),
      machine.clock.now(),
    )
    const wrong = (number: number) =>
      machine.enroll(device, { deviceSerial: `SN-${number}`, token: 'another-token-altogether' })
    const answers = Array.from({ length: 103 }, (_, number) => wrong(number))
    const first = await Promise.race(answers)
    expect([first.status, first.problem]).toEqual([503, 'busy'])
    expect(first.headers.get('retry-after')).toBe('10')
    expect(stretching).toBe(2)
    expect((await machine.enroll(device)).status).toBe(200)
    while (stretching < 102 || release.length > 0) {
      release.shift()?.()
      await new Promise(setImmediate)
    }
    const statuses = (await Promise.all(answers)).map(({ status }) => status)
    expect(statuses.filter((status) => status === 401)).toHaveLength(102)
  })

  it('never matches a device that has none', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice('SN-1', { token: null })
    for (const token of [undefined, device.token, '00000000', 'undefined'])
      expect((await machine.enroll(device, { token })).status).toBe(401)
  })

  it('of another device is not accepted', async () => {
    const machine = await startMachine()
    const [one, other] = [await machine.addDevice(), await machine.addDevice()]
    expect((await machine.enroll(one, { token: other.token })).status).toBe(401)
  })

  it('that is short is accepted when it was imported, and kept stretched', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice('SN-1', { token: 'burned-in' })
    expect((await machine.registry.find('SN-1'))?.claim.token?.kind).toBe('scrypt')
    expect((await machine.enroll(device, { token: 'burned-on' })).status).toBe(401)
    expect((await machine.enroll(device)).status).toBe(200)
  })

  it('that failed too often is told when to come back, and a right one is still let in', async () => {
    const machine = await startMachine({ failures: { allowed: 3, windowMs: 10 * minute } })
    const device = await machine.addDevice()
    const fail = (deviceSerial: string, remoteAddress = '192.0.2.1') =>
      machine.enroll(device, { deviceSerial, remoteAddress, token: 'guessed-guessed' })
    for (const serial of [device.deviceSerial, 'SN-unknown']) {
      const statuses = []
      for (let attempt = 0; attempt < 5; attempt += 1) statuses.push((await fail(serial)).status)
      expect(statuses).toEqual([401, 401, 401, 429, 429])
    }
    machine.clock.move(minute)
    const known = await fail(device.deviceSerial)
    expect(known.headers.get('retry-after')).toBe('540')
    expect((await fail('SN-unknown')).text).toBe(known.text)
    expect((await fail(device.deviceSerial, '192.0.2.2')).status).toBe(401)
    expect((await machine.enroll(device)).status).toBe(200)
    machine.clock.move(9 * minute)
    expect((await fail(device.deviceSerial)).status).toBe(401)
  })

  it('that is right is never counted, however often it comes', async () => {
    const machine = await startMachine({ failures: { allowed: 1 } })
    const device = await machine.addDevice()
    for (let attempt = 0; attempt < 5; attempt += 1)
      expect((await machine.enroll(device)).status).toBe(200)
    expect((await machine.enroll(device, { token: 'guessed-guessed' })).status).toBe(401)
  })
})
