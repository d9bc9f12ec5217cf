import { describe, expect, it } from 'vitest'
import { later } from '../src/clock.ts'
import { createFailureTable } from '../src/failures.ts'

const start = new Date('2030-01-01T00:00:00Z')

describe('the failure table', () => {
  it('asks for patience after the allowed number, until the window is over', () => {
    const count = createFailureTable({ allowed: 2, windowMs: 1000 })
    expect(count('a', 'SN-1', start)).toBeUndefined()
    expect(count('a', 'SN-1', start)).toBeUndefined()
    expect(count('a', 'SN-1', later(start, 400))).toBe(600)
    expect(count('a', 'SN-1', later(start, 999))).toBe(1)
    expect(count('a', 'SN-1', later(start, 1000))).toBeUndefined()
  })

  it('counts each address and each serial by itself', () => {
    const count = createFailureTable({ allowed: 1 })
    count('a', 'SN-1', start)
    expect(count('a', 'SN-1', start)).toBeGreaterThan(0)
    expect(count('b', 'SN-1', start)).toBeUndefined()
    expect(count('a', 'SN-2', start)).toBeUndefined()
  })

  it('does not grow: the oldest entry gives way', () => {
    const count = createFailureTable({ allowed: 1, capacity: 3 })
    for (const serial of ['SN-1', 'SN-2', 'SN-3', 'SN-4']) count('a', serial, start)
    expect(count('a', 'SN-4', start)).toBeGreaterThan(0)
    expect(count('a', 'SN-1', start)).toBeUndefined()
  })
})
