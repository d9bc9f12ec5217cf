/** When a credential is to be renewed: early enough, spread over a fleet, and the same after every restart. */
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { type Lifetime, renewalDue } from '../src/certificate.ts'

const minute = 60_000
const day = 24 * 60 * minute
const issuedAt = new Date('2027-03-01T12:00:00Z')

/** Of a certificate that its issuer has dated back by five minutes. */
const lifetime = (lifeMs: number, more: Partial<Lifetime> = {}): Lifetime => ({
  certificateId: '0'.repeat(64),
  notBefore: new Date(issuedAt.getTime() - 5 * minute),
  notAfter: new Date(issuedAt.getTime() + lifeMs),
  issuedAt,
  ...more,
})

/** After which part of the life that it had at its issue. */
const part = (one: Lifetime): number =>
  (renewalDue(one).getTime() - issuedAt.getTime()) / (one.notAfter.getTime() - issuedAt.getTime())

const fleet = Array.from({ length: 1000 }, (_, n) =>
  createHash('sha256').update(`device ${n}`).digest('hex'),
)

describe('a renewal is due', () => {
  it.each([
    ['ten minutes', 10 * minute],
    ['a day', day],
    ['90 days', 90 * day],
    ['a year', 365 * day],
    ['until 2049', Date.parse('2049-12-31T23:59:59Z') - issuedAt.getTime()],
  ])('after two thirds to three quarters of a life of %s', (_, lifeMs) => {
    for (const certificateId of fleet) {
      const at = part(lifetime(lifeMs, { certificateId }))
      expect(at).toBeGreaterThanOrEqual(2 / 3 - 1e-6)
      expect(at).toBeLessThanOrEqual(3 / 4)
    }
  })

  it('at another moment for each of a fleet that was enrolled in one second, about as many each day', () => {
    const moments = fleet.map((certificateId) => renewalDue(lifetime(365 * day, { certificateId })))
    const days = new Map<number, number>()
    for (const at of moments) {
      const one = Math.floor(at.getTime() / day)
      days.set(one, (days.get(one) ?? 0) + 1)
    }
    expect(new Set(moments.map(Number)).size).toBe(fleet.length)
    expect(days.size).toBeGreaterThanOrEqual(30)
    expect(Math.max(...days.values())).toBeLessThan(70)
  })

  it('at the same moment whenever it is asked', () => {
    const asked = lifetime(365 * day)
    expect(renewalDue({ ...asked })).toEqual(renewalDue(asked))
  })

  it('never at once, also where the certificate was dated back by more than it lasts', () => {
    const notBefore = new Date(issuedAt.getTime() - 60 * minute)
    const due = renewalDue(lifetime(10 * minute, { notBefore }))
    expect(due.getTime() - issuedAt.getTime()).toBeGreaterThan(6 * minute)
  })

  it('never within a minute of the issue, also of a certificate that ends in seconds', () => {
    const due = renewalDue(lifetime(3000))
    expect(due.getTime() - issuedAt.getTime()).toBe(minute)
  })

  it.each([
    ['ten years ahead', '2037-03-01T12:00:00Z'],
    ['in 1970', '1970-01-01T00:00:00Z'],
  ])('by the certificate’s own dates when the clock was %s at its issue', (_, wrong) => {
    const asked = lifetime(365 * day)
    const due = renewalDue({ ...asked, issuedAt: new Date(wrong) })
    expect(due > asked.notBefore && due < asked.notAfter).toBe(true)
    expect(Math.abs(due.getTime() - renewalDue(asked).getTime())).toBeLessThan(10 * minute)
  })
})
