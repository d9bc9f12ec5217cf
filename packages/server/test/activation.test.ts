/** Certificates that open sessions only where an outside book says so, as in AWS IoT. */
import { describe, expect, it } from 'vitest'
import { confirm, restoreDevice, withdrawRefused } from '../src/activation.ts'
import { day, later, minute, second } from '../src/clock.ts'
import { type Issuer, issuerBusy } from '../src/issuer/issuer.ts'
import { createLocalIssuer, makeDeviceCa } from '../src/issuer/local.ts'
import { createRateGate } from '../src/rate-gate.ts'
import type { CertificateStatus, Registry } from '../src/registry/registry.ts'
import { hashToken } from '../src/tokens.ts'
import { makeDeviceKey } from './device.ts'
import { type Device, type Machine, movableClock, startMachine } from './machine.ts'

const signal = new AbortController().signal

interface Outside {
  readonly machine: Machine
  readonly issuer: Issuer
  /** What the outside book says, by certificate, in the order of their first entry. */
  readonly book: Map<string, CertificateStatus>
  /** Called before each entry; what it throws is the answer. */
  before: (step: 'activate' | 'withdraw', certificateId: string) => void | Promise<void>
  active(): readonly string[]
}

async function outside(more: Partial<Issuer> = {}): Promise<Outside> {
  const book = new Map<string, CertificateStatus>()
  const issuer: Issuer = {
    ...createLocalIssuer(await makeDeviceCa(movableClock())),
    async activate({ certificateId }) {
      await world.before('activate', certificateId)
      book.set(certificateId, 'ACTIVE')
    },
    async withdraw({ certificateId }, status) {
      await world.before('withdraw', certificateId)
      if (book.has(certificateId)) book.set(certificateId, status)
    },
    ...more,
  }
  const world: Outside = {
    machine: await startMachine({ issuer }),
    issuer,
    book,
    before: () => undefined,
    active: () => [...book].filter(([, status]) => status === 'ACTIVE').map(([id]) => id),
  }
  return world
}

async function rearm({ registry, clock }: Machine, device: Device): Promise<Device> {
  const token = await hashToken(device.token, 'generated')
  const openUntil = later(clock.now(), day)
  await registry.rearm(device.deviceSerial, { token, openUntil, revoke: false }, clock.now())
  clock.move(minute)
  return { ...device, key: await makeDeviceKey() }
}

const down = () => {
  throw issuerBusy(7 * second, 'connection reset')
}

describe('a certificate', () => {
  it('is activated when it is recorded, and not again once it has opened a session', async () => {
    const { machine, issuer, active, book } = await outside()
    const device = await machine.addDevice()
    const { certificateId } = (await machine.enroll(device)).reply
    expect(active()).toEqual([certificateId])
    book.clear()
    await machine.enroll(device)
    expect(active()).toEqual([certificateId])
    const books = { registry: machine.registry, issuer }
    expect(await confirm(books, certificateId, { signal, at: machine.clock.now() })).toBe(true)
    book.clear()
    expect((await machine.enroll(device)).reply.certificateId).toBe(certificateId)
    expect(active()).toEqual([])
  })

  it('is activated by the next request when the first could not, and is still the same one', async () => {
    const world = await outside()
    const { machine } = world
    const device = await machine.addDevice()
    world.before = down
    const refused = await machine.enroll(device)
    expect([refused.status, refused.problem, refused.headers.get('retry-after')]).toEqual([
      503,
      'busy',
      '7',
    ])
    expect(refused.text).not.toContain('reset')
    expect(machine.events).toContainEqual({
      level: 'error',
      event: 'issuer-busy',
      deviceSerial: device.deviceSerial,
      reason: 'the issuer is busy: connection reset',
    })
    const [recorded] = await machine.registry.certificates(device.deviceSerial)
    world.before = () => undefined
    const { certificateId } = (await machine.enroll(device, { through: machine.another() })).reply
    expect(certificateId).toBe(recorded!.certificateId)
    expect(world.active()).toEqual([certificateId])
  })

  it('that was revoked while it was being activated stays out', async () => {
    const world = await outside()
    const { registry, clock } = world.machine
    world.before = async (step, certificateId) => {
      if (step === 'activate')
        await registry.setCertificateStatus(certificateId, 'REVOKED', clock.now())
    }
    await world.machine.enroll(await world.machine.addDevice())
    expect([...world.book.values()]).toEqual(['REVOKED'])
  })

  it('of a device that was disabled while it was being activated stays out', async () => {
    const world = await outside()
    const { registry, clock } = world.machine
    const device = await world.machine.addDevice()
    world.before = async (step) => {
      if (step === 'activate') await registry.setDisabled(device.deviceSerial, true, clock.now())
    }
    await world.machine.enroll(device)
    expect([...world.book.values()]).toEqual(['INACTIVE'])
  })
})

