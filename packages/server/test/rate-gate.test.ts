import { describe, expect, it } from 'vitest'
import { later, minute, second } from '../src/clock.ts'
import { createRateGate, type RateGate } from '../src/rate-gate.ts'

const start = new Date('2030-01-01T00:00:00Z')
const one = { issue: 1 }

/** Everybody at once, and each back when told; what the shipped client adds to that is `lateMs`. */
function herd(gate: RateGate, devices: number, lateMs: (device: number) => number) {
  const due = Array.from({ length: devices }, (_, device) => ({ device, at: 0 }))
  let requests = 0
  const served: number[] = []
  for (let next = due.shift(); next; next = due.shift()) {
    requests += 1
    const turn = gate.ask(`key-${next.device}`, one, later(start, next.at))
    if (turn.admitted) served.push(next.at + turn.waitMs)
    else {
      const wait = Math.ceil(turn.retryAfterMs / 1000) * 1000 + lateMs(next.device)
      due.push({ device: next.device, at: next.at + wait })
      due.sort((a, b) => a.at - b.at)
    }
  }
  return { requests, served }
}

describe('the rate gate', () => {
  it('lets work through at the rate, and makes those wait whose slot is near', () => {
    const gate = createRateGate({ rates: { issue: 10 }, patienceMs: 200 })
    const turns = ['a', 'b', 'c', 'd'].map((key) => gate.ask(key, one, start))
    expect(turns).toEqual([
      { admitted: true, waitMs: 0 },
      { admitted: true, waitMs: 100 },
      { admitted: true, waitMs: 200 },
      { admitted: false, retryAfterMs: 300 },
    ])
  })

  it('keeps the slot of whoever was sent away: newcomers come after it', () => {
    const gate = createRateGate({ rates: { issue: 1 }, patienceMs: 0 })
    gate.ask('first', one, start)
    expect(gate.ask('second', one, start)).toEqual({ admitted: false, retryAfterMs: second })
    expect(gate.ask('third', one, later(start, second))).toEqual({
      admitted: false,
      retryAfterMs: second,
    })
    expect(gate.ask('second', one, later(start, second))).toEqual({ admitted: true, waitMs: 0 })
    expect(gate.reserved).toBe(1)
  })

  it('tells whoever comes too early what is left of the same wait', () => {
    const gate = createRateGate({ rates: { issue: 0.1 }, patienceMs: 0 })
    gate.ask('first', one, start)
    gate.ask('second', one, start)
    for (const passed of [1, 4, 9])
      expect(gate.ask('second', one, later(start, passed * second))).toEqual({
        admitted: false,
        retryAfterMs: (10 - passed) * second,
      })
    expect(gate.ask('third', one, start)).toMatchObject({ retryAfterMs: 20 * second })
  })

  it('gives a slot up after its time of grace', () => {
    const gate = createRateGate({ rates: { issue: 1 }, patienceMs: 0, graceMs: minute })
    gate.ask('first', one, start)
    gate.ask('second', one, start)
    const late = later(start, 2 * minute)
    gate.ask('third', one, late)
    expect(gate.ask('second', one, late)).toEqual({ admitted: false, retryAfterMs: second })
    expect(gate.reserved).toBe(1)
  })

  it('asks every quota that the work spends: the scarcest decides', () => {
    const gate = createRateGate({ rates: { create: 20, update: 10 }, patienceMs: 0 })
    const both = { create: 1, update: 1, free: 99 }
    gate.ask('first', both, start)
    expect(gate.ask('second', { create: 1 }, start)).toMatchObject({ retryAfterMs: 50 })
    expect(gate.ask('third', { update: 2 }, start)).toMatchObject({ retryAfterMs: 100 })
    expect(gate.ask('fourth', { update: 1 }, start)).toMatchObject({ retryAfterMs: 300 })
    expect(gate.ask('fifth', { free: 1 }, start)).toEqual({ admitted: true, waitMs: 0 })
  })

  it('holds a quota that turned out to be used by others', () => {
    const gate = createRateGate({ rates: { issue: 10 }, patienceMs: 0 })
    gate.throttled('issue', start)
    expect(gate.ask('first', one, start)).toEqual({ admitted: false, retryAfterMs: second })
  })

  it('lets work that can wait take its slot in the same queue', () => {
    const gate = createRateGate({ rates: { issue: 1 }, patienceMs: 0 })
    expect([0, 1, 2].map(() => gate.take(one, start))).toEqual([0, second, 2 * second])
    expect(gate.ask('first', one, start)).toMatchObject({ retryAfterMs: 3 * second })
  })

  it('remembers no more slots than it may', () => {
    const gate = createRateGate({ rates: { issue: 1 }, patienceMs: 0, capacity: 2 })
    for (const key of ['a', 'b', 'c', 'd', 'e'])
      expect(gate.ask(key, one, start).admitted).toBe(key === 'a')
    expect(gate.reserved).toBe(2)
  })

  it('refuses a rate that never lets anything through', () => {
    for (const rate of [0, -1, Number.NaN])
      expect(() => createRateGate({ rates: { issue: rate } })).toThrow(RangeError)
  })

  it('serves a herd of 10 000 at its quota: two requests each, and nobody later than his slot', () => {
    const gate = createRateGate({ rates: { issue: 10 } })
    const { requests, served } = herd(gate, 10_000, (device) => (device * 7919) % 1000)
    expect(served).toHaveLength(10_000)
    expect(requests / 10_000).toBeLessThan(2.01)
    expect(Math.max(...served)).toBeLessThan(1000 * second + 3 * second)
    expect(gate.reserved).toBe(0)
    const order = [...served].sort((a, b) => a - b)
    expect(order.every((at, index) => index === 0 || at - order[index - 1]! >= 100)).toBe(true)
  })
})
