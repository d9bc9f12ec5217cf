/**
 * A process that ends in the middle: after every call to DynamoDB, once with the call done and once
 * without. What the next request finds must be whole again.
 */
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from 'vitest'
import { day, later } from '../src/clock.ts'
import { openDynamodbRegistry } from '../src/registry/dynamodb.ts'
import { isRegistryBusy, type Registry, registryBusy } from '../src/registry/registry.ts'
import { dynaliteClient, makeTable, tablesFor } from './dynamodb.ts'
import { add, hex, issued, now, reservation, reserve, token } from './registry-suite/facts.ts'

const client = await dynaliteClient()
let made = 0

/** Lets `calls` calls through, the last of them with its answer lost if `lost`; then nothing more. */
function endingAfter(calls: number, lost: boolean): { client: DynamoDBClient; ended(): boolean } {
  let left = calls
  let ended = false
  const send = async (command: never) => {
    left -= 1
    if (left < 0 || (left === 0 && !lost)) {
      ended = true
      throw registryBusy(new Error('the process ended'))
    }
    const answer = await client.send(command)
    if (left > 0) return answer
    ended = true
    throw registryBusy(new Error('the process ended'))
  }
  return { client: { send } as unknown as DynamoDBClient, ended: () => ended }
}

/**
 * Runs `work` in a process that ends after each of its calls, and `after` in the next one.
 *
 * @returns how many endings were tried
 */
async function endEverywhere(
  before: (registry: Registry) => Promise<void>,
  work: (registry: Registry) => Promise<unknown>,
  after: (registry: Registry) => Promise<void>,
): Promise<number> {
  let tried = 0
  for (const lost of [false, true])
    for (let calls = 1; ; calls += 1) {
      made += 1
      const table = `crash-${made}`
      for (const input of tablesFor(table)) await makeTable(client, input)
      const registry = openDynamodbRegistry({ table, client })
      await before(registry)
      const ending = endingAfter(calls, lost)
      await work(openDynamodbRegistry({ table, client: ending.client })).catch((error: unknown) => {
        if (!isRegistryBusy(error)) throw error
      })
      if (!ending.ended()) break
      tried += 1
      await after(openDynamodbRegistry({ table, client }))
    }
  expect(tried).toBeGreaterThan(4)
  return tried
}

const names = async (registry: Registry) => {
  const trail = await registry.events({ deviceSerial: 'SN-1', limit: 100 })
  return trail.map((event) => `${event.name}${event.note ? ` ${event.note}` : ''}`)
}

async function enroll(registry: Registry) {
  const outcome = await reserve(registry, 'SN-1', 'key')
  return outcome.outcome === 'reserved'
    ? registry.record(outcome.reservation, issued(), now)
    : outcome
}

