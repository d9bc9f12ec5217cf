/** What people are told of the next renewal: in status, by doctor, in the log, in one set of facts. */
import {
  CertvendError,
  type Credential,
  type CredentialStore,
  createVendingServer,
  type Pending,
  renewalDue,
} from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { certificate } from '../src/doctor/checks/store.ts'
import type { Evidence } from '../src/doctor/evidence.ts'
import { type Outlook, outlookOf, type Ways, watchRenewal } from '../src/due.ts'
import { configurationError } from '../src/failure.ts'
import { watchLive } from '../src/live.ts'
import type { LogEvent } from '../src/log.ts'
import { describeRenewal, type StatusDocument, statusInWords, statusOf } from '../src/status.ts'
import { inWords } from '../src/wording.ts'
import { heldCredential } from './held-credential.ts'
import { movedClock } from './moved-clock.ts'
import { caPem } from './pins.ts'

const start = new Date('2027-03-01T12:00:00Z')
const day = 24 * 3600_000
const after = (days: number): Date => new Date(start.getTime() + days * day)

const held: Credential = { ...heldCredential(start), notAfter: after(360) }
const holding: Partial<CredentialStore> = {
  directory: '/state',
  mended: [],
  current: () => held,
  pending: () => undefined,
}
const store = holding as CredentialStore
const served: Credential = { ...held, keyOrigin: 'server' }

const ways = (more: Partial<Ways> = {}): Ways => ({
  renew: 'automatically',
  vendingServer: () => createVendingServer({ url: 'https://vending.example.com', pins: caPem }),
  ...more,
})
const old = () =>
  createVendingServer({ url: 'https://vending.example.com', pins: caPem, dialect: 'iot-atlas' })
const unnamed = () => {
  throw configurationError('no vending server', 'name it')
}

describe('the outlook', () => {
  it('for a key that was made here is the certificate’s own', () => {
    expect(outlookOf(held, ways(), start)).toEqual({ dueAt: renewalDue(held) })
  })

  it('for a key that was made elsewhere is at once, where it can be replaced, and only there', () => {
    expect(outlookOf(served, ways(), after(1))).toEqual({ dueAt: start })
    for (const vendingServer of [old, unnamed])
      expect(outlookOf(served, ways({ vendingServer }), after(1)).dueAt).toEqual(renewalDue(served))
    expect(outlookOf(served, ways({ renew: 'when asked' }), after(1)).dueAt).toEqual(
      renewalDue(served),
    )
  })

  it.each<[string, Credential, Partial<Ways>, number, string]>([
    ['another dialect', held, { vendingServer: old }, 1, 'the dialect iot-atlas knows claims only'],
    ['no vending server', held, { vendingServer: unnamed }, 1, 'no vending server'],
    ['an operator who wants to be asked', held, { renew: 'when asked' }, 1, 'when asked'],
    ['an expired certificate', held, {}, 361, 'the certificate expired on'],
    [
      'a key in a token',
      { ...held, privateKey: { uri: 'pkcs11:object=key' } as never },
      {},
      1,
      'lies in a token',
    ],
  ])('names %s as an obstacle, with what a person does', (_, credential, more, days, words) => {
    const { obstacle } = outlookOf(credential, ways(more), after(days))
    expect(obstacle?.message).toContain(words)
    expect(obstacle?.hint).toMatch(/^[a-z].+[^.]$/)
  })

  it('lets a defect be seen', () => {
    const vendingServer = () => {
      throw new RangeError('a defect')
    }
    expect(() => outlookOf(held, ways({ vendingServer }), start)).toThrow('a defect')
  })
})

describe('the loop', () => {
  function watched(more: Partial<Ways> = {}, pending?: Pending) {
    const clock = movedClock(start)
    const events: LogEvent[] = []
    let reads = 0
    const all = ways(more)
    const store: Partial<CredentialStore> = { pending: () => pending }
    const watch = watchRenewal({
      store: store as CredentialStore,
      clock,
      random: () => 0,
      log: (event) => events.push(event),
      ways: {
        get renew() {
          return all.renew
        },
        vendingServer() {
          reads += 1
          return all.vendingServer()
        },
      },
    })
    return { clock, events, watch, reads: () => reads }
  }

  it('reads no configuration while nothing is due', () => {
    const { watch, reads } = watched({ vendingServer: unnamed })
    expect(watch.look(held)).toEqual({ due: renewalDue(held), ends: held.notAfter })
    expect(reads()).toBe(0)
  })

  it('remembers a failure of this certificate, and not of the one before', () => {
    const { watch, clock, events } = watched()
    clock.set(after(300))
    watch.failed(held, new CertvendError('ERR_NETWORK', 'cannot reach it'))
    watch.failed(held, new CertvendError('ERR_NETWORK', 'cannot reach it'))
    expect(watch.look(held)?.failed).toMatchObject({ inARow: 2, remedy: 'retry' })
    expect(watch.look({ ...held, certificateId: '1'.repeat(64) })).not.toHaveProperty('failed')
    expect(events).toMatchObject([
      { event: 'renew.retry', code: 'ERR_NETWORK', waitMs: 60_000 },
      { event: 'renew.retry', code: 'ERR_NETWORK', waitMs: 120_000 },
    ])
  })

  it('leaves a successor that waits for its proof to the connection', () => {
    const pending: Pending = { state: 'issued', generation: 2, credential: held }
    const { watch, clock, events } = watched({}, pending)
    clock.set(after(300))
    watch.failed(held, new CertvendError('ERR_SESSION_REFUSED', 'the door is shut'))
    expect(events).toEqual([])
    expect(watch.look(held)).not.toHaveProperty('failed')
  })

  it('lets a defect end the agent, and no configuration that was just taken away', () => {
    const { watch, events } = watched()
    watch.failed(held, configurationError('no pin'))
    expect(events).toEqual([])
    expect(() => watch.failed(held, new RangeError('a defect'))).toThrow('a defect')
  })

  it('says once that a person is needed, and again only after it was otherwise', () => {
    let isThere = false
    const vendingServer = () => (isThere ? ways().vendingServer() : unnamed())
    const { watch, clock, events } = watched({ vendingServer })
    expect(watch.look(served)).toBeUndefined()
    expect(events).toEqual([]) // it is not time
    clock.set(after(300))
    for (const present of [false, false, true, false, false]) {
      isThere = present
      watch.look(held)
    }
    const needed = { event: 'renew.needed', message: 'no vending server', hint: 'name it' }
    expect(events).toEqual([needed, needed])
    expect(inWords(needed as LogEvent)).toBe(
      'it is time to renew the certificate, and that is not done by itself: no vending server; name it',
    )
  })
})

