/** Whose turn it is while a successor waits, and what the loop decides about it. */
import { CertvendError, type Credential, type CredentialStore } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { decide, type Facts } from '../src/lifecycle.ts'
import type { LogEvent } from '../src/log.ts'
import { watchSuccession } from '../src/succession.ts'

const hour = 3_600_000

function held({ unwritable = false } = {}) {
  const credential = (generation: number) =>
    ({ generation, thingName: 'GW-1', notAfter: new Date(0) }) as Credential
  let inUse = credential(1)
  let waiting: Credential | undefined = credential(2)
  const store: Partial<CredentialStore> = {
    current: () => inUse,
    pending: () => waiting && { state: 'issued', generation: 2, credential: waiting },
    promote() {
      if (unwritable) throw new CertvendError('ERR_STORE_UNWRITABLE', 'the disk is full')
      inUse = waiting as Credential
      waiting = undefined
      return inUse
    },
  }
  const events: LogEvent[] = []
  const verdicts: (string | undefined)[] = []
  const succession = (first: 'successor' | 'in-use' = 'successor') =>
    watchSuccession(store as CredentialStore, {
      first,
      log: (event) => events.push(event),
      onVerdict: (failure) => verdicts.push(failure?.code),
    })
  return { succession, events, verdicts, inUse: () => inUse.generation }
}

const refused = new CertvendError('ERR_SESSION_REFUSED', 'the door is shut')

describe('a successor', () => {
  it('is shown first, and is in use once it has opened a session', () => {
    const { succession, events, verdicts, inUse } = held()
    const watched = succession()
    expect(watched.current()?.generation).toBe(2)
    expect(inUse()).toBe(1)
    watched.opened()
    expect(inUse()).toBe(2)
    expect(verdicts).toEqual([undefined])
    expect(events.map(({ event }) => event)).toEqual(['renew.proven'])
    expect(watched.current()?.generation).toBe(2)
  })

  it('that is refused gives way to the one in use, and never takes its place', () => {
    const { succession, events, verdicts, inUse } = held()
    const watched = succession()
    watched.current()
    watched.failed(refused)
    expect(watched.current()?.generation).toBe(1)
    watched.opened()
    expect(inUse()).toBe(1)
    expect(verdicts).toEqual(['ERR_SESSION_REFUSED'])
    expect(events.map(({ event }) => event)).toEqual(['renew.unproven'])
    expect(watched.current()?.generation).toBe(1) // also after the session is lost
  })

  it('takes turns with the one in use while neither opens a session', () => {
    const { succession } = held()
    const watched = succession('in-use')
    const shown = Array.from({ length: 6 }, () => {
      const { generation } = watched.current() as Credential
      watched.failed(refused)
      return generation
    })
    expect(shown).toEqual([1, 2, 1, 2, 1, 2])
  })

  it('is used, and not yet stored as such, while the disk takes nothing', () => {
    const { succession, events, verdicts } = held({ unwritable: true })
    const watched = succession()
    watched.current()
    watched.opened()
    expect(verdicts).toEqual(['ERR_STORE_UNWRITABLE'])
    expect(events.map(({ event }) => event)).toEqual(['store.unwritable'])
    expect(watched.current()?.generation).toBe(2)
  })
})

describe('the loop', () => {
  const now = new Date('2027-03-01T12:00:00Z')
  const facts: Facts = {
    now,
    turn: 'later',
    credential: 'held',
    claim: 'ready',
    connection: 'kept',
  }
  const unproven = (hoursAgo: number, times: number) => ({
    unproven: { at: new Date(now.getTime() - hoursAgo * hour), times },
  })

  it.each([
    ['not within the hour', 0.9, 1, 'wait'],
    ['after an hour', 1, 1, 'prove'],
    ['after two the second time', 1.9, 2, 'wait'],
    ['after two the second time', 2, 2, 'prove'],
    ['once a day in the end', 23.9, 99, 'wait'],
    ['once a day in the end', 24, 99, 'prove'],
    ['at once when the clock was set back', -5, 1, 'prove'],
  ])('lets a refused successor try again %s', (_, hoursAgo, times, what) => {
    expect(decide({ ...facts, ...unproven(hoursAgo, times) }).do).toBe(what)
  })

  it.each(['enroll', 'renew', 'forget'] as const)('does what somebody asks for: %s', (asked) => {
    expect(decide({ ...facts, asked }).do).toBe(asked)
    expect(decide({ ...facts, credential: 'none', asked }).do).toBe(asked)
  })

  it('asks nobody once everything was removed, until somebody says so', () => {
    const forgotten: Facts = { ...facts, credential: 'none', connection: 'none', forgotten: true }
    expect(decide(forgotten).do).toBe('wait')
    expect(decide({ ...forgotten, asked: 'enroll' }).do).toBe('enroll')
  })
})
