/** Claims whose keys are made by the server, imported devices, and fleets. */
import { describe, expect, it } from 'vitest'
import { day, hour, later } from '../../src/clock.ts'
import { deviceState, vendedElsewhere } from '../../src/registry/registry.ts'
import * as facts from './facts.ts'
import type { Suite } from './suite.ts'

const { hex, issued, now, token } = facts

export function againSentences(suite: Suite): void {
  const add = (deviceSerial: string) => facts.add(suite.registry, deviceSerial)
  const reserve = (deviceSerial: string, publicKey: string, at = now) =>
    facts.reserve(suite.registry, deviceSerial, publicKey, at)

  describe('a claim whose keys are made here', () => {
    const again = { certificates: 2, windowMs: day }
    const ask = (publicKey: string, at = now, limits: typeof again | undefined = again) =>
      suite.registry.reserve({
        deviceSerial: 'SN-1',
        claimNumber: 1,
        publicKey,
        certificateSerial: hex(16),
        at,
        ...(limits && { again: limits }),
      })
    const get = async (publicKey: string, at = now) => {
      const outcome = await ask(publicKey, at)
      if (outcome.outcome !== 'reserved') throw new Error(JSON.stringify(outcome))
      const one = issued(at)
      expect(await suite.registry.record(outcome.reservation, one, at)).toMatchObject({
        outcome: 'issued',
        certificate: { certificateId: one.certificateId, publicKey },
      })
      return one.certificateId
    }
    const exhausted = { outcome: 'refused', reason: 'claim-exhausted' }

    it('gives way to another key, and every certificate stays in force until one has connected', async () => {
      await add('SN-1')
      const first = await get('key-1')
      const second = await get('key-2', later(now, hour))
      expect((await suite.registry.find('SN-1'))?.claim).toMatchObject({
        publicKey: 'key-2',
        certificateId: second,
        again: { certificates: 2, since: now },
      })
      const statuses = async () =>
        (await suite.registry.certificates('SN-1')).map((one) => one.status)
      expect(await statuses()).toEqual(['ACTIVE', 'ACTIVE'])
      await suite.registry.confirm(second, later(now, hour))
      expect(await statuses()).toEqual(['ACTIVE', 'INACTIVE'])
      expect((await suite.registry.findCertificate(first))?.status).toBe('INACTIVE')
      const trail = await suite.registry.events({ deviceSerial: 'SN-1', limit: 100 })
      expect(trail.filter(({ note }) => note === 'asked again').map(({ name }) => name)).toEqual([
        'claim-reserved',
      ])
    })

    it('is exhausted when it has its certificates, without an alarm, until it is re-armed', async () => {
      await add('SN-1')
      await get('key-1')
      await get('key-2')
      expect(await ask('key-3')).toEqual(exhausted)
      expect(await ask('key-1')).toEqual(exhausted)
      const names = (await suite.registry.events({ limit: 100 })).map(({ name }) => name)
      expect(names).not.toContain('claim-conflict')
      await suite.registry.rearm(
        'SN-1',
        { token: 'keep', openUntil: later(now, day), revoke: false },
        now,
      )
      expect((await suite.registry.find('SN-1'))?.claim.again).toBeUndefined()
      const rearmed = await suite.registry.reserve({
        deviceSerial: 'SN-1',
        claimNumber: 2,
        publicKey: 'key-3',
        certificateSerial: hex(16),
        at: now,
        again,
      })
      expect(rearmed.outcome).toBe('reserved')
    })

    it('is exhausted when its first certificate is as old as the window is long', async () => {
      await add('SN-1')
      await get('key-1')
      expect(await ask('key-2', later(now, day))).toEqual(exhausted)
      expect((await ask('key-2', later(now, day - 1))).outcome).toBe('reserved')
    })

    it('is not used up by keys that got no certificate', async () => {
      await add('SN-1')
      for (const key of ['key-1', 'key-2', 'key-3', 'key-4'])
        expect((await ask(key, now, { certificates: 1, windowMs: 0 })).outcome).toBe('reserved')
      await get('key-5', later(now, 30 * day))
      expect(await ask('key-6', later(now, 30 * day), { certificates: 1, windowMs: day })).toEqual(
        exhausted,
      )
    })

    it('does not record a key that was replaced, and raises no alarm over it', async () => {
      await add('SN-1')
      const slow = await ask('key-1')
      const fast = await get('key-2')
      if (slow.outcome !== 'reserved') throw new Error(slow.outcome)
      expect(await suite.registry.record(slow.reservation, issued(), now)).toEqual({
        outcome: 'refused',
        reason: 'claim-replaced',
      })
      expect(await suite.registry.certificates('SN-1')).toMatchObject([{ certificateId: fast }])
      const names = (await suite.registry.events({ limit: 100 })).map(({ name }) => name)
      expect(names).not.toContain('claim-conflict')
    })

    it('does not give way to a key of the device itself, nor the other way round', async () => {
      await add('SN-1')
      await get('key-1')
      const conflict = { outcome: 'refused', reason: 'claim-conflict' }
      expect(await reserve('SN-1', 'own key')).toEqual(conflict)
      await add('SN-2')
      await reserve('SN-2', 'own key of SN-2')
      const request = {
        deviceSerial: 'SN-2',
        claimNumber: 1,
        publicKey: 'key made here',
        certificateSerial: hex(16),
        at: now,
        again,
      }
      expect(await suite.registry.reserve(request)).toEqual(conflict)
      expect((await suite.registry.find('SN-2'))?.claim.again).toBeUndefined()
    })

    it('takes no key that belongs to another device or was revoked', async () => {
      await add('SN-1')
      await add('SN-2')
      await reserve('SN-2', 'key of SN-2')
      const revoked = await get('key-1')
      await suite.registry.setCertificateStatus(revoked, 'REVOKED', now)
      await ask('key-2')
      expect(await ask('key of SN-2')).toEqual({ outcome: 'refused', reason: 'key-conflict' })
      expect(await ask('key-1')).toEqual({ outcome: 'refused', reason: 'key-revoked' })
      expect((await suite.registry.find('SN-1'))?.claim.publicKey).toBe('key-2')
    })

    it('of a disabled device stays with the key it has', async () => {
      await add('SN-1')
      await get('key-1')
      await suite.registry.setDisabled('SN-1', true, now)
      expect(await ask('key-2')).toEqual({ outcome: 'refused', reason: 'device-disabled' })
      expect((await suite.registry.find('SN-1'))?.claim.publicKey).toBe('key-1')
    })
  })
  describe('an imported device', () => {
    it('is added with its state, and of two alike the first', async () => {
      await add('SN-0')
      const outcomes = await suite.registry.addAll(
        [
          { deviceSerial: 'SN-1', thingName: 'SN-1', token },
          { deviceSerial: 'SN-1', thingName: 'other', token },
          { deviceSerial: 'SN-2', thingName: 'SN-0' },
          { deviceSerial: 'SN-3', thingName: 'SN-3', disabled: true, fleet: 'pumps' },
          { deviceSerial: 'SN-4', thingName: 'SN-4', token, spentOn: hex(32) },
          { deviceSerial: 'SN-5', thingName: 'SN-5', token, spentOn: vendedElsewhere },
        ],
        now,
      )
      expect(outcomes).toEqual([
        'added',
        'serial-taken',
        'thing-name-taken',
        'added',
        'added',
        'added',
      ])
      const devices = (await suite.registry.list({ limit: 10 })).toSorted((one, other) =>
        one.deviceSerial < other.deviceSerial ? -1 : 1,
      )
      const states = devices.map((device) => deviceState(device, now))
      expect(states).toEqual(['waiting', 'waiting', 'disabled', 'enrolled', 'enrolled'])
      expect((await suite.registry.find('SN-3'))?.fleet).toBe('pumps')
    })

    it('that was vended elsewhere gives its claim to no key until it is re-armed', async () => {
      await suite.registry.addAll(
        [{ deviceSerial: 'SN-1', thingName: 'SN-1', token, spentOn: vendedElsewhere }],
        now,
      )
      const elsewhere = { outcome: 'refused', reason: 'claim-vended-elsewhere' }
      expect(await reserve('SN-1', 'key')).toEqual(elsewhere)
      const again = { certificates: 5, windowMs: day }
      const request = { deviceSerial: 'SN-1', claimNumber: 1, publicKey: 'key', at: now, again }
      expect(await suite.registry.reserve({ ...request, certificateSerial: hex(16) })).toEqual(
        elsewhere,
      )
      await suite.registry.rearm(
        'SN-1',
        { token: 'keep', openUntil: later(now, day), revoke: false },
        now,
      )
      const rearmed = { ...request, claimNumber: 2, certificateSerial: hex(16) }
      expect((await suite.registry.reserve(rearmed)).outcome).toBe('reserved')
    })
  })
  describe('a fleet', () => {
    it('is there once, by name, until it is removed, and the trail tells of it', async () => {
      expect(await suite.registry.addFleet('pumps', token, now)).toBe(true)
      expect(await suite.registry.addFleet('pumps', { ...token, hash: hex(32) }, now)).toBe(false)
      expect(await suite.registry.addFleet('gates', token, now)).toBe(true)
      expect(await suite.registry.findFleet('pumps')).toEqual({
        name: 'pumps',
        token,
        createdAt: now,
      })
      expect((await suite.registry.fleets()).map(({ name }) => name)).toEqual(['gates', 'pumps'])
      expect(await suite.registry.removeFleet('pumps', now)).toBe(true)
      expect(await suite.registry.removeFleet('pumps', now)).toBe(false)
      expect(await suite.registry.findFleet('pumps')).toBeUndefined()
      const trail = await suite.registry.events({ deviceSerial: 'fleet/pumps', limit: 10 })
      expect(trail.map(({ name }) => name)).toEqual(['fleet-added', 'fleet-removed'])
    })
  })
}
