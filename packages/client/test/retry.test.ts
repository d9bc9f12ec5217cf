import { describe, expect, it } from 'vitest'
import type { Clock } from '../src/clock.ts'
import { CertvendError } from '../src/errors.ts'
import { fullJitter, parseRetryAfter, type RetryOptions, retrying } from '../src/retry.ts'

const now = new Date('2027-03-01T12:00:00Z')
const day = 24 * 60 * 60_000
const after = (ms: number): Date => new Date(now.getTime() + ms)

/** A clock that notes what it is asked to wait for, and moves on by as much. */
function notingClock(onWait: (ms: number, count: number) => void = () => {}) {
  const waits: number[] = []
  let at = now.getTime()
  const clock: Clock = {
    now: () => new Date(at),
    async wait(ms, signal) {
      waits.push(ms)
      onWait(ms, waits.length)
      signal?.throwIfAborted()
      at += ms
    },
  }
  return { clock, waits }
}

const failing = (times: number, error: () => unknown) => {
  let left = times
  return async (): Promise<string> => {
    if (left-- > 0) throw error()
    return 'done'
  }
}
const network = (): CertvendError => new CertvendError('ERR_NETWORK', 'no route')

describe('full jitter', () => {
  const backoff = { baseMs: 1000, capMs: 300_000 }

  it('draws from nothing up to base doubled per attempt, never over the cap', () => {
    for (let attempt = 0; attempt < 2000; attempt++) {
      const bound = Math.min(300_000, 1000 * 2 ** attempt)
      expect(fullJitter(attempt, backoff, () => 0)).toBe(0)
      expect(fullJitter(attempt, backoff, () => 0.5)).toBe(bound / 2)
      expect(fullJitter(attempt, backoff, () => 1 - 2 ** -53)).toBeLessThanOrEqual(bound)
    }
  })
})

describe('Retry-After', () => {
  it.each<readonly [string, number]>([
    ['0', 0],
    ['1', 1000],
    ['120', 120_000],
    [' 120 ', 120_000],
    ['86400', day],
    ['86401', day],
    ['9999999999', day],
    ['Mon, 01 Mar 2027 12:00:30 GMT', 30_000],
    ['Monday, 01-Mar-27 12:00:30 GMT', 30_000],
    ['Mon, 01 Mar 2027 11:00:00 GMT', 0],
    ['Thu, 01 Jan 1970 00:00:00 GMT', 0],
    ['Fri, 31 Dec 2049 23:59:59 GMT', day],
  ])('%j is a moment within a day', (value, ms) => {
    expect(parseRetryAfter(value, now)).toEqual(after(ms))
  })

  it.each([
    '',
    ' ',
    'soon',
    'soon 2099',
    'in 5 minutes',
    '-5',
    '+5',
    '1.5',
    '1e3',
    '0x10',
    '5, 10',
    '99999999999999999999',
    '2027-03-01T12:30:00Z',
    'Mon, 99 Mar 2027 12:00:30 GMT',
    'Mon, 01 Mar 2027 12:00:30',
    'NaN',
    'Infinity',
    '٣',
  ])('%j names no moment', (value) => {
    expect(parseRetryAfter(value, now)).toBeUndefined()
  })

  it('that is absent names no moment', () => {
    expect(parseRetryAfter(undefined, now)).toBeUndefined()
  })
})

describe('retrying', () => {
  const run = (attempt: () => Promise<string>, options: RetryOptions = {}) =>
    retrying(attempt, { random: () => 0.5, ...options })

  it('waits for nothing when the first attempt succeeds', async () => {
    const { clock, waits } = notingClock()
    expect(await run(failing(0, network), { clock })).toBe('done')
    expect(waits).toEqual([])
  })

  it('never gives up while asking again may help', async () => {
    const { clock, waits } = notingClock()
    expect(await run(failing(10_000, network), { clock })).toBe('done')
    expect(waits).toHaveLength(10_000)
    expect(Math.max(...waits)).toBeLessThanOrEqual(300_000)
    expect(waits.slice(0, 4)).toEqual([500, 1000, 2000, 4000])
  })

  it.each(['operator', 'enroll'] as const)(
    'ends at once where the remedy is %s',
    async (remedy) => {
      const { clock, waits } = notingClock()
      const error = new CertvendError('ERR_CLAIM_REFUSED', 'no', { remedy })
      await expect(
        run(
          failing(1, () => error),
          { clock },
        ),
      ).rejects.toBe(error)
      expect(waits).toEqual([])
    },
  )

  it.each([
    new TypeError('misuse'),
    'a string',
    undefined,
    Object.assign(new Error('x'), { remedy: 'retry' }),
  ])('ends at once with what is not ours: %s', async (error) => {
    const { clock, waits } = notingClock()
    await expect(
      run(
        failing(1, () => error),
        { clock },
      ),
    ).rejects.toBe(error)
    expect(waits).toEqual([])
  })

  it('asks not a moment before the server allowed, and at most a second of jitter after', async () => {
    for (const random of [() => 0, () => 0.5, () => 1 - 2 ** -53]) {
      const { clock, waits } = notingClock()
      const busy = () => new CertvendError('ERR_SERVER_BUSY', 'later', { retryAt: after(600_000) })
      await run(failing(1, busy), { clock, random })
      expect(waits[0]).toBeGreaterThanOrEqual(600_000)
      expect(waits[0]).toBeLessThanOrEqual(601_000)
    }
  })

  it('falls back to jitter when the moment that the server named has passed', async () => {
    const { clock, waits } = notingClock()
    const busy = () => new CertvendError('ERR_SERVER_BUSY', 'later', { retryAt: after(-5000) })
    await run(failing(1, busy), { clock })
    expect(waits).toEqual([500])
  })

  it('tells of each wait before it begins', async () => {
    const told: unknown[] = []
    const { clock } = notingClock()
    await run(failing(2, network), {
      clock,
      onRetry: ({ error, attempt, waitMs }) => told.push([error.code, attempt, waitMs]),
    })
    expect(told).toEqual([
      ['ERR_NETWORK', 1, 500],
      ['ERR_NETWORK', 2, 1000],
    ])
  })

  it('makes no attempt when the signal was aborted before', async () => {
    let attempts = 0
    const reason = new Error('stop')
    const asking = run(async () => `${attempts++}`, { signal: AbortSignal.abort(reason) })
    await expect(asking).rejects.toBe(reason)
    expect(attempts).toBe(0)
  })

  it.each([1, 2, 5])('ends with the reason of an abort during wait %i', async (when) => {
    const controller = new AbortController()
    const reason = new Error('stop')
    const { clock, waits } = notingClock((_ms, count) => {
      if (count === when) controller.abort(reason)
    })
    const asking = run(failing(100, network), { clock, signal: controller.signal })
    await expect(asking).rejects.toBe(reason)
    expect(waits).toHaveLength(when)
  })

  it('ends with the reason of an abort during an attempt, whatever the attempt threw', async () => {
    const controller = new AbortController()
    const reason = new Error('stop')
    const { clock, waits } = notingClock()
    const attempt = async (): Promise<string> => {
      controller.abort(reason)
      throw network()
    }
    await expect(run(attempt, { clock, signal: controller.signal })).rejects.toBe(reason)
    expect(waits).toEqual([])
  })
})
