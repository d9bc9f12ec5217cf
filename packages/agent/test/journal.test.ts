/** What the journal remembers, and what it costs. */
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { explainEpisode, explanationInWords } from '../src/explanation.ts'
import { openRecorder, type RecorderOptions } from '../src/journal.ts'
import {
  journalFile,
  mostBytes,
  mostWritesPerDay,
  openJournal,
  readJournal,
} from '../src/journal-file.ts'
import type { LogEvent } from '../src/log.ts'
import { makeFolder } from './folder.ts'

const minute = 60_000
const hour = 60 * minute
const day = 24 * hour
const start = Date.parse('2027-03-01T00:00:00Z')

const opened: LogEvent = {
  event: 'session.open',
  thingName: 'GW-1',
  host: 'mqtt.example',
  port: 8883,
}
const failing = (
  event: 'session.lost' | 'session.retry',
  code = 'ERR_NETWORK',
  remedy = 'retry',
): LogEvent => ({
  event,
  code,
  remedy,
  message: 'cannot reach mqtt.example:8883 (ECONNREFUSED)',
  hint: 'check DNS',
  waitMs: 1000,
})
const lost = failing('session.lost')
const retry = failing('session.retry')

/** A gateway whose clocks and addresses a test moves; `restart` is a new process on the same disk. */
function makeGateway(changed: Partial<RecorderOptions> = {}) {
  const directory = makeFolder().path
  let wall = start
  let monotonic = 0
  let addresses: readonly string[] = ['eth0 192.0.2.7']
  let writes = 0
  let seen: string | undefined
  const clock = { now: () => new Date(wall), wait: () => Promise.resolve() }
  const open = () =>
    openRecorder(openJournal(directory, clock), {
      clock,
      monotonicMs: () => monotonic,
      version: '1.2.3',
      installedAt: new Date(start - 90 * day),
      issuedAt: new Date(start - 200 * day),
      bootedAt: new Date(start - 30 * day),
      addresses: () => addresses,
      ...changed,
    })
  let recorder = open()
  const file = journalFile(directory)
  return {
    directory,
    file,
    pass(ms: number): void {
      wall += ms
      monotonic += ms
      recorder.look()
    },
    setClock: (ms: number): void => {
      wall += ms
    },
    moveTo: (...where: string[]): void => {
      addresses = where
    },
    say(...events: LogEvent[]): void {
      for (const event of events) {
        recorder.log(event)
        // Each write leaves its time in the file.
        const text = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : undefined
        if (text !== seen) writes++
        seen = text
      }
    },
    restart(): void {
      recorder = open()
    },
    last: () => recorder.episodes().at(-1),
    get writes() {
      return writes
    },
  }
}

describe('while nothing fails', () => {
  it('nothing is written, in a year', () => {
    const gateway = makeGateway()
    gateway.say(opened, { event: 'publish.acknowledged', topic: 'status' })
    for (let days = 0; days < 365; days++) gateway.pass(day)
    gateway.say({ event: 'session.closed' }, { event: 'agent.stop', message: 'stopped by SIGTERM' })
    expect(fs.readdirSync(gateway.directory)).toEqual([])
  })

  it('a session that is lost and comes back at once is remembered, and not written', () => {
    const gateway = makeGateway()
    for (let times = 0; times < 50; times++) {
      gateway.say(opened)
      gateway.pass(hour)
      gateway.say(lost)
      gateway.pass(1000)
    }
    gateway.say(opened)
    expect(gateway.writes).toBe(0)
    expect(gateway.last()).toMatchObject({ attempts: 1, ended: expect.any(String) })
  })
})

