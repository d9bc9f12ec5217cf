import { describe, expect, it } from 'vitest'
import { watchLive } from '../src/live.ts'
import type { LogEvent } from '../src/log.ts'
import { checkOf, type StatusDocument } from '../src/status.ts'
import { version } from '../src/version.ts'
import { movedClock } from './moved-clock.ts'

const start = new Date('2027-03-01T12:00:00Z')
const lost = (waitMs: number): LogEvent => ({
  event: 'session.retry',
  code: 'ERR_NETWORK',
  remedy: 'retry',
  message: 'cannot reach it',
  hint: 'check DNS',
  waitMs,
})
const refused: LogEvent = {
  event: 'enroll.retry',
  code: 'ERR_CLAIM_REFUSED',
  remedy: 'operator',
  message: 'the claim was refused',
  hint: 'check the token',
  waitMs: 300_000,
}
const opened: LogEvent = { event: 'session.open', thingName: 'GW-1', host: 'broker', port: 8883 }

function watched() {
  const clock = movedClock(start)
  let changes = 0
  const live = watchLive(clock, () => {
    changes += 1
  })
  return { clock, live, changes: () => changes }
}

describe('what the daemon is doing', () => {
  it('is read off its log, in words and as a document', () => {
    const { live } = watched()
    expect(live.inWords()).toBe('starting')
    live.log({ event: 'enroll.request', host: 'vending' })
    expect(live.inWords()).toBe('asking for a certificate')
    live.log({ event: 'enroll.done', thingName: 'GW-1', certificateId: 'x' })
    expect(live.inWords()).toBe('connecting as GW-1')
    live.log(opened)
    expect(live.inWords()).toMatch(/^online as GW-1 since 2027-03-01 /)
    expect(live.document()).toEqual({
      version,
      connection: 'online',
      since: start.toISOString(),
      sessions: 1,
      acknowledged: 0,
      failedInARow: 0,
    })
    live.log({ event: 'publish.acknowledged', topic: 'certvend/GW-1/status' })
    expect(live.document()).toMatchObject({ connection: 'online', acknowledged: 1 })
  })

  it('while offline says what is wrong and when it tries again', () => {
    const { live } = watched()
    live.log(lost(60_000))
    expect(live.inWords()).toMatch(
      /^not online: cannot reach it \(ERR_NETWORK\); next try at 2027-03-01 /,
    )
    expect(live.document()).toMatchObject({
      connection: 'waiting',
      nextAt: '2027-03-01T12:01:00.000Z',
      problem: { code: 'ERR_NETWORK', hint: 'check DNS' },
      failedInARow: 1,
    })
  })

  it('says what a person must do, where one must', () => {
    const { live } = watched()
    live.log(refused)
    expect(live.inWords()).toMatch(/; a person must act: check the token$/)
  })

  it('is settled when online or knowingly not, and not before', () => {
    const { live } = watched()
    expect(live.settled()).toBe(false)
    live.log({ event: 'enroll.request', host: 'vending' })
    expect(live.settled()).toBe(false)
    live.log(lost(1000))
    expect(live.settled()).toBe(true)
  })

  it('is told of once per change', () => {
    const { live, changes } = watched()
    live.log(opened)
    live.log({ event: 'publish.acknowledged', topic: 'x' })
    expect(changes()).toBe(1)
  })

  it('is stuck when nothing was heard for longer than any wait, but never while online', () => {
    const { live } = watched()
    live.log({ event: 'enroll.done', thingName: 'GW-1', certificateId: 'x' })
    live.log(lost(60_000))
    live.waited(15 * 60_000)
    expect(live.stuck()).toBe(false)
    live.waited(1)
    expect(live.stuck()).toBe(true)
    live.log(opened)
    live.waited(24 * 3600_000)
    expect(live.stuck()).toBe(false)
  })
})

describe('without a credential', () => {
  it.each([
    ['a server that said to come back tomorrow', { ...refused, waitMs: 24 * 3600_000 }],
    ['a token that was taken away', { event: 'claim.unusable', message: 'no token' }],
  ] as [string, LogEvent][])('%s is waited for, however long, and nothing is stuck', (_, event) => {
    const { live } = watched()
    live.log(event)
    live.waited(48 * 3600_000)
    expect(live.stuck()).toBe(false)
  })
})

describe('status --check', () => {
  const status = (event: LogEvent | undefined, more: Partial<StatusDocument> = {}) => {
    const { live } = watched()
    if (event) live.log(event)
    const base = {
      version: 1,
      stateDirectory: '/x',
      state: 'valid',
      problems: [],
      mended: [],
    } as const
    return checkOf({ ...base, ...(event ? { live: live.document() } : {}), ...more })
  }
  it('is 0 online, 1 when not now, 3 when a person must act', () => {
    expect(status(opened)).toBe(0)
    expect(status(lost(1000))).toBe(1)
    expect(status(refused)).toBe(3)
    expect(status({ event: 'claim.unusable', message: 'no token' })).toBe(3)
  })
  it('without a running agent is 1, or 3 when the store needs somebody', () => {
    expect(status(undefined)).toBe(1)
    expect(status(undefined, { state: 'none' })).toBe(1)
    expect(status(undefined, { state: 'unreadable' })).toBe(3)
    expect(status(undefined, { state: 'expired' })).toBe(3)
  })
})
