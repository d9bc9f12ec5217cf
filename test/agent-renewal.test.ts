/** The agent renews in time and by itself, for years, through whatever comes in between. */
import fs from 'node:fs'
import type { SendResponse } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import {
  about,
  aboutToRenew,
  day,
  hour,
  lifeMs,
  longLife,
  minute,
  names,
  thrower,
  touched,
} from './long-life.ts'

describe('a gateway whose certificates last 90 days', () => {
  it('lives for ten years: renewed in time, never more than two in force, no write in between', async () => {
    const world = await longLife(lifeMs)
    const violations: string[] = []
    let [quiet, logged, before] = [0, 0, '']
    const { events, count, turns } = await world.live(3650 * day, {
      look(store, so) {
        const now = world.clock.now()
        const { notAfter } = store.current()!
        if (notAfter.getTime() - now.getTime() < lifeMs / 5) violations.push(`late on ${now}`)
        quiet = so.length === logged ? quiet + 1 : 0
        logged = so.length
        if (quiet === 3) before = touched(world.directory)
        if (quiet > 3 && quiet % 250 === 0 && touched(world.directory) !== before)
          violations.push(`written to by ${now}`)
      },
    })
    expect(violations).toEqual([])
    expect(turns).toBeGreaterThan(80_000)
    const renewals = count('renew.proven')
    expect(renewals).toBeGreaterThanOrEqual(Math.floor((3650 * day) / (lifeMs * 0.75)))
    expect(renewals).toBeLessThanOrEqual(Math.ceil((3650 * day) / (lifeMs * 0.66)))
    expect(world.asked).toHaveLength(renewals)
    expect(world.mostActive).toBe(2)
    expect(await world.statuses()).toEqual([...Array(renewals).fill('INACTIVE'), 'ACTIVE'])
    // A renewal costs one reconnect, and nothing else is logged in ten years.
    const each = [
      ...['enroll.key', 'enroll.request', 'enroll.done', 'session.closed'],
      ...['renew.proven', 'session.open', 'publish.acknowledged'],
    ]
    const first = ['credential.found', 'session.open', 'publish.acknowledged']
    expect(names(events)).toEqual([
      ...first,
      ...Array(renewals).fill(each).flat(),
      'session.closed',
    ])
  })
})

describe('a gateway whose certificates last ten minutes', () => {
  it('has one that is valid at every look, and asks about every seven minutes', async () => {
    const world = await longLife(10 * minute)
    const { count } = await world.live(2 * hour, {
      turnEveryMs: minute, // what the watchdog asks for
      look: (store) => expect(store.current()!.notAfter > world.clock.now()).toBe(true),
    })
    expect(count('renew.proven')).toBeGreaterThanOrEqual(15)
    expect(count('renew.proven')).toBeLessThanOrEqual(18)
    expect(world.mostActive).toBe(2)
  })
})

