/** What a registry knows of devices. */
import { describe, expect, it } from 'vitest'
import { day, later } from '../../src/clock.ts'
import { deviceState } from '../../src/registry/registry.ts'
import * as facts from './facts.ts'
import type { Suite } from './suite.ts'

const { hex, issued, now, token } = facts

export function deviceSentences(suite: Suite): void {
  const add = (deviceSerial: string) => facts.add(suite.registry, deviceSerial)
  const reservation = (deviceSerial: string, publicKey: string) =>
    facts.reservation(suite.registry, deviceSerial, publicKey)

  describe('a device', () => {
    it('is kept as it was described, and lists once, page by page', async () => {
      const description = {
        deviceSerial: 'SN-2',
        thingName: 'thing:2',
        policyName: 'devices',
        thingType: 'gateway',
        attributes: { site: 'B', line: '7' },
      }
      expect(await suite.registry.add(description, token, now)).toBe('added')
      for (const serial of ['SN-3', 'SN-1', 'SN-4']) await add(serial)
      expect(await suite.registry.find('SN-2')).toEqual({
        ...description,
        disabled: false,
        claim: { number: 1, token },
        createdAt: now,
        changedAt: now,
      })
      const seen: string[] = []
      for (let after = ''; ; ) {
        const page = await suite.registry.list({ after, limit: 3 })
        if (page.length === 0) break
        seen.push(...page.map((row) => row.deviceSerial))
        after = seen.at(-1)!
      }
      expect(seen.toSorted()).toEqual(['SN-1', 'SN-2', 'SN-3', 'SN-4'])
    })

    it('is refused when its serial or its thing name is taken, and nothing is changed', async () => {
      await suite.registry.add({ deviceSerial: 'SN-1', thingName: 'thing' }, token, now)
      const other = { ...token, hash: hex(32) }
      const again = suite.registry.add({ deviceSerial: 'SN-1', thingName: 'x' }, other, now)
      expect(await again).toBe('serial-taken')
      const twin = suite.registry.add({ deviceSerial: 'SN-2', thingName: 'thing' }, other, now)
      expect(await twin).toBe('thing-name-taken')
      expect((await suite.registry.find('SN-1'))?.claim.token).toEqual(token)
      expect(await suite.registry.find('SN-2')).toBeUndefined()
      expect(await suite.registry.events({ limit: 10 })).toHaveLength(1)
    })

    it('that does not exist cannot be changed', async () => {
      const how = { token: 'keep', openUntil: later(now, day), revoke: true } as const
      expect(await suite.registry.setDisabled('SN-1', true, now)).toBe(false)
      expect(await suite.registry.rearm('SN-1', how, now)).toBe(false)
      expect(await suite.registry.remove('SN-1', now)).toBe(false)
      expect(await suite.registry.setCertificateStatus(hex(32), 'REVOKED', now)).toBe(false)
      await suite.registry.confirm(hex(32), now)
      expect(await suite.registry.events({ limit: 10 })).toEqual([])
    })

    it('that is removed leaves its certificates, revoked, and its trail', async () => {
      await add('SN-1')
      await suite.registry.record(await reservation('SN-1', 'key'), issued(), now)
      expect(await suite.registry.remove('SN-1', now)).toBe(true)
      expect(await suite.registry.find('SN-1')).toBeUndefined()
      const [certificate] = await suite.registry.certificates('SN-1')
      expect(certificate?.status).toBe('REVOKED')
      const trail = await suite.registry.events({ deviceSerial: 'SN-1', limit: 10 })
      expect(trail.at(-1)?.name).toBe('device-removed')
    })

    it('that was removed and added again does not open its old reservation', async () => {
      await add('SN-1')
      const old = await reservation('SN-1', 'key')
      await suite.registry.remove('SN-1', now)
      await add('SN-1')
      const outcome = await suite.registry.record(old, issued(), now)
      expect(outcome).toEqual({ outcome: 'refused', reason: 'claim-gone' })
      expect(await suite.registry.certificates('SN-1')).toEqual([])
    })

    it('stands where the facts of its row say', async () => {
      const state = async (at = now) => deviceState((await suite.registry.find('SN-1'))!, at)
      await add('SN-1')
      expect(await state()).toBe('waiting')
      await suite.registry.rearm(
        'SN-1',
        { token: 'keep', openUntil: later(now, day), revoke: false },
        now,
      )
      expect(await state(later(now, day))).toBe('expired')
      await suite.registry.reserve({
        deviceSerial: 'SN-1',
        claimNumber: 2,
        publicKey: 'key',
        certificateSerial: '01',
        at: now,
      })
      expect(await state()).toBe('reserved')
      await suite.registry.setDisabled('SN-1', true, now)
      expect(await state()).toBe('disabled')
    })
  })
}
