/** AWS credentials in the daemon's memory: fetched when somebody asks, and not more often than needed. */
import { CertvendError, type Credential } from '@certvend/client'
import type { AwsCredentials } from '@certvend/client/aws-credentials'
import { describe, expect, it } from 'vitest'
import { openAwsCache } from '../src/aws-cache.ts'
import { movedClock } from './moved-clock.ts'

const start = new Date('2027-03-01T12:00:00Z')
const minute = 60_000
const device = (certificateId = 'one') => ({ certificateId }) as Credential
const role = { name: 'gateway', endpoint: 'host' }

function cache({ lifeMs = 60 * minute } = {}) {
  const clock = movedClock(start)
  const asked: string[] = []
  const answers = { failure: undefined as Error | undefined }
  const held = openAwsCache(clock, async (_, { name }) => {
    asked.push(name)
    await new Promise((resolve) => setImmediate(resolve))
    if (answers.failure) throw answers.failure
    const expiration = new Date(clock.now().getTime() + lifeMs)
    return { accessKeyId: String(asked.length), expiration } as AwsCredentials
  })
  const after = (minutes: number) => clock.set(new Date(start.getTime() + minutes * minute))
  return { held, asked, after, answers, clock }
}

const offline = new CertvendError('ERR_NETWORK', 'cannot reach it')

describe('AWS credentials', () => {
  it('are fetched once for all who ask at once, and then kept', async () => {
    const { held, asked } = cache()
    await Promise.all([held(device(), role), held(device(), role), held(device(), role)])
    await held(device(), role)
    expect(asked).toEqual(['gateway'])
  })

  it('are fetched again in the last quarter of an hour, and only when somebody asks', async () => {
    const { held, asked, after } = cache()
    await held(device(), role)
    after(43)
    expect((await held(device(), role)).accessKeyId).toBe('1')
    after(45)
    expect(asked).toHaveLength(1)
    expect((await held(device(), role)).accessKeyId).toBe('2')
  })

  it('of the shortest life are not fetched with every question', async () => {
    const { held, asked, after } = cache({ lifeMs: 15 * minute })
    await held(device(), role)
    after(4)
    await held(device(), role)
    expect(asked).toHaveLength(1)
    after(5.1)
    await held(device(), role)
    expect(asked).toHaveLength(2)
  })

  it('that are still good are given while the provider cannot be reached, to their last minute', async () => {
    const { held, after, answers } = cache()
    await held(device(), role)
    answers.failure = offline
    after(58)
    expect((await held(device(), role)).accessKeyId).toBe('1')
    after(59.5)
    await expect(held(device(), role)).rejects.toBe(offline)
  })

  it('are not given any more when the provider refuses', async () => {
    const { held, after, answers } = cache()
    await held(device(), role)
    answers.failure = new CertvendError('ERR_REQUEST_REFUSED', 'Access Denied')
    after(50)
    await expect(held(device(), role)).rejects.toBe(answers.failure)
  })

  it('are asked for again after a failure, and at a clock that was set back', async () => {
    const { held, asked, after, answers } = cache()
    answers.failure = offline
    await expect(held(device(), role)).rejects.toBe(offline)
    answers.failure = undefined
    await held(device(), role)
    after(-60)
    await held(device(), role)
    expect(asked).toHaveLength(3)
  })

  it('are each role’s, endpoint’s, anchor’s and certificate’s own, and only so many are kept', async () => {
    const { held, asked } = cache()
    const all = [
      [device(), role],
      [device('two'), role],
      [device(), { ...role, endpoint: 'other' }],
      [device(), { ...role, trustAnchors: 'pem' }],
    ] as const
    for (const [who, what] of all) await held(who, what)
    expect(asked).toHaveLength(4)
    for (let n = 0; n < 20; n += 1) await held(device(), { ...role, name: `role-${n}` })
    await held(device(), role)
    expect(asked).toHaveLength(25)
  })
})