describe('while everything fails', () => {
  it('a day offline costs a handful of writes', () => {
    const gateway = makeGateway()
    gateway.say(opened, lost)
    for (let minutes = 0; minutes < 24 * 60; minutes += 5) {
      gateway.pass(5 * minute)
      gateway.say(retry)
    }
    expect(gateway.writes).toBeGreaterThan(0)
    expect(gateway.writes).toBeLessThanOrEqual(5)
    expect(readJournal(gateway.directory).at(-1)?.attempts).toBeGreaterThan(200)
  })

  it('no day costs more than its measure, however the failures alternate', () => {
    const gateway = makeGateway()
    for (let days = 1; days <= 5; days++) {
      for (let minutes = 0; minutes < 24 * 60; minutes++) {
        gateway.pass(minute)
        gateway.say(
          retry,
          failing('session.retry', minutes % 2 ? 'ERR_TIMEOUT' : 'ERR_PROXY'),
          opened,
        )
      }
      expect(gateway.writes).toBeLessThanOrEqual(mostWritesPerDay * (days + 1))
    }
  })

  it.each([
    ['today', 0],
    ['in 1970', -start],
  ])('nor do restarts in a loop, %s', (_, offset) => {
    const gateway = makeGateway()
    gateway.setClock(offset)
    for (let seconds = 0; seconds < 24 * 3600; seconds += 60) {
      gateway.restart()
      gateway.say(failing('session.retry', 'ERR_SESSION_REFUSED', 'operator'))
      gateway.say({ event: 'agent.stop', message: 'stopped by SIGTERM' })
      gateway.pass(minute)
    }
    expect(gateway.writes).toBe(mostWritesPerDay)
  })

  it('the file stays below its bound, and keeps what is newest', () => {
    const gateway = makeGateway()
    const long: LogEvent = {
      ...(retry as typeof retry & object),
      message: 'x'.repeat(5000),
    } as LogEvent
    for (let days = 0; days < 200; days++) {
      gateway.say(opened, long, long)
      gateway.pass(day)
    }
    expect(fs.statSync(gateway.file).size).toBeLessThanOrEqual(mostBytes)
    expect(readJournal(gateway.directory).at(-1)?.began.slice(0, 10)).toBe('2027-09-16')
  })

  it('a disk that takes nothing costs nothing else', () => {
    const gateway = makeGateway()
    fs.rmSync(gateway.directory, { recursive: true })
    gateway.say(failing('session.retry', 'ERR_CLAIM_REFUSED', 'operator'))
    expect(gateway.last()).toMatchObject({ code: 'ERR_CLAIM_REFUSED' })
    fs.mkdirSync(gateway.directory)
  })
})

describe('what is written', () => {
  it('is for its owner alone, and survives the process', () => {
    const gateway = makeGateway()
    gateway.say(failing('session.retry', 'ERR_SESSION_REFUSED', 'operator'))
    expect(fs.statSync(gateway.file).mode & 0o777).toBe(0o600)
    gateway.restart()
    expect(gateway.last()).toMatchObject({ code: 'ERR_SESSION_REFUSED', version: '1.2.3' })
  })

  it.each([
    ['nothing', ''],
    ['something cut short', '{"version":1,"writes":[],"epis'],
    ['another program’s', '{"version":2}'],
    ['too much', ' '.repeat(mostBytes + 1)],
  ])('is taken for none when it is %s, and replaced', (_, content) => {
    const gateway = makeGateway()
    fs.writeFileSync(gateway.file, content)
    expect(readJournal(gateway.directory)).toEqual([])
    gateway.restart()
    gateway.say(failing('session.retry', 'ERR_SESSION_REFUSED', 'operator'))
    expect(readJournal(gateway.directory)).toHaveLength(1)
    expect(fs.readdirSync(gateway.directory)).toEqual([path.basename(gateway.file)])
  })
})