const problem = (status: number, code: string, headers = {}): SendResponse => ({
  status,
  headers: { 'content-type': 'application/problem+json', ...headers },
  body: Buffer.from(JSON.stringify({ type: `urn:certvend:problem:${code}`, detail: 'no' })),
})
const portal: SendResponse = {
  status: 200,
  headers: { 'content-type': 'text/html' },
  body: Buffer.from('<html>'),
}
describe('while no successor is to be had', () => {
  /** What stands in the way, what the agent says of it, and how often it may ask in the last third. */
  it.each<[string, () => SendResponse, string, number]>([
    ['offline', thrower('ERR_NETWORK'), 'ERR_NETWORK', 700],
    ['every answer is lost', thrower('ERR_REPLY_LOST'), 'ERR_REPLY_LOST', 700],
    ['behind a captive portal', () => portal, 'ERR_REPLY_MALFORMED', 700],
    ['the vending machine fails', () => problem(500, 'internal'), 'ERR_SERVER_BUSY', 700],
    [
      'it says to come back in half a day',
      () => problem(503, 'busy', { 'retry-after': '43200' }),
      'ERR_SERVER_BUSY',
      70,
    ],
    ['another vouches for it', thrower('ERR_SERVER_UNTRUSTED'), 'ERR_SERVER_UNTRUSTED', 70],
    [
      'it sees no certificate, as behind API Gateway',
      () => problem(401, 'certificate-refused'),
      'ERR_CREDENTIAL_REFUSED',
      70,
    ],
    ['it renews nothing', () => problem(404, 'not-found'), 'ERR_REQUEST_REFUSED', 70],
    ['the device is re-armed', () => problem(409, 'claim-open'), 'ERR_REQUEST_REFUSED', 70],
    ['the device is disabled', () => problem(403, 'device-disabled'), 'ERR_CLAIM_REFUSED', 70],
  ])(
    '%s, what works is used, asked is slowly, and one answer in the end will do',
    async (_, answer, code, most) => {
      const { world, credential } = await aboutToRenew()
      world.intercept = async () => answer()
      const lastThird = await world.live(21 * day)
      expect(about(lastThird.events, 'renew.retry')[0]).toMatchObject({ code })
      expect(world.asked.length).toBeGreaterThan(20)
      expect(world.asked.length).toBeLessThan(most)
      const keys = lastThird.count('enroll.key')
      expect(keys).toBe(1)
      expect(lastThird.count('session.open')).toBe(1)
      expect(lastThird.count('session.lost') + lastThird.count('session.retry')).toBe(0)
      expect((await world.inUse()).certificateId).toBe(credential.certificateId)
      expect(await world.statuses()).toEqual(['ACTIVE'])
      world.intercept = (really) => really()
      const mended = await world.live(2 * day)
      expect(mended.count('renew.proven')).toBe(1)
      expect(await world.statuses()).toEqual(['INACTIVE', 'ACTIVE'])
      expect(fs.readdirSync(`${world.directory}/generations`)).toHaveLength(1)
    },
  )

  it('writes one key and nothing else in a month offline', async () => {
    const { world } = await aboutToRenew()
    world.intercept = async () => thrower('ERR_NETWORK')()
    await world.live(2 * day)
    const store = await world.open() // as it looks with the agent's lock file in it
    store.close()
    let before = ''
    const { count } = await world.live(15 * day, {
      look() {
        if (!before && world.asked.length > 40) before = touched(world.directory)
      },
    })
    expect(before).not.toBe('')
    expect(touched(world.directory)).toBe(before)
    expect(count('enroll.key')).toBe(0)
  })

  it('is not asked at all once the certificate has ended, and says once what a person does', async () => {
    const { world, credential } = await aboutToRenew()
    world.intercept = async () => thrower('ERR_NETWORK')()
    const { events, count } = await world.live(60 * day)
    const last = world.asked.at(-1)!
    expect(last <= credential.notAfter).toBe(true)
    expect(credential.notAfter.getTime() - last.getTime()).toBeLessThan(2 * hour)
    expect(about(events, 'renew.needed')).toEqual([
      {
        event: 'renew.needed',
        message: expect.stringContaining('the certificate expired on'),
        hint: expect.stringContaining('re-armed, then: certvend enroll --again'),
      },
    ])
    expect(count('renew.failed')).toBe(0)
    expect((await world.inUse()).certificateId).toBe(credential.certificateId)
  })
})

describe('a clock', () => {
  it('ten years ahead asks nobody and destroys nothing, and all goes on when it is right', async () => {
    const { world, credential } = await aboutToRenew()
    const right = world.clock.now()
    world.clock.set(new Date(right.getTime() + 3650 * day))
    const before = touched(world.directory)
    const ahead = await world.live(3 * day)
    expect(world.asked).toEqual([])
    expect(about(ahead.events, 'renew.needed')).toHaveLength(1)
    expect(touched(world.directory)).toBe(before)
    world.clock.set(right)
    const again = await world.live(3 * day)
    expect(again.count('renew.proven')).toBe(1)
    expect((await world.inUse()).certificateId).not.toBe(credential.certificateId)
    expect(await world.statuses()).toEqual(['INACTIVE', 'ACTIVE'])
  })

  it('that was ahead and is set back while it runs holds no attempt up', async () => {
    const { world } = await aboutToRenew()
    const right = world.clock.now()
    world.clock.set(new Date(right.getTime() + 15 * day)) // it is time by then, and not over
    let isRight = false
    world.intercept = async (answer) => (isRight ? answer() : thrower('ERR_SERVER_UNTRUSTED')())
    const { count } = await world.live(2 * day, {
      look() {
        if (isRight || world.asked.length === 0) return
        isRight = true
        world.clock.set(new Date(right.getTime() + day))
      },
    })
    expect(count('renew.retry')).toBe(1)
    expect(count('renew.proven')).toBe(1)
  })

  it('in 1970 renews nothing', async () => {
    const { world } = await aboutToRenew()
    world.clock.set(new Date('1970-01-02T00:00:00Z'))
    expect(names((await world.live(day)).events).filter((name) => /^renew\./.test(name))).toEqual(
      [],
    )
    expect(world.asked).toEqual([])
  })
})
