import { describe, expect, it } from 'vitest'
import { againAt, decide, type Facts, type FailedAttempt, lookAgainMs } from '../src/lifecycle.ts'

const now = new Date('2027-03-01T12:00:00Z')
const ago = (ms: number): Date => new Date(now.getTime() - ms)
const failure = (more: Partial<FailedAttempt> = {}): FailedAttempt => ({
  remedy: 'retry',
  at: ago(10_000),
  inARow: 1,
  draw: 0.5,
  ...more,
})

const failures = {
  none: undefined,
  due: failure(),
  'not due': failure({ at: now, inARow: 4 }),
  'told to wait': failure({ at: now, retryAt: new Date(now.getTime() + 60_000) }),
  'told to wait for hours': failure({ at: now, retryAt: new Date(now.getTime() + 9 * 3_600_000) }),
  'refused just now': failure({ at: now, remedy: 'operator' }),
  'refused long ago': failure({ at: ago(600_001), remedy: 'operator' }),
  'before the clock went back': failure({ at: new Date(now.getTime() + 1e12), inARow: 9 }),
} as const

type Expected = 'enroll' | 'connect' | 'stop' | 'look again' | number

/** What is decided without a credential and with a usable claim, by how the last attempt went. */
const asking: Record<keyof typeof failures, Expected> = {
  none: 'enroll',
  due: 'enroll',
  'not due': 4000,
  'told to wait': 60_500,
  'told to wait for hours': 'look again',
  'refused just now': 'look again',
  'refused long ago': 'enroll',
  'before the clock went back': 'enroll',
}

function expected(
  { turn, credential, claim, connection }: Facts,
  name: keyof typeof failures,
): Expected {
  if (credential === 'held') return connection === 'kept' ? 'look again' : 'connect'
  if (claim === 'unusable') return turn === 'first' ? 'stop' : 'look again'
  return asking[name]
}

function* combinations(): Generator<[string, Facts, Expected]> {
  for (const turn of ['first', 'later'] as const)
    for (const credential of ['none', 'held'] as const)
      for (const claim of ['ready', 'unusable'] as const)
        for (const connection of ['none', 'kept'] as const)
          for (const [name, failed] of Object.entries(failures)) {
            const facts = { now, turn, credential, claim, connection, ...(failed && { failed }) }
            const title = `turn ${turn}, credential ${credential}, claim ${claim}, connection ${connection}, failure ${name}`
            yield [title, facts, expected(facts, name as keyof typeof failures)]
          }
}

describe('every combination of facts has one decision', () => {
  it.each([...combinations()])('%s', (_, facts, decision) => {
    switch (decision) {
      case 'look again':
        return expect(decide(facts)).toEqual({ do: 'wait', forMs: lookAgainMs })
      case 'enroll':
      case 'connect':
      case 'stop':
        return expect(decide(facts)).toEqual({ do: decision })
      default:
        return expect(decide(facts)).toEqual({ do: 'wait', forMs: decision })
    }
  })
})

describe('a held credential', () => {
  it('is never answered with enroll or stop, whatever else is true', () => {
    const decisions = [...combinations()]
      .filter(([, facts]) => facts.credential === 'held')
      .map(([, facts]) => decide(facts).do)
    expect(new Set(decisions)).toEqual(new Set(['connect', 'wait']))
  })
})

describe('the next attempt', () => {
  const waitMs = (more: Partial<FailedAttempt>): number =>
    againAt(failure({ at: now, ...more })).getTime() - now.getTime()

  it('comes after at most 1 s, then 2 s, 4 s … and never more than 5 min', () => {
    const longest = [1, 2, 3, 9, 10, 1000].map((inARow) => waitMs({ inARow, draw: 1 }))
    expect(longest).toEqual([1000, 2000, 4000, 256_000, 300_000, 300_000])
  })

  it('is spread over the whole of that time', () => {
    expect([0, 0.25, 0.75].map((draw) => waitMs({ inARow: 10, draw }))).toEqual([
      0, 75_000, 225_000,
    ])
  })

  it.each(['operator', 'enroll'] as const)(
    'comes after 5 to 10 min when the remedy is %s, however often it failed',
    (remedy) => {
      for (const inARow of [1, 50])
        expect([0, 1].map((draw) => waitMs({ remedy, inARow, draw }))).toEqual([300_000, 600_000])
    },
  )

  it('is never before the moment that the server named, and at most a second after it', () => {
    const retryAt = new Date(now.getTime() + 120_000)
    expect(waitMs({ retryAt, draw: 0 })).toBe(120_000)
    expect(waitMs({ retryAt, draw: 1, inARow: 10 })).toBe(121_000)
  })

  it('is not hurried by a server that names a moment after a refusal', () => {
    const retryAt = new Date(now.getTime() + 1000)
    expect(waitMs({ retryAt, remedy: 'operator', draw: 0 })).toBe(300_000)
  })

  it('ignores a moment that has passed', () => {
    expect(waitMs({ retryAt: ago(1), draw: 1 })).toBe(1000)
  })
})
