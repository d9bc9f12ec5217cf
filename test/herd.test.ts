/** A thousand devices, the shipped loop and a virtual clock: how they return after a broker's outage. */
import { readFileSync, writeFileSync } from 'node:fs'
import {
  CertvendError,
  type Clock,
  type Credential,
  type Session,
  stayConnected,
  type Transport,
} from '@certvend/client'
import { expect, it } from 'vitest'
import { plotHerd } from './herd-plot.ts'
import { seeded } from './seeded.ts'

const devices = 1000
/** Virtual time moves on by so many milliseconds. */
const tick = 10
const outages = [0.2, 1, 5, 60, 3600]
const seed = Number(process.env.SEED ?? 20261122)
const chart = new URL('../docs/herd.svg', import.meta.url)

/** Waits end in their order, and nothing happens in between. */
function virtualTime() {
  const waits = new Map<number, (() => void)[]>()
  let now = Date.UTC(2026, 11, 1)
  const clock: Clock = {
    now: () => new Date(now),
    wait: (ms) =>
      new Promise((resolve) => {
        const at = now + Math.ceil(ms / tick) * tick
        waits.set(at, [...(waits.get(at) ?? []), resolve])
      }),
  }
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
  return {
    clock,
    async run(until: () => boolean): Promise<void> {
      for (await settle(); !until(); now += tick) {
        const due = waits.get(now)
        if (!due) continue
        waits.delete(now)
        for (const resolve of due) resolve()
        await settle()
      }
    },
    /** Ends every wait, so that the loops see their signal. */
    async end(): Promise<void> {
      for (const due of waits.values()) for (const resolve of due) resolve()
      await settle()
    },
  }
}

/** Seconds after the broker's return at which each device is back. */
async function returns(outageSeconds: number): Promise<number[]> {
  const random = seeded(seed)
  const { clock, run, end } = virtualTime()
  const stop = new AbortController()
  const credential = { issuedAt: new Date(0), thingName: 'one' } as Credential
  const back: number[] = []
  let down = false
  let backAt = Number.POSITIVE_INFINITY
  let cut: (() => void)[] = []
  const transport: Transport = async (_, { signal }) => {
    if (down && clock.now().getTime() < backAt) throw new CertvendError('ERR_NETWORK', 'down')
    if (down) back.push((clock.now().getTime() - backAt) / 1000)
    const ended = new Promise<Awaited<Session['ended']>>((resolve) => {
      const error = new CertvendError('ERR_SESSION_LOST', 'cut')
      cut.push(() => resolve({ reason: 'lost', error }))
      signal?.addEventListener('abort', () => resolve({ reason: 'closed' }), { once: true })
    })
    return { ended, close: async () => {} } as unknown as Session
  }
  const loops = Array.from({ length: devices }, async () => {
    for await (const _ of stayConnected(credential, {
      clock,
      random,
      transport,
      network: () => 'one that does not change',
      signal: stop.signal,
    }));
  })
  await run(() => cut.length === devices)
  void clock.wait(3_600_000).then(() => {
    backAt = clock.now().getTime() + outageSeconds * 1000
    down = true
    const sessions = cut
    cut = []
    for (const end of sessions) end()
  })
  await run(() => back.length === devices)
  stop.abort()
  await end()
  await Promise.all(loops)
  return back.sort((a, b) => a - b)
}

/** The largest share of `sorted` within any one second. */
function busiestSecond(sorted: readonly number[]): number {
  let most = 0
  let first = 0
  for (const [last, at] of sorted.entries()) {
    while (at - sorted[first]! >= 1) first++
    most = Math.max(most, last - first + 1)
  }
  return most / sorted.length
}

it('at most one device in ten returns within any one second, whatever the outage', {
  timeout: 120_000,
}, async () => {
  const runs: { outageSeconds: number; back: number[]; busiest: number; median: number }[] = []
  for (const outageSeconds of outages) {
    const back = await returns(outageSeconds)
    runs.push({ outageSeconds, back, busiest: busiestSecond(back), median: back[devices / 2]! })
  }
  for (const { outageSeconds, busiest, median } of runs)
    process.stdout.write(
      `outage ${outageSeconds} s: busiest second ${(busiest * 100).toFixed(1)} %, median back after ${median.toFixed(1)} s (seed ${seed})\n`,
    )
  for (const { busiest } of runs) expect(busiest).toBeLessThanOrEqual(0.1)
  const drawn = plotHerd(runs)
  if (process.env.UPDATE_DOCS) writeFileSync(chart, drawn)
  if (seed === 20261122) expect(readFileSync(chart, 'utf8')).toBe(drawn)
})
