/** `stayConnected` under a clock of its own: when it comes back, when it slows down, and how it ends. */
import {
  CertvendError,
  type Session,
  type SessionEnd,
  type StayOptions,
  stayConnected,
  type Transport,
} from '@certvend/client'
import { beforeAll, describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import { instantClock } from './instant-clock.ts'
import { type Certified, certify } from './pki.ts'
import { seeded } from './seeded.ts'

let device: Certified
beforeAll(async () => {
  device = await certify('device-1')
})
const credential = (generation = 1) =>
  credentialFor(device, { host: 'mqtt.example', port: 8883, trustAnchors: [] }, { generation })

const lost: SessionEnd = {
  reason: 'lost',
  error: new CertvendError('ERR_SESSION_LOST', 'the connection ended'),
}

interface Fake extends Session {
  readonly closed: boolean
  end(how: SessionEnd): void
}

function fakeSession(signal?: AbortSignal): Fake {
  let end: (how: SessionEnd) => void = () => {}
  const ended = new Promise<SessionEnd>((resolve) => {
    end = resolve
  })
  let closed = false
  const close = async (): Promise<void> => {
    closed = true
    end({ reason: 'closed' })
  }
  signal?.addEventListener('abort', () => void close())
  return {
    thingName: 'device-1',
    sessionPresent: false,
    publish: () => Promise.resolve(),
    subscribe: () => Promise.reject(new Error('not here')),
    ended,
    close,
    end,
    get closed() {
      return closed
    },
  }
}

/** A transport that fails, again and again, until it is told otherwise. */
const refusing =
  (attempts: { count: number }, error = new CertvendError('ERR_NETWORK', 'no route')): Transport =>
  async () => {
    attempts.count++
    throw error
  }

/** Runs the loop until `count` waits were announced, and gives them. */
async function waitsOf(count: number, options: StayOptions): Promise<number[]> {
  const stop = new AbortController()
  const waits: number[] = []
  for await (const _ of stayConnected(credential(), {
    clock: instantClock(),
    ...options,
    signal: stop.signal,
    onRetry: ({ waitMs }) => {
      waits.push(waitMs)
      if (waits.length === count) stop.abort()
    },
  }));
  return waits
}

describe('a broker that is not there', () => {
  const backoff = { baseMs: 1000, capMs: 300_000 }

  it.each([1, 2, 3, 4, 5])(
    'is asked again in windows that double and never overlap (seed %i)',
    async (seed) => {
      const transport = refusing({ count: 0 })
      const waits = await waitsOf(9, { backoff, transport, random: seeded(seed) })
      let moment = 0
      let opens = 0
      for (const [index, wait] of waits.entries()) {
        moment += wait
        const length = Math.min(150_000, 1000 * 2 ** index)
        expect(moment, `attempt ${index + 1}`).toBeGreaterThanOrEqual(opens)
        expect(moment, `attempt ${index + 1}`).toBeLessThanOrEqual(opens + length)
        opens += length
      }
    },
  )

  it('is asked for ever, never later than the cap', async () => {
    const attempts = { count: 0 }
    const waits = await waitsOf(500, {
      backoff,
      transport: refusing(attempts),
      random: () => 1 - 2 ** -53,
    })
    expect(attempts.count).toBe(500)
    expect(Math.max(...waits)).toBeLessThanOrEqual(300_000)
    const least = await waitsOf(500, { backoff, transport: refusing(attempts), random: () => 0 })
    // After one draw of nothing the window itself keeps the next attempt away.
    expect(Math.min(...least.slice(9))).toBeGreaterThanOrEqual(100_000)
  })

  it.each(['retry', 'enroll', 'operator'] as const)(
    'is asked again whatever the remedy: %s',
    async (remedy) => {
      const attempts = { count: 0 }
      const error = new CertvendError('ERR_SERVER_UNTRUSTED', 'no', { remedy })
      await waitsOf(5, { transport: refusing(attempts, error) })
      expect(attempts.count).toBe(5)
    },
  )

  it('is not asked when something other than a connection failed', async () => {
    const error = new RangeError('misuse')
    const loop = stayConnected(credential(), {
      clock: instantClock(),
      transport: () => Promise.reject(error),
    })
    await expect(loop.next()).rejects.toBe(error)
    expect((await loop.next()).done).toBe(true)
  })
})

describe('a session that ends', () => {
  /** Sessions that each last as long as told, then are lost. */
  async function lives(lengths: readonly number[], random = () => 0.5) {
    const clock = instantClock()
    const stop = new AbortController()
    const waits: { waitMs: number; code: string }[] = []
    const left = [...lengths]
    for await (const session of stayConnected(credential(), {
      clock,
      random,
      signal: stop.signal,
      transport: async (_credential, { signal }) => fakeSession(signal),
      onRetry: ({ waitMs, error }) => {
        waits.push({ waitMs, code: error.code })
        if (left.length === 0) stop.abort()
      },
    })) {
      await clock.wait(left.shift() ?? 0)
      ;(session as Fake).end(lost)
      await session.ended
    }
    return waits
  }

  it.each([
    [0, 0],
    [0.5, 7500],
    [0.999, 14_985],
  ])(
    'after it lasted is followed by a wait drawn from a quarter of a minute (%d)',
    async (draw, ms) => {
      expect(await lives([60_000], () => draw)).toEqual([{ waitMs: ms, code: 'ERR_SESSION_LOST' }])
    },
  )

  it('again and again after it lasted brings the same short wait each time', async () => {
    const waits = await lives([60_000, 90_000, 3_600_000, 60_000])
    expect(waits.map(({ waitMs }) => waitMs)).toEqual([7500, 7500, 7500, 7500])
  })

  it('soon after it opened, again and again, doubles the wait and tells of another holder', async () => {
    const waits = await lives([1000, 1000, 59_999, 0])
    expect(waits.map(({ waitMs }) => waitMs)).toEqual([7500, 22_500, 45_000, 90_000])
    expect(waits.map(({ code }) => code)).toEqual([
      'ERR_SESSION_LOST',
      'ERR_SESSION_LOST',
      'ERR_SESSION_TAKEN_OVER',
      'ERR_SESSION_TAKEN_OVER',
    ])
  })

  it('resets the wait only once a session has lasted', async () => {
    const waits = await lives([0, 0, 60_000, 0])
    expect(waits.map(({ waitMs }) => waitMs)).toEqual([7500, 22_500, 7500, 22_500])
  })
})

describe('the loop', () => {
  const opening =
    (opened: Fake[]): Transport =>
    async (_credential, { signal }) => {
      const session = fakeSession(signal)
      opened.push(session)
      return session
    }

  it('closes the session in hand when it is left', async () => {
    const opened: Fake[] = []
    for await (const _ of stayConnected(credential(), { transport: opening(opened) })) break
    expect(opened.map(({ closed }) => closed)).toEqual([true])
  })

  it('closes the session in hand when its body throws', async () => {
    const opened: Fake[] = []
    const error = new Error('in the body')
    const running = async (): Promise<void> => {
      for await (const _ of stayConnected(credential(), { transport: opening(opened) })) throw error
    }
    await expect(running()).rejects.toBe(error)
    expect(opened.map(({ closed }) => closed)).toEqual([true])
  })

  it('ends quietly when the signal aborts while a session is open', async () => {
    const opened: Fake[] = []
    const stop = new AbortController()
    const { signal } = stop
    for await (const session of stayConnected(credential(), {
      signal,
      transport: opening(opened),
    })) {
      stop.abort()
      await session.ended
    }
    expect(opened.map(({ closed }) => closed)).toEqual([true])
  })

  it('ends quietly when the signal aborts during an attempt', async () => {
    const stop = new AbortController()
    const transport: Transport = (_credential, { signal }) =>
      new Promise((_resolve, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason))
        stop.abort()
      })
    for await (const _ of stayConnected(credential(), { signal: stop.signal, transport }))
      throw new Error('no session was to open')
  })

  it('ends quietly when the signal aborts during a wait', async () => {
    const stop = new AbortController()
    const attempts = { count: 0 }
    for await (const _ of stayConnected(credential(), {
      signal: stop.signal,
      transport: refusing(attempts),
      onRetry: () => setImmediate(() => stop.abort()),
      random: () => 0.9,
      backoff: { baseMs: 600_000, capMs: 1_200_000 },
    }));
    expect(attempts.count).toBe(1)
  })

  it('makes no attempt when the signal was aborted before', async () => {
    const attempts = { count: 0 }
    const signal = AbortSignal.abort()
    for await (const _ of stayConnected(credential(), { signal, transport: refusing(attempts) }));
    expect(attempts.count).toBe(0)
  })

  it('reads the store anew before each attempt', async () => {
    let generation = 1
    const source = { current: () => credential(generation++) }
    const seen: number[] = []
    const stop = new AbortController()
    for await (const _ of stayConnected(source, {
      clock: instantClock(),
      signal: stop.signal,
      transport: async (one) => {
        seen.push(one.generation)
        if (seen.length === 3) stop.abort()
        throw new CertvendError('ERR_CREDENTIAL_REFUSED', 'no')
      },
    }));
    expect(seen).toEqual([1, 2, 3])
  })

  it('says so when the store holds nothing', async () => {
    const loop = stayConnected({ current: () => undefined })
    await expect(loop.next()).rejects.toThrow(TypeError)
  })
})
