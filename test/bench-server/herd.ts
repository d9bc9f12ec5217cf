/**
 * A herd against a quota, under a clock that jumps: the shipped handler with the shipped rate gate,
 * asked by the shipped client's retry. Nothing sleeps; the clock moves on when every device waits.
 */
import { CertvendError, type Clock } from '@certvend/client'
import { parseRetryAfter, retrying } from '@certvend/client/retry'
import {
  createHandler,
  createLocalIssuer,
  createRateGate,
  generateToken,
  hashToken,
  openDeviceCa,
  openLibsqlRegistry,
  silent,
} from '@certvend/server'
import { makeRequest } from './load.ts'

export interface Herd {
  readonly devices: number
  readonly perSecond: number
  readonly seed: number
  readonly served: number
  readonly requestsPerDevice: number
  readonly mostRequests: number
  /** Until the last was served, in seconds of the herd's clock, and that against devices ÷ quota. */
  readonly drainedSeconds: number
  readonly drainRatio: number
  /** The most certificates that were issued within one second of the herd's clock. */
  readonly busiestSecond: number
}

/** mulberry32: the same herd for the same seed. */
const seeded = (seed: number) => {
  let state = seed
  return (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A clock that stands while anybody works, and then jumps to the next who waits. */
function jumpingClock(start: Date) {
  let present = start.getTime()
  let order = 0
  const waiting: { readonly at: number; readonly order: number; readonly wake: () => void }[] = []
  const clock: Clock = {
    now: () => new Date(present),
    wait: (ms) =>
      new Promise((resolve) => {
        order += 1
        const entry = { at: present + ms, order, wake: resolve }
        let [low, high] = [0, waiting.length]
        while (low < high) {
          const middle = (low + high) >>> 1
          const other = waiting[middle]!
          if (other.at > entry.at || (other.at === entry.at && other.order > order))
            low = middle + 1
          else high = middle
        }
        waiting.splice(low, 0, entry) // the next stands last
      }),
  }
  return {
    clock,
    /** Wakes the next who waits. @returns false if nobody does */
    jump(): boolean {
      const next = waiting.pop()
      if (!next) return false
      present = Math.max(present, next.at)
      next.wake()
      return true
    },
  }
}

export async function runHerd(
  devices: number,
  perSecond: number,
  seed: number,
  directory: string,
  say: (text: string) => void,
): Promise<Herd> {
  const { clock, jump } = jumpingClock(new Date('2030-01-01T00:00:00Z'))
  const start = clock.now().getTime()
  let working = 0
  let idle: (() => void) | undefined
  /** Waits, and counts as nobody who works meanwhile. */
  const wait = async (ms: number, signal?: AbortSignal): Promise<void> => {
    const woken = clock.wait(ms, signal)
    working -= 1
    if (working === 0) idle?.()
    await woken
    working += 1
  }
  const registry = openLibsqlRegistry(`${directory}/herd.db`)
  const local = createLocalIssuer(await openDeviceCa(directory, clock))
  const gate = createRateGate({ rates: { issue: perSecond } })
  const issuedIn = new Map<number, number>()
  const handler = createHandler({
    registry,
    issuer: {
      ...local,
      admit: (key, now) => gate.ask(key, { issue: 1 }, now),
      issue: (...given) => {
        const second = Math.floor((clock.now().getTime() - start) / 1000)
        issuedIn.set(second, (issuedIn.get(second) ?? 0) + 1)
        return local.issue(...given)
      },
    },
    clock,
    wait,
    log: silent,
    endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: ['-----BEGIN CERTIFICATE-----'] },
  })
  const random = seeded(seed)
  const requests = new Uint32Array(devices)
  let served = 0

  const live = async (index: number): Promise<void> => {
    const deviceSerial = `SN-${index}`
    const token = generateToken()
    await registry.add(
      { deviceSerial, thingName: deviceSerial },
      await hashToken(token, 'generated'),
      clock.now(),
    )
    const csr = await makeRequest(deviceSerial)
    const body = JSON.stringify({ deviceSerial, csr })
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` }
    await retrying(
      async () => {
        requests[index]! += 1
        const request = new Request('https://vending.example/v1/enroll', {
          method: 'POST',
          headers,
          body,
        })
        const response = await handler(request, { remoteAddress: '192.0.2.1' })
        if (response.status === 200) return
        if (response.status !== 503) throw new Error(await response.text())
        const retryAt = parseRetryAfter(
          response.headers.get('retry-after') ?? undefined,
          clock.now(),
        )
        throw new CertvendError('ERR_SERVER_BUSY', 'busy', { ...(retryAt && { retryAt }) })
      },
      {
        random,
        clock: { now: clock.now, wait },
      },
    )
    served += 1
    if (served % 1000 === 0) say(`  ${served} of ${devices} served`)
  }

  // All at once, in small groups, so that ten thousand keys are not made in one breath.
  const lives: Promise<void>[] = []
  for (let index = 0; index < devices; index += 1) {
    working += 1
    lives.push(
      live(index).finally(() => {
        working -= 1
        if (working === 0) idle?.()
      }),
    )
    if (index % 64 === 63) await new Promise((resolve) => setImmediate(resolve))
  }
  let done = false
  const all = Promise.all(lives).finally(() => {
    done = true
  })
  while (!done) {
    if (working > 0)
      await new Promise<void>((resolve) => {
        idle = resolve
      })
    idle = undefined
    if (!jump() && working === 0) break
    await new Promise((resolve) => setImmediate(resolve))
  }
  await all
  await registry.close()
  const drainedSeconds = (clock.now().getTime() - start) / 1000
  return {
    devices,
    perSecond,
    seed,
    served,
    requestsPerDevice: requests.reduce((sum, count) => sum + count, 0) / devices,
    mostRequests: Math.max(...requests),
    drainedSeconds,
    drainRatio: drainedSeconds / (devices / perSecond),
    busiestSecond: Math.max(...issuedIn.values()),
  }
}
