import { describe, expect, it } from 'vitest'
import {
  againAt,
  decide,
  type Facts,
  type FailedAttempt,
  lookAgainMs,
  type Renewal,
  renewAgainAt,
} from '../src/lifecycle.ts'

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

describe('a renewal that nobody asks for', () => {
  const minute = 60_000
  const hour = 60 * minute
  const day = 24 * hour
  const inMs = (ms: number): Date => new Date(now.getTime() + ms)
  const held: Facts = {
    now,
    turn: 'later',
    credential: 'held',
    claim: 'ready',
    connection: 'kept',
  }
  const renewal = (more: Partial<Renewal> = {}): Renewal => ({
    due: ago(1000),
    ends: inMs(100 * day),
    ...more,
  })
  const decided = (facts: Partial<Facts>) => decide({ ...held, ...facts })
  const unproven = (times: number) => ({
    successor: 'waiting' as const,
    unproven: { at: ago(25 * hour), times },
  })

  it('is made when it is due, and not a moment before', () => {
    expect(decided({ renewal: renewal({ due: now }) })).toEqual({ do: 'renew' })
    expect(decided({ renewal: renewal({ due: inMs(1) }) })).toEqual({ do: 'wait', forMs: 1 })
  })

  it('aims no timer further than the next look', () => {
    const due = inMs(240 * day)
    expect(decided({ renewal: renewal({ due }) })).toEqual({ do: 'wait', forMs: lookAgainMs })
  })

  it.each<[string, Partial<Facts>, string]>([
    ['the agent does not renew by itself', {}, 'wait'],
    ['no session was tried yet', { connection: 'none', renewal: renewal() }, 'connect'],
    ['a successor waits for its proof', { successor: 'waiting', renewal: renewal() }, 'wait'],
    ['its proof is to be repeated', { ...unproven(7), renewal: renewal() }, 'prove'],
    ['there is no credential', { credential: 'none', renewal: renewal() }, 'enroll'],
    ['everything was removed', { credential: 'none', forgotten: true, renewal: renewal() }, 'wait'],
    ['somebody asks for another thing', { asked: 'forget', renewal: renewal() }, 'forget'],
  ])('is not made while %s', (_, facts, instead) => {
    expect(decided(facts).do).toBe(instead)
  })

  it('gives up a successor only after eight proofs in a row that failed, and only when it is time', () => {
    expect(decided({ ...unproven(8), renewal: renewal() }).do).toBe('renew')
    expect(decided({ ...unproven(8), renewal: renewal({ due: inMs(day) }) }).do).toBe('prove')
    expect(decided(unproven(8)).do).toBe('prove')
  })

  it('is put off by a failure, and not by one that lies in the future of a clock set back', () => {
    const failed = failure({ at: ago(30_000) })
    expect(decided({ renewal: renewal({ failed }) })).toEqual({ do: 'wait', forMs: minute })
    const later = failure({ at: inMs(10 * 365 * day), remedy: 'operator' })
    expect(decided({ renewal: renewal({ failed: later }) }).do).toBe('renew')
  })

  const waitMs = (more: Partial<FailedAttempt>, ends = inMs(100 * day)): number =>
    renewAgainAt(failure({ at: now, draw: 0, ...more }), ends).getTime() - now.getTime()

  it.each<[string, Partial<FailedAttempt>, number]>([
    ['offline once', {}, minute],
    ['offline for the fourth time', { inARow: 4 }, 8 * minute],
    ['offline for a month', { inARow: 700 }, hour],
    ['offline, at the end of the window', { inARow: 700, draw: 1 }, 2 * hour],
    ['refused', { remedy: 'operator' }, 3 * hour],
    ['refused again', { remedy: 'enroll', inARow: 2 }, 6 * hour],
    ['refused for ever', { remedy: 'operator', inARow: 50, draw: 1 }, 24 * hour],
    ['told when', { retryAt: inMs(5 * hour) }, 5 * hour + 1000],
    ['told when, by a refusal', { remedy: 'operator', retryAt: inMs(5 * hour) }, 5 * hour + 1000],
    ['hurried by a refusal', { remedy: 'operator', retryAt: inMs(1000) }, 3 * hour],
    ['hurried by a server', { retryAt: inMs(10) }, minute],
    ['told a moment that has passed', { retryAt: ago(1) }, minute],
  ])('%s, comes back after its time', (_, more, expected) => {
    expect(waitMs(more)).toBe(expected)
  })

  it.each([
    ['eight hours', 8 * hour, hour],
    ['an hour', hour, 7.5 * minute],
    ['a minute', minute, minute],
    ['nothing', -day, 12 * hour],
  ])('is tried more often when %s is left, and never twice in a minute', (_, leftMs, expected) => {
    expect(waitMs({ remedy: 'operator', inARow: 9 }, inMs(leftMs))).toBe(expected)
  })
})
