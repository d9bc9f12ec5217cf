/** The audit trail: what happened, for good. */
import { describe, expect, it } from 'vitest'
import { day, later } from '../../src/clock.ts'
import * as facts from './facts.ts'
import type { Suite } from './suite.ts'

const { hex, issued, now, token } = facts

export function trailSentences(suite: Suite): void {
  const add = (deviceSerial: string) => facts.add(suite.registry, deviceSerial)
  const reserve = (deviceSerial: string, publicKey: string, at = now) =>
    facts.reserve(suite.registry, deviceSerial, publicKey, at)
  const reservation = (deviceSerial: string, publicKey: string) =>
    facts.reservation(suite.registry, deviceSerial, publicKey)

  describe('the audit trail', () => {
    it('tells the life of a device, in order', async () => {
      await add('SN-1')
      const one = issued()
      await suite.registry.record(await reservation('SN-1', 'key'), one, now)
      await suite.registry.confirm(one.certificateId, now)
      await suite.registry.confirm(one.certificateId, now)
      await reserve('SN-1', 'another key')
      await suite.registry.rearm('SN-1', { token, openUntil: later(now, day), revoke: true }, now)
      const trail = await suite.registry.events({ deviceSerial: 'SN-1', limit: 100 })
      expect(trail.map((event) => event.name)).toEqual([
        'device-added',
        'claim-reserved',
        'certificate-issued',
        'certificate-confirmed',
        'claim-conflict',
        'device-rearmed',
        'certificate-status',
      ])
      const [first] = trail
      const rest = await suite.registry.events({ deviceSerial: 'SN-1', after: first!.id, limit: 2 })
      expect(rest).toEqual(trail.slice(1, 3))
    })

    it('names a certificate that was never recorded once, under the CA that signed it', async () => {
      const [one, other, ca] = [hex(32), hex(32), hex(32)]
      expect(await suite.registry.noteUnknown(one, ca, now)).toBe(true)
      expect(await suite.registry.noteUnknown(one, ca, later(now, day))).toBe(false)
      expect(await suite.registry.noteUnknown(other, ca, now)).toBe(true)
      const events = await suite.registry.events({ deviceSerial: `ca/${ca}`, limit: 10 })
      expect(events.map(({ name, certificateId }) => [name, certificateId])).toEqual([
        ['certificate-unknown', one],
        ['certificate-unknown', other],
      ])
    })

    it('of all devices reads page by page, each event once', async () => {
      const serials = ['SN-1', 'SN-2', 'SN-3']
      for (const serial of serials) await add(serial)
      for (const serial of serials) await suite.registry.setDisabled(serial, true, later(now, 1))
      const seen: string[] = []
      for (let after: string | undefined; ; ) {
        const page = await suite.registry.events({
          limit: 4,
          ...(after !== undefined && { after }),
        })
        if (page.length === 0) break
        seen.push(...page.map((event) => `${event.name} ${event.deviceSerial}`))
        after = page.at(-1)!.id
      }
      const all = ['device-added', 'device-disabled'].flatMap((name) =>
        serials.map((serial) => `${name} ${serial}`),
      )
      expect(seen.toSorted()).toEqual(all)
      expect(seen.slice(0, 3).toSorted()).toEqual(all.slice(0, 3))
    })
  })
}
