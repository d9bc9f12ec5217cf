import fs from 'node:fs'
import {
  CertvendError,
  createClaim,
  createVendingServer,
  openCredentialStore,
  type Send,
  type SendResponse,
} from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { type AgentOptions, runAgent } from '../src/agent.ts'
import { configurationError } from '../src/failure.ts'
import type { LogEvent } from '../src/log.ts'
import { type Folder, makeFolder } from './folder.ts'
import { type MovedClock, movedClock } from './moved-clock.ts'
import { caPem } from './pins.ts'

const start = new Date('2027-03-01T12:00:00Z')
const minute = 60_000

const enrollment = () => ({
  server: createVendingServer({ url: 'https://vending.example.com', pins: caPem }),
  claim: createClaim({ deviceSerial: 'GW-1', token: 'planted-token' }),
})

const problem = (status: number, code: string, headers = {}): SendResponse => ({
  status,
  headers: { 'content-type': 'application/problem+json', ...headers },
  body: Buffer.from(JSON.stringify({ type: `urn:certvend:problem:${code}`, detail: 'no' })),
})

interface Life {
  readonly folder: Folder
  readonly clock: MovedClock
  readonly events: LogEvent[]
  /** When requests were sent, in milliseconds since the start. */
  readonly sent: number[]
  readonly ended: Promise<unknown>
}

/** Runs an agent without a credential until `requests` were sent, on a clock that waits move. */
async function live(
  answer: (attempt: number, clock: MovedClock) => SendResponse,
  { requests, ...more }: { requests: number } & Partial<AgentOptions>,
): Promise<Life> {
  const folder = makeFolder()
  const stop = new AbortController()
  const clock = movedClock(start)
  const events: LogEvent[] = []
  const sent: number[] = []
  const send: Send = async (_, { signal }) => {
    if (sent.length === requests) {
      stop.abort(new Error('enough'))
      signal?.throwIfAborted()
    }
    sent.push(clock.now().getTime() - start.getTime())
    return answer(sent.length, clock)
  }
  const ended = runAgent({
    store: await openCredentialStore(folder.at('state')),
    enrollment,
    signal: stop.signal,
    log: (event) => events.push(event),
    clock,
    random: () => 0.5,
    send,
    ...more,
  })
  return { folder, clock, events, sent, ended }
}

const gaps = (sent: readonly number[]): number[] =>
  sent.slice(1).map((at, index) => at - (sent[index] ?? 0))

const thrower = (error: Error) => (): never => {
  throw error
}