describe('two certificates of one device', () => {
  it('are in force together until the new one has opened a session', async () => {
    const { machine, issuer, active } = await outside()
    const device = await machine.addDevice()
    const old = (await machine.enroll(device)).reply.certificateId
    const next = (await machine.enroll(await rearm(machine, device))).reply.certificateId
    expect(active()).toEqual([old, next])
    const books = { registry: machine.registry, issuer }
    await confirm(books, next, { signal, at: machine.clock.now() })
    expect(active()).toEqual([next])
    expect(await confirm(books, next, { signal, at: machine.clock.now() })).toBe(false)
    expect(await confirm(books, old, { signal, at: machine.clock.now() })).toBe(false)
    expect(active()).toEqual([next])
  })

  it('never become three: the one that has opened a session stays', async () => {
    const { machine, issuer, active } = await outside()
    let device = await machine.addDevice()
    const proven = (await machine.enroll(device)).reply.certificateId
    const books = { registry: machine.registry, issuer }
    await confirm(books, proven, { signal, at: machine.clock.now() })
    for (let round = 0; round < 3; round += 1) {
      device = await rearm(machine, device)
      const newest = (await machine.enroll(device)).reply.certificateId
      expect(active()).toEqual([proven, newest])
    }
    const held = await machine.registry.certificates(device.deviceSerial)
    expect(held.map(({ status }) => status)).toEqual(['ACTIVE', 'INACTIVE', 'INACTIVE', 'ACTIVE'])
  })

  it('never become three: where none has opened a session the newer stays', async () => {
    const { machine, active } = await outside()
    let device = await machine.addDevice()
    const made = [(await machine.enroll(device)).reply.certificateId]
    for (let round = 0; round < 3; round += 1) {
      device = await rearm(machine, device)
      made.push((await machine.enroll(device)).reply.certificateId)
      expect(active()).toEqual(made.slice(-2))
    }
  })

  it('retire what an older vending machine gave, once the new one has opened a session', async () => {
    const { machine, issuer, book, active } = await outside()
    const device = await machine.addDevice()
    const { certificateId } = (await machine.enroll(device)).reply
    book.set('older', 'ACTIVE')
    const adopted: Registry = {
      ...machine.registry,
      find: async (serial) => ({
        ...(await machine.registry.find(serial))!,
        previousCertificateArn: 'arn:aws:iot:eu-west-1:123456789012:cert/older',
      }),
    }
    const at = machine.clock.now()
    expect(await confirm({ registry: adopted, issuer }, certificateId, { signal, at })).toBe(true)
    expect(active()).toEqual([certificateId])
  })

  it('retire the older even if the first attempt was cut off', async () => {
    const world = await outside()
    const { machine, issuer } = world
    const device = await machine.addDevice()
    await machine.enroll(device)
    const next = (await machine.enroll(await rearm(machine, device))).reply.certificateId
    const books = { registry: machine.registry, issuer }
    world.before = down
    await expect(confirm(books, next, { signal, at: machine.clock.now() })).rejects.toThrow('busy')
    expect((await machine.registry.findCertificate(next))?.confirmedAt).toBeUndefined()
    world.before = () => undefined
    await confirm(books, next, { signal, at: machine.clock.now() })
    expect(world.active()).toEqual([next])
  })
})

describe('what an operator refuses', () => {
  it('is withdrawn, and restored when a device is enabled again', async () => {
    const { machine, issuer, active, book } = await outside()
    const { registry, clock } = machine
    const device = await machine.addDevice()
    const { certificateId } = (await machine.enroll(device)).reply
    const books = { registry, issuer }
    expect(await withdrawRefused(books, device.deviceSerial, { signal })).toBe(0)
    await registry.setDisabled(device.deviceSerial, true, clock.now())
    expect(await restoreDevice(books, device.deviceSerial, { signal })).toBe(0)
    expect(await withdrawRefused(books, device.deviceSerial, { signal })).toBe(1)
    expect(active()).toEqual([])
    await registry.setDisabled(device.deviceSerial, false, clock.now())
    expect(await restoreDevice(books, device.deviceSerial, { signal })).toBe(1)
    expect(active()).toEqual([certificateId])
    await registry.remove(device.deviceSerial, clock.now())
    await withdrawRefused(books, device.deviceSerial, { signal })
    expect([...book.values()]).toEqual(['REVOKED'])
    expect(await restoreDevice(books, device.deviceSerial, { signal })).toBe(0)
  })
})

describe('a quota', () => {
  it('sends devices away with their slot, before anything is signed, and lets them in then', async () => {
    const gate = createRateGate({ rates: { calls: 1 }, patienceMs: 0 })
    const { machine, active } = await outside({
      admit: (key, now) => gate.ask(key, { calls: 1 }, now),
    })
    const devices = [await machine.addDevice(), await machine.addDevice()]
    expect((await machine.enroll(devices[0]!)).status).toBe(200)
    const refused = await machine.enroll(devices[1]!)
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect(await machine.registry.certificates(devices[1]!.deviceSerial)).toEqual([])
    expect(machine.events.map(({ event }) => event)).not.toContain('issuer-busy')
    machine.clock.move(second)
    expect((await machine.enroll(devices[1]!)).status).toBe(200)
    expect(active()).toHaveLength(2)
  })
})
