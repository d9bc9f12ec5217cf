/** What holds however many processes ask at once. */
import { describe, expect, it } from 'vitest'
import { day, later } from '../../src/clock.ts'
import type { ClaimOutcome, Registry } from '../../src/registry/registry.ts'
import * as facts from './facts.ts'
import type { Suite } from './suite.ts'

const { hex, issued, now, token } = facts

export function raceSentences(suite: Suite): void {
  /** Calls `work` on each of four connections in turn, all at once. */
  const race = async <T>(
    runners: number,
    work: (registry: Registry, index: number) => Promise<T>,
  ): Promise<T[]> => {
    const connections = await Promise.all(Array.from({ length: 4 }, () => suite.place.open()))
    try {
      return await Promise.all(
        Array.from({ length: runners }, (_, index) => work(connections[index % 4]!, index)),
      )
    } finally {
      await Promise.all(connections.map((connection) => connection.close()))
    }
  }
  const reasons = (outcomes: readonly ClaimOutcome[]) =>
    new Set(outcomes.map((one) => (one.outcome === 'refused' ? one.reason : one.outcome)))

  describe('of those that race', () => {
    it('for one claim, 200 with a key of their own each, one wins and gets the one certificate', async () => {
      await facts.add(suite.registry, 'SN-1')
      const outcomes = await race(200, async (registry, index) => {
        const outcome = await facts.reserve(registry, 'SN-1', `key-${index}`)
        return outcome.outcome === 'reserved'
          ? registry.record(outcome.reservation, issued(), now)
          : outcome
      })
      expect(outcomes.filter((one) => one.outcome === 'issued')).toHaveLength(1)
      expect(reasons(outcomes)).toEqual(new Set(['issued', 'claim-conflict']))
      expect(await suite.registry.certificates('SN-1')).toHaveLength(1)
      const trail = await suite.registry.events({ deviceSerial: 'SN-1', limit: 1000 })
      const count = (name: string) => trail.filter((event) => event.name === name).length
      expect([count('claim-reserved'), count('certificate-issued')]).toEqual([1, 1])
      expect(count('claim-conflict')).toBe(199)
    }, 60_000)

    it('for one claim with one key, all get the same certificate', async () => {
      await facts.add(suite.registry, 'SN-1')
      const outcomes = await race(50, async (registry) => {
        const outcome = await facts.reserve(registry, 'SN-1', 'key')
        return outcome.outcome === 'reserved'
          ? registry.record(outcome.reservation, issued(), now)
          : outcome
      })
      expect(reasons(outcomes)).toEqual(new Set(['issued']))
      const ids = outcomes.map((one) => one.outcome === 'issued' && one.certificate.certificateId)
      expect(new Set(ids).size).toBe(1)
      const trail = await suite.registry.events({ deviceSerial: 'SN-1', limit: 1000 })
      const names = trail.map((event) => event.name)
      expect(names).toEqual(['device-added', 'claim-reserved', 'certificate-issued'])
    }, 60_000)

    it('with one key for claims of their own, one device gets it', async () => {
      for (let index = 0; index < 20; index += 1) await facts.add(suite.registry, `SN-${index}`)
      const outcomes = await race(20, (registry, index) =>
        facts.reserve(registry, `SN-${index}`, 'the same key'),
      )
      expect(outcomes.filter((one) => one.outcome === 'reserved')).toHaveLength(1)
      expect(reasons(outcomes)).toEqual(new Set(['reserved', 'key-conflict']))
    })
  })

  it('one of twenty that add the same serial, or the same thing name, adds it', async () => {
    const serials = await race(20, (registry, index) =>
      registry.add({ deviceSerial: 'SN-1', thingName: `thing-${index}` }, token, now),
    )
    expect(serials.toSorted()).toEqual(['added', ...Array(19).fill('serial-taken')])
    const names = await race(20, (registry, index) =>
      registry.add({ deviceSerial: `SN-2-${index}`, thingName: 'one-thing' }, token, now),
    )
    expect(names.toSorted()).toEqual(['added', ...Array(19).fill('thing-name-taken')])
  })

  it('a claim that is re-armed in the middle of an enrollment gets no certificate of before', async () => {
    await facts.add(suite.registry, 'SN-1')
    const old = await facts.reservation(suite.registry, 'SN-1', 'key')
    const other = await suite.place.open()
    await other.rearm('SN-1', { token: 'keep', openUntil: later(now, day), revoke: true }, now)
    const outcome = await suite.registry.record(old, issued(), now)
    expect(outcome).toEqual({ outcome: 'refused', reason: 'claim-gone' })
    expect(await other.certificates('SN-1')).toEqual([])
    const request = { deviceSerial: 'SN-1', claimNumber: 2, publicKey: 'key 2', at: now }
    const next = await other.reserve({ ...request, certificateSerial: hex(16) })
    expect(next.outcome).toBe('reserved')
    await other.close()
  })
}