const retried: LogEvent = {
  event: 'renew.retry',
  code: 'ERR_CREDENTIAL_REFUSED',
  remedy: 'enroll',
  message: 'it does not take it',
  hint: 'have the device re-armed',
  waitMs: 4 * 3600_000,
}

describe('what the daemon is doing', () => {
  it('includes renewals that came to nothing, beside the session that is open, until one succeeds', () => {
    const live = watchLive(movedClock(start))
    live.log({ event: 'session.open', thingName: 'GW-1', host: 'broker', port: 8883 })
    live.log(retried)
    live.log(retried)
    live.log({ event: 'session.open', thingName: 'GW-1', host: 'broker', port: 8883 })
    expect(live.document()).toMatchObject({
      connection: 'online',
      failedInARow: 0,
      renewal: {
        failedInARow: 2,
        nextAt: '2027-03-01T16:00:00.000Z',
        problem: { code: 'ERR_CREDENTIAL_REFUSED' },
      },
    })
    live.log({
      event: 'credential.found',
      deviceSerial: 'GW-1',
      thingName: 'GW-1',
      certificateId: 'x',
      notAfter: after(1),
    })
    live.log({ event: 'enroll.done', thingName: 'GW-1', certificateId: 'y' })
    expect(live.document()).not.toHaveProperty('renewal')
  })
})

describe('certvend status', () => {
  const words = (now: Date, more: Partial<Ways> = {}, status: Partial<StatusDocument> = {}) =>
    statusInWords({ ...statusOf(store, now, ways(more)), ...status }, now)
  const due = renewalDue(held).toISOString().slice(0, 10)

  it('says when the certificate is renewed, and that nobody has to see to it', () => {
    expect(words(start)).toContain(`\nrenews        on ${due}, by itself\n`)
    expect(words(after(300))).toContain(`\nrenews        due since ${due}, by itself\n`)
  })

  it('says from the first day what stands in the way, and what a person does', () => {
    expect(words(start, { vendingServer: unnamed })).toContain(
      `\nrenews        on ${due}, not by itself: no vending server\n              hint: name it\n`,
    )
  })

  it('says what an attempt failed by and when the next one is', () => {
    const live = watchLive(movedClock(start))
    live.log(retried)
    expect(words(after(300), {}, { live: live.document() })).toMatch(
      new RegExp(
        `\\nrenews {8}due since ${due}, by itself; 1 failed, the next try is at 2027-03-01 .*\\n {14}it does not take it \\(ERR_CREDENTIAL_REFUSED\\)\\n {14}hint: have the device re-armed\\n`,
      ),
    )
  })

  it('says nothing of it where it is not known how this gateway renews', () => {
    expect(statusOf(store, start)).not.toHaveProperty('renewal')
  })
})

describe('doctor', () => {
  const judged = (now: Date, outlook: Outlook, retry?: LogEvent) => {
    const live = watchLive(movedClock(now))
    if (retry) live.log(retry)
    const status = { ...statusOf(store, now), live: live.document() }
    const daemon = { closedToUs: false, status }
    const evidence: Partial<Evidence> = {
      now,
      credential: held,
      renewal: describeRenewal(outlook),
      daemon,
    }
    return certificate.judge(evidence as Evidence)
  }
  const dueAt = renewalDue(held)
  const obstacle = { message: 'no vending server', hint: 'name it' }

  it.each<[string, ReturnType<typeof judged>]>([
    ['it is not time', judged(start, { dueAt, obstacle })],
    ['it is time, and was not tried yet', judged(after(300), { dueAt })],
    [
      'an attempt failed that is repeated',
      judged(after(300), { dueAt }, { ...retried, remedy: 'retry' }),
    ],
  ])('finds nothing while %s', (_, verdict) => {
    expect(verdict).toBe('fine')
  })

  it.each<[string, ReturnType<typeof judged>, string, string]>([
    [
      'an obstacle, once it is time',
      judged(after(300), { dueAt, obstacle }),
      'not renewed by itself: no vending server',
      'name it',
    ],
    [
      'a refusal',
      judged(after(300), { dueAt }, retried),
      'it does not take it',
      'have the device re-armed',
    ],
    ['a certificate about to end', judged(after(350), { dueAt }), 'expires on', 'certvend renew'],
    ['one that has ended', judged(after(361), { dueAt }), 'expired on', 'device rearm SERIAL'],
  ])('finds %s, and says what to do', (_, verdict, found, mend) => {
    expect(verdict).toMatchObject({
      found: expect.stringContaining(found),
      mend: expect.stringContaining(mend),
      care: 'act',
    })
  })
})
