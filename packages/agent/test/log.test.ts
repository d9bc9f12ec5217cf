import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { jsonLine, type LogEvent } from '../src/log.ts'
import { duration, inWords } from '../src/wording.ts'

const now = new Date('2027-03-01T12:00:00Z')
const failure = {
  code: 'ERR_CLAIM_REFUSED',
  remedy: 'operator',
  message: 'vending.example.com refused',
  hint: 'check the serial',
}

describe('a log line', () => {
  it('is one line of JSON: time, event, then the fields', () => {
    const line = jsonLine({ event: 'enroll.retry', waitMs: 1200, ...failure }, now)
    expect(line).toBe(
      '{"time":"2027-03-01T12:00:00.000Z","event":"enroll.retry","code":"ERR_CLAIM_REFUSED","remedy":"operator","message":"vending.example.com refused","hint":"check the serial","waitMs":1200}',
    )
  })

  it('stays one line when a message holds line breaks', () => {
    const line = jsonLine({ event: 'store.mended', message: 'two\nlines' }, now)
    expect(line.split('\n')).toHaveLength(1)
  })

  it('has no room for a field that is not known', () => {
    const event = { event: 'session.closed', token: 's3cret', privateKey: 's3cret' } as LogEvent
    expect(jsonLine(event, now)).toBe(
      '{"time":"2027-03-01T12:00:00.000Z","event":"session.closed"}',
    )
  })
})

describe('in words', () => {
  it('a failure says what happened, its code, and when we try again', () => {
    const event: LogEvent = {
      ...failure,
      event: 'session.retry',
      code: 'ERR_NETWORK',
      remedy: 'retry',
      message: 'cannot open a connection to mqtt.example.com:8883',
      waitMs: 12_345,
    }
    expect(inWords(event)).toBe(
      'cannot open a connection to mqtt.example.com:8883 (ERR_NETWORK); connecting again in 12 s',
    )
  })

  it('a failure that needs a person also says what the person does', () => {
    expect(inWords({ event: 'enroll.retry', waitMs: 400_000, ...failure })).toBe(
      'vending.example.com refused (ERR_CLAIM_REFUSED); check the serial; asking again in 7 min',
    )
  })

  it.each([
    [0, '0.0 s'],
    [400, '0.4 s'],
    [1000, '1 s'],
    [89_000, '89 s'],
    [240_000, '4 min'],
    [3 * 3_600_000, '3 h'],
    [364.9 * 86_400_000, '364 days'],
  ])('%d ms are %s', (ms, words) => {
    expect(duration(ms)).toBe(words)
  })
})

describe('docs/gateway.md', () => {
  const read = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8')
  it('has a row for every event that there is words for, which the compiler sees to, and no other', () => {
    const rows = [...read('../../../docs/gateway.md').matchAll(/^\| `([a-z.]+)` \|/gm)].map(
      ([, name]) => name,
    )
    const events = [...read('../src/wording.ts').matchAll(/case '([a-z]+\.[a-z]+)':/g)].map(
      ([, name]) => name,
    )
    expect(events.length).toBeGreaterThan(20)
    expect(rows.sort()).toEqual(events.sort())
  })
})