describe('without a credential the agent', () => {
  it('asks again ever more slowly while offline, for as long as it lives', async () => {
    const offline = thrower(new CertvendError('ERR_NETWORK', 'cannot reach it'))
    const { sent, ended } = await live(offline, { requests: 40 })
    await ended
    expect(gaps(sent).slice(0, 4)).toEqual([500, 1000, 2000, 4000])
    expect(new Set(gaps(sent).slice(20))).toEqual(new Set([2.5 * minute]))
  })

  it.each([
    ['claim-refused', 401],
    ['device-disabled', 403],
    ['claim-spent', 409],
  ])('never ends over %s, and asks again in 5 to 10 minutes', async (code, status) => {
    const { sent, events, ended } = await live(() => problem(status, code), { requests: 3 })
    await ended
    expect(gaps(sent)).toEqual([7.5 * minute, 7.5 * minute])
    expect(events.find(({ event }) => event === 'enroll.retry')).toMatchObject({
      remedy: 'operator',
      waitMs: 7.5 * minute,
    })
  })

  it('comes back when the server said, not before', async () => {
    const busy = () => problem(503, 'busy', { 'retry-after': '1800' })
    const { sent, ended } = await live(busy, { requests: 2 })
    await ended
    expect(gaps(sent)).toEqual([30 * minute + 500])
  })

  it('never waits longer than five minutes without looking at the clock', async () => {
    const busy = () => problem(503, 'busy', { 'retry-after': '7200' })
    const { clock, ended } = await live(busy, { requests: 2 })
    await ended
    expect(Math.max(...clock.waits)).toBe(5 * minute)
  })

  it('asks at once when the clock was set back, instead of after years', async () => {
    const { sent, ended } = await live(
      (attempt, clock) => {
        if (attempt === 1) clock.set(new Date('2037-01-01T00:00:00Z'))
        else clock.set(start)
        throw new CertvendError('ERR_CLAIM_REFUSED', 'no')
      },
      { requests: 3 },
    )
    await ended
    expect(sent).toHaveLength(3)
  })

  it('makes one key, whatever the number of attempts', async () => {
    const offline = thrower(new CertvendError('ERR_NETWORK', 'cannot reach it'))
    const { folder, events, ended } = await live(offline, { requests: 5 })
    await ended
    expect(fs.readdirSync(folder.at('state/generations'))).toEqual(['0000000001'])
    expect(events.filter(({ event }) => event === 'enroll.key')).toHaveLength(1)
  })

  it('lets a defect be seen instead of retrying it', async () => {
    const { ended } = await live(thrower(new RangeError('a defect')), { requests: 1 })
    await expect(ended).rejects.toThrow('a defect')
  })

  it('ends at the start over what is wrong on this machine, and leaves nothing behind', async () => {
    const unusable = thrower(configurationError('no pin'))
    const { folder, sent, ended } = await live(() => problem(500, 'internal'), {
      requests: 1,
      enrollment: unusable,
    })
    await expect(ended).rejects.toMatchObject({ code: 'ERR_CONFIGURATION', message: 'no pin' })
    expect(folder.list()).toEqual([])
    expect(sent).toEqual([])
  })

  it('waits, and says so once, when the token is taken away later, and goes on when it is back', async () => {
    let reads = 0
    const { sent, events, ended } = await live(() => problem(503, 'busy'), {
      requests: 2,
      enrollment: () => {
        reads += 1
        if (reads > 3 && reads < 8) throw configurationError('the token file does not exist')
        return enrollment()
      },
    })
    await ended
    expect(sent).toHaveLength(2)
    expect(events.filter(({ event }) => event === 'claim.unusable')).toEqual([
      { event: 'claim.unusable', message: 'the token file does not exist' },
    ])
  })

  it('never logs the token', async () => {
    const echo = (): SendResponse => ({
      ...problem(401, 'claim-refused'),
      body: Buffer.from(
        JSON.stringify({ type: 'urn:certvend:problem:claim-refused', detail: 'planted-token' }),
      ),
    })
    const { events, ended } = await live(echo, { requests: 2 })
    await ended
    expect(events.length).toBeGreaterThan(0)
    expect(JSON.stringify(events)).not.toContain('planted-token')
  })
})

describe('the store lock', () => {
  it('is held for as long as the agent runs, and free afterwards', async () => {
    const folder = makeFolder()
    const stop = new AbortController()
    const refusals: unknown[] = []
    const rival = await openCredentialStore(folder.at('state'))
    const send: Send = async () => {
      try {
        rival.lock()
      } catch (error) {
        refusals.push((error as CertvendError).code)
      }
      stop.abort(new Error('enough'))
      throw new CertvendError('ERR_NETWORK', 'cannot reach it')
    }
    await runAgent({
      store: await openCredentialStore(folder.at('state')),
      enrollment,
      signal: stop.signal,
      log: () => {},
      send,
    })
    expect(refusals).toEqual(['ERR_STORE_LOCKED'])
    rival.lock()
    rival.close()
  })

  it('refuses a second agent before it sends anything', async () => {
    const folder = makeFolder()
    const first = await openCredentialStore(folder.at('state'))
    first.lock()
    let sent = 0
    const second = runAgent({
      store: await openCredentialStore(folder.at('state')),
      enrollment,
      signal: new AbortController().signal,
      log: () => {},
      send: async () => {
        sent += 1
        throw new CertvendError('ERR_NETWORK', 'cannot reach it')
      },
    })
    await expect(second).rejects.toMatchObject({ code: 'ERR_STORE_LOCKED', remedy: 'operator' })
    expect(sent).toBe(0)
    first.close()
  })
})

describe('told to stop', () => {
  it('before it began, it does nothing at all', async () => {
    const folder = makeFolder()
    await runAgent({
      store: await openCredentialStore(folder.at('state')),
      enrollment,
      signal: AbortSignal.abort(new Error('stopped')),
      log: () => {},
    })
    expect(folder.list()).toEqual([])
  })

  it('in the middle of a wait, it stops there', async () => {
    const folder = makeFolder()
    const stop = new AbortController()
    const clock = movedClock(start, () => stop.abort(new Error('stopped')))
    let sent = 0
    await runAgent({
      store: await openCredentialStore(folder.at('state')),
      enrollment,
      signal: stop.signal,
      log: () => {},
      clock,
      send: async () => {
        sent += 1
        throw new CertvendError('ERR_NETWORK', 'cannot reach it')
      },
    })
    expect(sent).toBe(1)
  })
})
