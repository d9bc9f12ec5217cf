/** A share of `npm run prove -- --lives`, small enough for every run of the suite. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { liveMany } from './lives.ts'
import { createMemoryRealm } from './memory.ts'
import { mistakes } from './mistakes.ts'
import { createProcessRealm, type ProcessRealm } from './processes.ts'

const minutes = 60_000
const seed = 20_270_101

test('three hundred devices end online, or say what a person must do, whatever server and power do', {
  timeout: 5 * minutes,
}, async () => {
  const realm = createMemoryRealm()
  const { tally, counterExample } = await liveMany(realm, { count: 300, seed })
  realm.close()
  expect(counterExample?.join('\n')).toBeUndefined()
  expect(tally.lives).toBe(300)
  expect(tally.killed).toBeGreaterThan(100)
  expect(Object.keys(tally.endings)).toEqual(
    expect.arrayContaining(['online', 'turned away', 'ERR_CLAIM_REFUSED', 'ERR_CLAIM_SPENT']),
  )
})

describe('a device of another make is caught:', () => {
  test.each(mistakes.map(({ name, boot }) => [name, boot] as const))(
    '%s',
    { timeout: 5 * minutes },
    async (_, boot) => {
      const realm = createMemoryRealm(boot)
      const { counterExample } = await liveMany(realm, { count: 1500, seed })
      realm.close()
      expect(counterExample?.join('\n')).toMatch(/^\d: .*\n(.*\n)*in this life/)
    },
  )
})

describe('devices that are processes, over real TLS, killed by SIGKILL', () => {
  let realm: ProcessRealm
  beforeAll(async () => {
    realm = await createProcessRealm()
  })
  afterAll(() => realm.close())

  test('end online all the same', { timeout: 10 * minutes }, async () => {
    const { tally, counterExample } = await liveMany(realm, { count: 5, seed })
    expect(counterExample?.join('\n')).toBeUndefined()
    expect(tally.killed).toBeGreaterThan(0)
  })
})
