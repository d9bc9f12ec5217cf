import { getEventListeners } from 'node:events'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { systemClock } from '../src/clock.ts'

const asked = vi.hoisted(() => ({
  forMs: [] as number[],
  answer: undefined as (() => void) | undefined,
}))

vi.mock('node:timers/promises', async (original) => {
  const real = await original<typeof import('node:timers/promises')>()
  return {
    ...real,
    setTimeout: (ms: number, value: unknown, options: { signal?: AbortSignal }) => {
      asked.forMs.push(ms)
      return asked.answer ? Promise.resolve(asked.answer()) : real.setTimeout(ms, value, options)
    },
  }
})

const hour = 60 * 60_000

describe('the system clock', () => {
  afterEach(() => {
    asked.forMs.length = 0
    asked.answer = undefined
    vi.restoreAllMocks()
  })

  it.each([hour + 1, 24 * hour, 2 ** 31, 2 ** 40, Number.MAX_SAFE_INTEGER])(
    'makes no timer of more than an hour to wait for %i ms',
    async (ms) => {
      const controller = new AbortController()
      const waiting = systemClock.wait(ms, controller.signal)
      controller.abort()
      await expect(waiting).rejects.toBe(controller.signal.reason)
      expect(asked.forMs).toEqual([hour])
    },
  )

  it('waits step by step until the whole time has passed', async () => {
    let passed = 0
    vi.spyOn(performance, 'now').mockImplementation(() => passed)
    asked.answer = () => {
      passed += asked.forMs.at(-1) ?? 0
    }
    await systemClock.wait(2.5 * hour)
    expect(asked.forMs).toEqual([hour, hour, hour / 2])
  })

  it('goes on waiting when a timer fired early', async () => {
    let passed = 0
    vi.spyOn(performance, 'now').mockImplementation(() => passed)
    asked.answer = () => {
      passed += Math.min(400, asked.forMs.at(-1) ?? 0)
    }
    await systemClock.wait(1000)
    expect(asked.forMs).toEqual([1000, 600, 200])
  })

  it.each([0, -1, Number.NaN])('does not wait for %d ms', async (ms) => {
    await systemClock.wait(ms)
    expect(asked.forMs).toEqual([])
  })

  it('rejects at once with the reason of a signal that was aborted before', async () => {
    const reason = new Error('stop')
    for (const ms of [0, 1000, hour * 2])
      await expect(systemClock.wait(ms, AbortSignal.abort(reason))).rejects.toBe(reason)
  })

  it('leaves no listener on the signal', async () => {
    const { signal } = new AbortController()
    await systemClock.wait(1, signal)
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })
})
