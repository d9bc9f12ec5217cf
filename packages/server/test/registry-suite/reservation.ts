/** How a key is bound to a claim, and a certificate to the key. */
import { describe, expect, it } from 'vitest'
import { hour, later } from '../../src/clock.ts'
import { reservationMs } from '../../src/registry/registry.ts'
import * as facts from './facts.ts'
import type { Suite } from './suite.ts'

const { issued, now } = facts

export function reservationSentences(suite: Suite): void {
  const add = (deviceSerial: string) => facts.add(suite.registry, deviceSerial)
  const reserve = (deviceSerial: string, publicKey: string, at = now) =>
    facts.reserve(suite.registry, deviceSerial, publicKey, at)
  const reservation = (deviceSerial: string, publicKey: string) =>
    facts.reservation(suite.registry, deviceSerial, publicKey)

  describe('a reservation', () => {
    it('stays the same when it is made again within the hour, and is renewed after it', async () => {
      await add('SN-1')
      const first = await reserve('SN-1', 'key')
      const soon = await reserve('SN-1', 'key', later(now, reservationMs - 1))
      expect(soon).toEqual(first)
      const after = later(now, reservationMs)
      const renewed = await reserve('SN-1', 'key', after)
      expect(renewed).not.toEqual(first)
      expect(renewed).toMatchObject({ reservation: { reservedAt: after } })
    })

    it('that was renewed can no longer be recorded, and says what to sign instead', async () => {
      await add('SN-1')
      const old = await reservation('SN-1', 'key')
      const at = later(now, 2 * hour)
      const renewed = await reserve('SN-1', 'key', at)
      expect(await suite.registry.record(old, issued(), at)).toEqual(renewed)
      expect(await suite.registry.certificates('SN-1')).toEqual([])
    })

    it('is recorded once: whoever is slower gets the certificate of whoever was faster', async () => {
      await add('SN-1')
      const reserved = await reservation('SN-1', 'key')
      const [fast, slow] = [issued(), issued()]
      const first = await suite.registry.record(reserved, fast, now)
      const second = await suite.registry.record(reserved, slow, now)
      expect(first).toMatchObject({ certificate: { certificateId: fast.certificateId } })
      expect(second).toEqual(first)
      expect(await suite.registry.findCertificate(slow.certificateId)).toBeUndefined()
    })

    it('is not recorded for a device that was disabled meanwhile', async () => {
      await add('SN-1')
      const reserved = await reservation('SN-1', 'key')
      await suite.registry.setDisabled('SN-1', true, now)
      const outcome = await suite.registry.record(reserved, issued(), now)
      expect(outcome).toEqual({ outcome: 'refused', reason: 'device-disabled' })
      expect(await suite.registry.certificates('SN-1')).toEqual([])
    })
  })
}