describe('an episode', () => {
  const explained = (gateway: ReturnType<typeof makeGateway>) =>
    explainEpisode(gateway.last(), undefined).sentence

  it('has when it worked, when it began, and how often it was tried', () => {
    const gateway = makeGateway()
    gateway.pass(hour)
    gateway.say(opened)
    gateway.pass(2 * hour)
    gateway.say(lost)
    gateway.pass(minute)
    gateway.say(retry)
    expect(gateway.last()).toEqual({
      began: '2027-03-01T03:00:00.000Z',
      last: '2027-03-01T03:01:00.000Z',
      attempts: 2,
      code: 'ERR_NETWORK',
      remedy: 'retry',
      message: 'cannot reach mqtt.example:8883 (ECONNREFUSED)',
      hint: 'check DNS',
      before: [],
      worked: { since: '2027-03-01T01:00:00.000Z', until: '2027-03-01T03:00:00.000Z' },
      version: '1.2.3',
      coincidences: [],
    })
    expect(explained(gateway)).toMatch(
      /^it worked until 2027-03-01 \d\d:00:00, and since then, when the agent last ran: cannot reach mqtt\.example:8883 \(ECONNREFUSED\) \(ERR_NETWORK\)$/,
    )
  })

  it.each([
    [2 * hour, 'the clock jumped ahead by 2 h, or the machine slept'],
    [-57 * 365 * day, 'the clock jumped back by 20805 days, or the machine slept'],
  ])('tells of a jump of the clock by %d ms', (by, words) => {
    const gateway = makeGateway()
    gateway.say(opened)
    gateway.pass(day)
    gateway.setClock(by)
    gateway.pass(minute)
    gateway.say(lost)
    expect(gateway.last()?.coincidences).toEqual([{ what: 'clock', words }])
    expect(explained(gateway)).toContain(`; it began when ${words}`)
  })

  it('does not blame a clock that drifts, nor a jump long before', () => {
    const gateway = makeGateway()
    gateway.say(opened)
    for (let minutes = 0; minutes < 60; minutes++) {
      gateway.setClock(500)
      gateway.pass(minute)
    }
    gateway.setClock(hour)
    gateway.pass(hour)
    gateway.pass(hour)
    gateway.say(lost)
    expect(gateway.last()?.coincidences).toEqual([])
  })

  it.each([
    [['wlan0 198.51.100.4'], 'eth0 192.0.2.7 to wlan0 198.51.100.4'],
    [[], 'eth0 192.0.2.7 to no address'],
  ])('tells of another network: %j', (where, words) => {
    const gateway = makeGateway()
    gateway.say(opened)
    gateway.moveTo(...where)
    gateway.say(lost)
    expect(explained(gateway)).toContain(`; it began when the network changed from ${words}`)
  })

  it('tells of a new version, when the agent was started with it', () => {
    const gateway = makeGateway({ installedAt: new Date(start - 10 * minute) })
    gateway.say(opened)
    gateway.pass(minute)
    gateway.say(lost)
    expect(explained(gateway)).toContain(
      '; it began when version 1.2.3 was installed 11 min before',
    )
    const upgraded = makeGateway({ installedAt: new Date(start + minute) })
    upgraded.say(opened)
    upgraded.pass(2 * minute)
    upgraded.say(lost)
    expect(upgraded.last()?.coincidences).toEqual([])
    const first = makeGateway({
      installedAt: new Date(start - 10 * minute),
      issuedAt: new Date(start - minute),
    })
    first.say(opened, lost)
    expect(first.last()?.coincidences).toEqual([])
  })

  it.each([
    ['machine', start - minute],
    ['agent', start - day],
  ])('tells of a %s that has just started', (what, bootedAt) => {
    const gateway = makeGateway({ bootedAt: new Date(bootedAt) })
    gateway.say(retry, retry)
    expect(explained(gateway)).toMatch(
      new RegExp(`^it has not worked since .*; it began when the ${what} had just started$`),
    )
  })

  it('is over when it works again, and then that is said', () => {
    const gateway = makeGateway()
    gateway.say(opened, lost, retry)
    gateway.pass(3 * hour)
    gateway.say(opened)
    expect(readJournal(gateway.directory).at(-1)?.ended).toBe('2027-03-01T03:00:00.000Z')
    expect(explainEpisode(gateway.last(), undefined)).toMatchObject({ state: 'well' })
    expect(explained(gateway)).toMatch(
      /^the last failure is over: from .* to .* \(3 h\), cannot reach/,
    )
  })

  it('is none, while a session is open, when only another certificate is refused', () => {
    const gateway = makeGateway()
    gateway.say(opened, { ...retry, event: 'enroll.retry' } as LogEvent)
    gateway.say({ event: 'claim.unusable', message: 'agent.toml:1: no pin' })
    expect(gateway.last()).toBeUndefined()
    gateway.say({ event: 'session.closed' }, { ...retry, event: 'enroll.retry' } as LogEvent)
    expect(gateway.last()).toMatchObject({ attempts: 1 })
  })

  it('remembers what it was before, when the reason changes', () => {
    const gateway = makeGateway()
    gateway.say(opened, lost, retry, failing('session.retry', 'ERR_SERVER_UNTRUSTED', 'operator'))
    expect(gateway.last()).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED', before: ['ERR_NETWORK'] })
    const words = explanationInWords(explainEpisode(gateway.last(), undefined))
    expect(words).toContain('\n  before    ERR_NETWORK\n')
    expect(words).toMatch(/\n {2}more {6}docs\/errors\.md#err_server_untrusted$/)
  })

  it('of a configuration leads to no page that is not there', () => {
    const gateway = makeGateway()
    gateway.say({ event: 'claim.unusable', message: 'agent.toml:1: no pin' })
    const explanation = explainEpisode(gateway.last(), undefined)
    expect(explanation).toMatchObject({ state: 'failing' })
    expect(explanationInWords(explanation)).not.toContain('docs/errors.md')
  })
})
