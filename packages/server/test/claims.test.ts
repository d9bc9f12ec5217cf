import { describe, expect, it } from 'vitest'
import { day, hour, minute } from '../src/clock.ts'
import type { Registry } from '../src/registry/registry.ts'
import { hashToken } from '../src/tokens.ts'
import { makeDeviceKey } from './device.ts'
import { startMachine } from './machine.ts'

describe('a claim', () => {
  it('that was spent with another key is refused, with an alarm in the log and the trail', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    await machine.enroll(device)
    const answer = await machine.enroll(device, { key: await makeDeviceKey() })
    expect([answer.status, answer.problem]).toEqual([409, 'claim-spent'])
    expect(await machine.alarms()).toEqual(['claim-conflict'])
    expect(machine.events).toContainEqual(
      expect.objectContaining({
        level: 'alarm',
        event: 'claim-conflict',
        deviceSerial: device.deviceSerial,
      }),
    )
    expect((await machine.enroll(device)).status).toBe(200)
  })

  it("with another device's key is refused, with an alarm", async () => {
    const machine = await startMachine()
    const [one, other] = [await machine.addDevice(), await machine.addDevice()]
    await machine.enroll(one)
    const answer = await machine.enroll(other, { key: one.key })
    expect([answer.status, answer.problem]).toEqual([409, 'key-in-use'])
    expect(await machine.alarms()).toEqual(['key-conflict'])
    expect((await machine.enroll(other)).status).toBe(200)
  })

  it("stays closed to another device's key after that device was removed", async () => {
    const machine = await startMachine()
    const [one, other] = [await machine.addDevice(), await machine.addDevice()]
    await machine.enroll(one)
    await machine.registry.remove(one.deviceSerial, machine.clock.now())
    expect((await machine.enroll(other, { key: one.key })).problem).toBe('key-in-use')
  })

  it('of a disabled device is refused until the device is enabled, and is not used up', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const { registry, clock } = machine
    await registry.setDisabled(device.deviceSerial, true, clock.now())
    const answer = await machine.enroll(device)
    expect([answer.status, answer.problem]).toEqual([403, 'device-disabled'])
    expect((await registry.find(device.deviceSerial))?.claim.publicKey).toBeUndefined()
    expect((await machine.enroll(device, { token: 'another-token' })).status).toBe(401)
    await registry.setDisabled(device.deviceSerial, false, clock.now())
    expect((await machine.enroll(device)).status).toBe(200)
    await registry.setDisabled(device.deviceSerial, true, clock.now())
    expect((await machine.enroll(device)).problem).toBe('device-disabled')
  })

  it('whose certificate was revoked is refused as revoked', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const { certificateId } = (await machine.enroll(device)).reply
    await machine.registry.setCertificateStatus(certificateId, 'REVOKED', machine.clock.now())
    const answer = await machine.enroll(device)
    expect([answer.status, answer.problem]).toEqual([403, 'certificate-revoked'])
    const back = machine.registry.setCertificateStatus(certificateId, 'ACTIVE', machine.clock.now())
    expect(await back).toBe(false)
  })

  it('whose certificate is inactive or expired is spent, without an alarm', async () => {
    const machine = await startMachine()
    const [one, other] = [await machine.addDevice(), await machine.addDevice()]
    const { certificateId } = (await machine.enroll(one)).reply
    await machine.enroll(other)
    await machine.registry.setCertificateStatus(certificateId, 'INACTIVE', machine.clock.now())
    expect((await machine.enroll(one)).problem).toBe('claim-spent')
    machine.clock.move(366 * day)
    expect((await machine.enroll(other)).problem).toBe('claim-spent')
    expect(await machine.alarms()).toEqual([])
  })

  it('that is replaced while a request is under way is not used by it', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const { registry, clock } = machine
    const rearming: Registry = {
      ...registry,
      async reserve(request) {
        const stored = await hashToken('another-token', 'imported')
        const openUntil = new Date(clock.now().getTime() + day)
        await registry.rearm(
          device.deviceSerial,
          { token: stored, openUntil, revoke: false },
          clock.now(),
        )
        return registry.reserve(request)
      },
    }
    const answer = await machine.enroll(device, {
      through: machine.another({ registry: rearming }),
    })
    expect([answer.status, answer.problem]).toEqual([401, 'claim-refused'])
    expect((await registry.find(device.deviceSerial))?.claim.publicKey).toBeUndefined()
  })
})

describe('re-arming', () => {
  const rearm = async (
    machine: Awaited<ReturnType<typeof startMachine>>,
    deviceSerial: string,
    how: { token?: string; revoke?: boolean } = {},
  ) => {
    const now = machine.clock.now()
    const token = how.token ? await hashToken(how.token, 'imported') : ('keep' as const)
    const openUntil = new Date(now.getTime() + day)
    const revoke = how.revoke ?? false
    expect(await machine.registry.rearm(deviceSerial, { token, openUntil, revoke }, now)).toBe(true)
  }

  it('takes the new token and one new key, and no longer the old token', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const first = await machine.enroll(device)
    await rearm(machine, device.deviceSerial, { token: 'the-new-token' })
    const key = await makeDeviceKey()
    expect((await machine.enroll(device, { key })).status).toBe(401)
    const second = await machine.enroll(device, { key, token: 'the-new-token' })
    expect(second.status).toBe(200)
    expect(second.reply.certificateId).not.toBe(first.reply.certificateId)
    const third = await machine.enroll(device, {
      key: await makeDeviceKey(),
      token: 'the-new-token',
    })
    expect(third.problem).toBe('claim-spent')
  })

  it('is over after 24 hours for a key that did not come, and not for one that did', async () => {
    const machine = await startMachine()
    const [early, late] = [await machine.addDevice(), await machine.addDevice()]
    for (const device of [early, late]) await rearm(machine, device.deviceSerial)
    expect((await machine.enroll(early)).status).toBe(200)
    machine.clock.move(25 * hour)
    expect((await machine.enroll(early)).status).toBe(200)
    const answer = await machine.enroll(late)
    expect([answer.status, answer.problem]).toEqual([401, 'claim-refused'])
    expect(await machine.registry.certificates(late.deviceSerial)).toHaveLength(0)
  })

  it('leaves the old certificate in force until the new one has connected', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const { registry, clock } = machine
    const statuses = async () =>
      (await registry.certificates(device.deviceSerial)).map((certificate) => certificate.status)
    const first = (await machine.enroll(device)).reply.certificateId
    clock.move(minute)
    await rearm(machine, device.deviceSerial)
    const second = (await machine.enroll(device, { key: await makeDeviceKey() })).reply
      .certificateId
    expect(await statuses()).toEqual(['ACTIVE', 'ACTIVE'])
    await registry.confirm(first, clock.now())
    expect(await statuses()).toEqual(['ACTIVE', 'ACTIVE'])
    await registry.confirm(second, clock.now())
    expect(await statuses()).toEqual(['ACTIVE', 'INACTIVE'])
  })

  it('with revocation ends the old certificate at once and bars its key for ever', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    await machine.enroll(device)
    await rearm(machine, device.deviceSerial, { revoke: true })
    const [certificate] = await machine.registry.certificates(device.deviceSerial)
    expect(certificate!.status).toBe('REVOKED')
    const answer = await machine.enroll(device)
    expect([answer.status, answer.problem]).toEqual([409, 'key-revoked'])
    expect((await machine.enroll(device, { key: await makeDeviceKey() })).status).toBe(200)
  })
})