describe('a process that ends in the middle of', () => {
  it('an enrollment leaves what the next request completes: one certificate, one trail', async () => {
    await endEverywhere(
      async (registry) => void (await add(registry, 'SN-1')),
      enroll,
      async (registry) => {
        await registry.find('SN-1') // as every request begins
        expect((await enroll(registry)).outcome).toBe('issued')
        const [certificate, ...others] = await registry.certificates('SN-1')
        expect(others).toEqual([])
        expect(await registry.findCertificate(certificate!.certificateId)).toEqual(certificate)
        expect(await names(registry)).toEqual([
          'device-added',
          'claim-reserved',
          'certificate-issued',
        ])
      },
    )
  })

  it('adding a device leaves it added, or free to be added', async () => {
    await endEverywhere(
      async () => undefined,
      (registry) => add(registry, 'SN-1'),
      async (registry) => {
        const isThere = (await registry.find('SN-1')) !== undefined
        expect(await add(registry, 'SN-1')).toBe(isThere ? 'serial-taken' : 'added')
        expect(await names(registry)).toEqual(['device-added'])
      },
    )
  })

  it('taking a thing name leaves the name to whoever is there', async () => {
    await endEverywhere(
      async () => undefined,
      (registry) => registry.add({ deviceSerial: 'SN-1', thingName: 'thing' }, token, now),
      async (registry) => {
        const isThere = (await registry.find('SN-1')) !== undefined
        const twin = { deviceSerial: 'SN-2', thingName: 'thing' }
        const outcome = await registry.add(twin, token, now)
        expect(outcome).toBe(isThere ? 'thing-name-taken' : 'added')
      },
    )
  })

  it('re-arming with revocation revokes, if it re-armed', async () => {
    await endEverywhere(
      async (registry) => {
        await add(registry, 'SN-1')
        await enroll(registry)
      },
      (registry) =>
        registry.rearm('SN-1', { token, openUntil: later(now, day), revoke: true }, now),
      async (registry) => {
        const number = (await registry.find('SN-1'))?.claim.number
        const [certificate] = await registry.certificates('SN-1')
        expect([number, certificate?.status]).toEqual(number === 2 ? [2, 'REVOKED'] : [1, 'ACTIVE'])
        const told = [
          'device-rearmed new token, certificates revoked',
          'certificate-status REVOKED',
        ]
        expect((await names(registry)).slice(3)).toEqual(number === 2 ? told : [])
      },
    )
  })

  it('removing leaves the device, or nothing but revoked certificates and the trail', async () => {
    await endEverywhere(
      async (registry) => {
        await add(registry, 'SN-1')
        await enroll(registry)
      },
      (registry) => registry.remove('SN-1', now),
      async (registry) => {
        const isThere = (await registry.find('SN-1')) !== undefined
        const [certificate] = await registry.certificates('SN-1')
        expect(certificate?.status).toBe(isThere ? 'ACTIVE' : 'REVOKED')
        expect(await add(registry, 'SN-1')).toBe(isThere ? 'serial-taken' : 'added')
        const gone = ['certificate-status REVOKED', 'device-removed', 'device-added']
        expect((await names(registry)).slice(3)).toEqual(isThere ? [] : gone)
        const old = { deviceSerial: 'SN-1', claimNumber: 1, publicKey: 'key 2', at: now }
        if (!isThere)
          expect(await registry.reserve({ ...old, certificateSerial: hex(16) })).toMatchObject({
            reason: 'claim-gone',
          })
      },
    )
  })

  it('a first session leaves what the next session completes', async () => {
    const ids: string[] = []
    await endEverywhere(
      async (registry) => {
        await add(registry, 'SN-1')
        await enroll(registry)
        await registry.rearm('SN-1', { token, openUntil: later(now, day), revoke: false }, now)
        const request = { deviceSerial: 'SN-1', claimNumber: 2, publicKey: 'key 2', at: now }
        const outcome = await registry.reserve({ ...request, certificateSerial: hex(16) })
        if (outcome.outcome !== 'reserved') throw new Error(outcome.outcome)
        const one = issued()
        ids.push(one.certificateId)
        await registry.record(outcome.reservation, one, now)
      },
      (registry) => registry.confirm(ids.at(-1)!, now),
      async (registry) => {
        await registry.confirm(ids.at(-1)!, now)
        const statuses = (await registry.certificates('SN-1')).map((one) => one.status)
        expect(statuses).toEqual(['ACTIVE', 'INACTIVE'])
        const trail = await names(registry)
        expect(trail.filter((name) => name === 'certificate-confirmed')).toHaveLength(1)
        expect(trail.filter((name) => name === 'certificate-status INACTIVE')).toHaveLength(1)
      },
    )
  })
})

describe('an answer of DynamoDB that got lost', () => {
  it('is found out when the SDK asks again, and nothing is done twice', async () => {
    const table = 'lost-answers'
    for (const input of tablesFor(table)) await makeTable(client, input)
    // Every write is sent twice, and the second answer is the one that counts: as the SDK's own retry.
    const twice = {
      send: async (command: { readonly constructor: { readonly name: string } }) => {
        if (!/^(Get|Query|Scan)/.test(command.constructor.name))
          await client.send(command as never).catch(() => undefined)
        return client.send(command as never)
      },
    } as unknown as DynamoDBClient
    const registry = openDynamodbRegistry({ table, client: twice })
    expect(await add(registry, 'SN-1')).toBe('added')
    const one = issued()
    await registry.record(await reservation(registry, 'SN-1', 'key'), one, now)
    const how = { token, openUntil: later(now, day), revoke: true } as const
    expect(await registry.rearm('SN-1', how, now)).toBe(true)
    expect((await registry.find('SN-1'))?.claim.number).toBe(2)
    expect(await registry.remove('SN-1', now)).toBe(true)
    expect(await names(registry)).toEqual([
      'device-added',
      'claim-reserved',
      'certificate-issued',
      'device-rearmed new token, certificates revoked',
      'certificate-status REVOKED',
      'device-removed',
    ])
  })
})
