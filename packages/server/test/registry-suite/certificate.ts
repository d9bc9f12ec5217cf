/** What becomes of certificates once they are recorded. */
import { describe, expect, it } from 'vitest'
import { day, hour, later, minute } from '../../src/clock.ts'
import * as facts from './facts.ts'
import type { Suite } from './suite.ts'

const { hex, issued, now, token } = facts

export function certificateSentences(suite: Suite): void {
  const enroll = async (deviceSerial: string, publicKey: string, claimNumber = 1, at = now) => {
    const outcome = await suite.registry.reserve({
      deviceSerial,
      claimNumber,
      publicKey,
      certificateSerial: hex(16),
      at,
    })
    if (outcome.outcome !== 'reserved') throw new Error(JSON.stringify(outcome))
    const one = issued(at)
    await suite.registry.record(outcome.reservation, one, at)
    return one.certificateId
  }
  const rearm = (revoke: boolean, at = now) =>
    suite.registry.rearm('SN-1', { token: 'keep', openUntil: later(at, day), revoke }, at)
  const statuses = async () => (await suite.registry.certificates('SN-1')).map((one) => one.status)
  const ask = async (publicKey: string, claimNumber = 1, at = now) => {
    const request = { deviceSerial: 'SN-1', claimNumber, publicKey, certificateSerial: '01', at }
    const outcome = await suite.registry.reserve(request)
    return outcome.outcome === 'refused' ? outcome.reason : outcome.outcome
  }

  describe('a certificate', () => {
    it('is kept as it was issued, with what the device was then', async () => {
      const description = { deviceSerial: 'SN-1', thingName: 'thing', policyName: 'devices' }
      await suite.registry.add(description, token, now)
      const reserved = await facts.reservation(suite.registry, 'SN-1', 'key')
      const certificateArn = 'arn:aws:iot:eu-west-1:123456789012:cert/abc'
      const one = { ...issued(), certificateArn }
      await suite.registry.record(reserved, one, later(now, minute))
      const kept = {
        ...one,
        deviceSerial: 'SN-1',
        certificateSerial: reserved.certificateSerial,
        publicKey: 'key',
        status: 'ACTIVE',
        thingName: 'thing',
        policyName: 'devices',
        issuedAt: later(now, minute),
      }
      expect(await suite.registry.findCertificate(one.certificateId)).toEqual(kept)
      expect(await suite.registry.certificates('SN-1')).toEqual([kept])
      expect(await suite.registry.findCertificate(hex(32))).toBeUndefined()
    })

    it('is handed out to its key again while it is in force, and no longer', async () => {
      await facts.add(suite.registry, 'SN-1')
      const id = await enroll('SN-1', 'key')
      expect(await ask('key', 1, later(now, 300 * day))).toBe('issued')
      expect(await ask('key', 1, later(now, 365 * day))).toBe('certificate-finished')
      await suite.registry.setCertificateStatus(id, 'INACTIVE', now)
      expect(await ask('key')).toBe('certificate-finished')
      await suite.registry.setCertificateStatus(id, 'ACTIVE', now)
      expect(await ask('key')).toBe('issued')
    })

    it('that is REVOKED stays so, and bars its key for ever', async () => {
      await facts.add(suite.registry, 'SN-1')
      const id = await enroll('SN-1', 'key')
      expect(await suite.registry.setCertificateStatus(id, 'REVOKED', now)).toBe(true)
      expect(await suite.registry.setCertificateStatus(id, 'ACTIVE', now)).toBe(false)
      expect(await ask('key')).toBe('certificate-revoked')
      await rearm(false)
      expect(await ask('key', 2)).toBe('key-revoked')
      expect(await ask('another key', 2)).toBe('reserved')
    })

    it('retires the older ones when it has connected, once, and none that is newer', async () => {
      await facts.add(suite.registry, 'SN-1')
      const first = await enroll('SN-1', 'key 1')
      await rearm(false)
      const second = await enroll('SN-1', 'key 2', 2, later(now, minute))
      await suite.registry.confirm(first, now)
      expect(await statuses()).toEqual(['ACTIVE', 'ACTIVE'])
      const at = later(now, minute)
      await suite.registry.confirm(second, at)
      expect(await statuses()).toEqual(['ACTIVE', 'INACTIVE'])
      expect((await suite.registry.findCertificate(second))?.confirmedAt).toEqual(at)
      await suite.registry.setCertificateStatus(first, 'ACTIVE', at)
      await suite.registry.confirm(second, later(at, minute))
      expect(await statuses()).toEqual(['ACTIVE', 'ACTIVE'])
      expect((await suite.registry.findCertificate(second))?.confirmedAt).toEqual(at)
    })

    it('that is not ACTIVE confirms nothing', async () => {
      await facts.add(suite.registry, 'SN-1')
      await enroll('SN-1', 'key 1')
      await rearm(false)
      const second = await enroll('SN-1', 'key 2', 2)
      await suite.registry.setCertificateStatus(second, 'INACTIVE', now)
      await suite.registry.confirm(second, now)
      expect(await statuses()).toEqual(['INACTIVE', 'ACTIVE'])
    })

    it('becomes REVOKED at once when its device is re-armed so, or removed', async () => {
      await facts.add(suite.registry, 'SN-1')
      await enroll('SN-1', 'key 1')
      await rearm(true)
      expect(await statuses()).toEqual(['REVOKED'])
      await enroll('SN-1', 'key 2', 2)
      await suite.registry.remove('SN-1', now)
      expect(await statuses()).toEqual(['REVOKED', 'REVOKED'])
    })
  })

  describe('a key', () => {
    it('belongs to the serial that bound it first', async () => {
      await facts.add(suite.registry, 'SN-1')
      expect(await suite.registry.keyHolder('key')).toBeUndefined()
      await enroll('SN-1', 'key')
      expect(await suite.registry.keyHolder('key')).toBe('SN-1')
      await suite.registry.remove('SN-1', now)
      expect(await suite.registry.keyHolder('key')).toBe('SN-1')
    })

    it('belongs to one serial, also after that device was removed', async () => {
      await facts.add(suite.registry, 'SN-1')
      await facts.add(suite.registry, 'SN-2')
      await enroll('SN-2', 'key')
      expect(await ask('key')).toBe('key-conflict')
      await suite.registry.remove('SN-2', now)
      expect(await ask('key')).toBe('key-conflict')
      const trail = await suite.registry.events({ deviceSerial: 'SN-1', limit: 10 })
      expect(trail.map(({ name, publicKey }) => [name, publicKey]).slice(1)).toEqual([
        ['key-conflict', 'key'],
        ['key-conflict', 'key'],
      ])
    })

    it('that comes too late binds nothing', async () => {
      await facts.add(suite.registry, 'SN-1')
      await rearm(false)
      expect(await ask('key', 2, later(now, day))).toBe('claim-expired')
      expect(await ask('key', 1)).toBe('claim-gone')
      expect((await suite.registry.find('SN-1'))?.claim.publicKey).toBeUndefined()
    })
  })

  describe('a renewal', () => {
    const renew = async (publicKey: string, claimNumber: number, at = now) => {
      const request = {
        deviceSerial: 'SN-1',
        claimNumber,
        publicKey,
        certificateSerial: hex(16),
        at,
      }
      return suite.registry.reserve({ ...request, renews: true })
    }

    it('opens the next claim for its key, keeps the token, and says so in the trail', async () => {
      await facts.add(suite.registry, 'SN-1')
      await rearm(false)
      await enroll('SN-1', 'key 1', 2)
      const outcome = await renew('key 2', 2, later(now, 2 * day))
      if (outcome.outcome !== 'reserved') throw new Error(JSON.stringify(outcome))
      expect(outcome.reservation).toMatchObject({ claimNumber: 3, publicKey: 'key 2' })
      await suite.registry.record(outcome.reservation, issued(), later(now, 2 * day))
      expect(await statuses()).toEqual(['ACTIVE', 'ACTIVE'])
      const claim = (await suite.registry.find('SN-1'))?.claim
      expect(claim).toMatchObject({ number: 3, token, publicKey: 'key 2' })
      expect(claim?.openUntil).toBeUndefined()
      const trail = await suite.registry.events({ deviceSerial: 'SN-1', limit: 100 })
      expect(trail.filter(({ note }) => note === 'by certificate')).toHaveLength(1)
    })

    it('leaves an open claim, and one whose key has yet to get its certificate, alone', async () => {
      await facts.add(suite.registry, 'SN-1')
      const open = { outcome: 'refused', reason: 'claim-open' }
      expect(await renew('key', 1)).toEqual(open)
      await facts.reserve(suite.registry, 'SN-1', 'key 1')
      expect(await renew('key 2', 1)).toEqual(open)
      expect((await renew('key 2', 1, later(now, hour))).outcome).toBe('reserved')
    })

    it('takes the place of a claim whose time is over, which nobody can use any more', async () => {
      await facts.add(suite.registry, 'SN-1')
      await enroll('SN-1', 'key 1')
      await rearm(false)
      const open = { outcome: 'refused', reason: 'claim-open' }
      expect(await renew('key 2', 2, later(now, day - 1))).toEqual(open)
      expect(await renew('key 2', 2, later(now, day))).toMatchObject({
        outcome: 'reserved',
        reservation: { claimNumber: 3, publicKey: 'key 2' },
      })
      expect(await ask('key 3', 2, later(now, day))).toBe('claim-gone')
      expect((await suite.registry.find('SN-1'))?.claim.openUntil).toBeUndefined()
    })

    it('takes no key that belongs to another device or was revoked', async () => {
      await facts.add(suite.registry, 'SN-1')
      await facts.add(suite.registry, 'SN-2')
      await enroll('SN-2', 'key of SN-2')
      const first = await enroll('SN-1', 'key 1')
      await suite.registry.setCertificateStatus(first, 'REVOKED', now)
      await rearm(false)
      await enroll('SN-1', 'key 2', 2)
      expect(await renew('key of SN-2', 2)).toMatchObject({ reason: 'key-conflict' })
      expect(await renew('key 1', 2)).toMatchObject({ reason: 'key-revoked' })
      expect((await suite.registry.find('SN-1'))?.claim.number).toBe(2)
    })
  })

  describe('weak tokens', () => {
    it('are known of, wherever they came in', async () => {
      const weak = { kind: 'scrypt', hash: `${hex(16)}$${hex(32)}` } as const
      await facts.add(suite.registry, 'SN-1')
      expect(await suite.registry.hasWeakTokens()).toBe(false)
      const how = { token: weak, openUntil: later(now, day), revoke: false }
      await suite.registry.rearm('SN-1', how, now)
      expect(await suite.registry.hasWeakTokens()).toBe(true)
      expect((await suite.registry.find('SN-1'))?.claim.token).toEqual(weak)
      const other = await suite.place.open()
      expect(await other.hasWeakTokens()).toBe(true)
      await other.close()
    })
  })
}
