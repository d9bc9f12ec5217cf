/** Tables of older vending machines, as they stand: rows written by hand, in their functions' words. */
import { type AttributeValue, GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from 'vitest'
import { day, later } from '../src/clock.ts'
import { type DynamodbOptions, openDynamodbRegistry } from '../src/registry/dynamodb.ts'
import { type Registry, vendedElsewhere } from '../src/registry/registry.ts'
import { makeDeviceKey } from './device.ts'
import { dynaliteClient, makeTable, tablesFor } from './dynamodb.ts'
import { startMachine } from './machine.ts'
import { add, hex, issued, now, reservation, reserve, token } from './registry-suite/facts.ts'

const client = await dynaliteClient()
let made = 0

/** A table that was there before us, with its rows. */
async function adopt(
  rows: readonly Record<string, AttributeValue>[],
  options: Partial<DynamodbOptions> = {},
) {
  made += 1
  const table = `adopted-${made}`
  const key = options.shape === 'iot-atlas' ? 'device_uid' : 'serialNumber'
  for (const input of tablesFor(table, key)) await makeTable(client, input)
  for (const Item of rows) await client.send(new PutItemCommand({ TableName: table, Item }))
  const registry: Registry = openDynamodbRegistry({ table, client, ...options })
  const row = async (serial: string) => {
    const Key = { [key]: { S: serial } }
    return (await client.send(new GetItemCommand({ TableName: table, Key }))).Item
  }
  return { registry, row }
}

const burned = 'abc123'
const arn = 'arn:aws:iot:eu-west-1:123456789012:cert/0123'
const old = { serialNumber: { S: 'SN-1' }, deviceToken: { S: burned } }

async function record(registry: Registry, certificateArn?: string) {
  const one = { ...issued(), ...(certificateArn !== undefined && { certificateArn }) }
  await registry.record(await reservation(registry, 'SN-1', 'key'), one, now)
  return one.certificateId
}

describe('a row of deviceInfo', () => {
  it('is a device that waits, with the token that stands in the clear, and reading changes nothing', async () => {
    const { registry, row } = await adopt([old])
    const device = await registry.find('SN-1')
    expect(device).toMatchObject({ deviceSerial: 'SN-1', thingName: 'SN-1', disabled: false })
    expect(device?.claim).toMatchObject({ number: 1, token: { kind: 'plain' } })
    expect(device?.createdAt).toBeUndefined()
    expect(JSON.stringify(device)).not.toContain(burned)
    expect(await registry.list({ limit: 10 })).toEqual([device])
    expect(await row('SN-1')).toEqual(old)
  })

  it('enrolls with its old token, which the first accepted claim replaces by a hash', async () => {
    const { registry, row } = await adopt([old])
    const machine = await startMachine({ registry })
    const device = { deviceSerial: 'SN-1', token: burned, key: await makeDeviceKey() }
    const wrong = await machine.enroll(device, { token: 'abc124-abc124' })
    expect([wrong.status, wrong.problem]).toEqual([401, 'claim-refused'])
    expect(await row('SN-1')).toEqual(old)
    expect((await machine.enroll(device)).problem).toBe('claim-refused') // too short to be a token here
    const long = 'burned-in-token'
    const other = { serialNumber: { S: 'SN-2' }, deviceToken: { S: long } }
    const second = await adopt([other])
    const machine2 = await startMachine({ registry: second.registry })
    const device2 = { deviceSerial: 'SN-2', token: long, key: await makeDeviceKey() }
    expect((await machine2.enroll(device2)).status).toBe(200)
    const after = await second.row('SN-2')
    expect(after).not.toHaveProperty('deviceToken')
    expect(after?.certvend_tokenKind).toEqual({ S: 'scrypt' })
    expect(JSON.stringify(after)).not.toContain(long)
    expect((await machine2.enroll(device2)).status).toBe(200)
    expect((await machine2.enroll(device2, { token: 'burned-in-tokem' })).status).toBe(401)
  })

  it('keeps its token where the old function must be able to come back', async () => {
    const { registry, row } = await adopt([old], { keepPlainTokens: true })
    await record(registry)
    expect(await row('SN-1')).toMatchObject({ deviceToken: { S: burned } })
    expect((await registry.find('SN-1'))?.claim.token?.kind).toBe('scrypt')
  })

  it('keeps the ARN of its certificate in certinfo: the old one, then the new one', async () => {
    const { registry, row } = await adopt([{ ...old, certinfo: { S: arn } }])
    expect((await registry.find('SN-1'))?.previousCertificateArn).toBe(arn)
    await record(registry)
    expect((await row('SN-1'))?.certinfo).toEqual({ S: arn })
    const how = { token: 'keep', openUntil: later(now, day), revoke: false } as const
    await registry.rearm('SN-1', how, now)
    const outcome = await registry.reserve({
      deviceSerial: 'SN-1',
      claimNumber: 2,
      publicKey: 'key 2',
      certificateSerial: hex(16),
      at: now,
    })
    if (outcome.outcome !== 'reserved') throw new Error(outcome.outcome)
    const next = `${arn}4567`
    await registry.record(outcome.reservation, { ...issued(), certificateArn: next }, now)
    expect((await row('SN-1'))?.certinfo).toEqual({ S: next })
    expect((await registry.find('SN-1'))?.previousCertificateArn).toBe(arn)
  })

  it('without a token matches none, not even the absence of one', async () => {
    const { registry } = await adopt([
      { serialNumber: { S: 'SN-1' } },
      { serialNumber: { S: 'SN-2' }, deviceToken: { S: '' } },
      { serialNumber: { S: 'SN-3' }, deviceToken: { NULL: true } },
    ])
    const machine = await startMachine({ registry })
    for (const deviceSerial of ['SN-1', 'SN-2', 'SN-3']) {
      expect((await registry.find(deviceSerial))?.claim.token, deviceSerial).toBeUndefined()
      const device = { deviceSerial, token: 'undefined', key: await makeDeviceKey() }
      for (const token of [undefined, 'undefined', 'null'])
        expect((await machine.enroll(device, { token })).status, deviceSerial).toBe(401)
    }
  })

  it('reads a token that was entered as a number, of any length', async () => {
    const { registry } = await adopt([
      { serialNumber: { S: 'SN-1' }, deviceToken: { N: '12345678' } },
      { serialNumber: { S: 'SN-2' }, deviceToken: { N: '12345678901234567890123456789' } },
    ])
    const machine = await startMachine({ registry })
    for (const [deviceSerial, token] of [
      ['SN-1', '12345678'],
      ['SN-2', '12345678901234567890123456789'],
    ] as const) {
      const device = { deviceSerial, token, key: await makeDeviceKey() }
      expect((await machine.enroll(device, { token: `${token}0` })).status).toBe(401)
      expect((await machine.enroll(device)).status).toBe(200)
    }
  })

  it('loses its old token when it is re-armed with a new one', async () => {
    const { registry, row } = await adopt([old], { keepPlainTokens: true })
    const how = { token, openUntil: later(now, day), revoke: false } as const
    await registry.rearm('SN-1', how, now)
    expect(await row('SN-1')).not.toHaveProperty('deviceToken')
    expect((await registry.find('SN-1'))?.claim.token).toEqual(token)
  })

  it('has its thing name to itself: no new device can take it', async () => {
    const { registry } = await adopt([old])
    const outcome = await registry.add({ deviceSerial: 'SN-2', thingName: 'SN-1' }, token, now)
    expect(outcome).toBe('thing-name-taken')
    expect(await add(registry, 'SN-1')).toBe('serial-taken')
    expect(await registry.remove('SN-1', now)).toBe(true)
    expect(await add(registry, 'SN-1')).toBe('added')
  })
})

describe('a row of DeviceProvisioningInfoDB', () => {
  const atlas = (fields: Record<string, AttributeValue>) => ({
    device_uid: { S: 'SN-1' },
    device_token: { S: burned },
    ...fields,
  })
  const adoptAtlas = (fields: Record<string, AttributeValue>) =>
    adopt([atlas(fields)], { shape: 'iot-atlas' })

  it('is enabled or not, and registered or not, whether with numbers or with text', async () => {
    for (const [off, on] of [
      [{ S: '0' }, { S: '1' }],
      [{ N: '0' }, { N: '1' }],
    ] as const) {
      const disabled = await adoptAtlas({ is_enabled: off, is_registered: off })
      expect((await disabled.registry.find('SN-1'))?.disabled).toBe(true)
      const spent = await adoptAtlas({ is_enabled: on, is_registered: on })
      const claim = (await spent.registry.find('SN-1'))?.claim
      expect(claim).toMatchObject({ certificateId: vendedElsewhere })
      expect(await reserve(spent.registry, 'SN-1', 'key')).toEqual({
        outcome: 'refused',
        reason: 'claim-vended-elsewhere',
      })
      const waiting = await adoptAtlas({ is_enabled: on, is_registered: off })
      expect((await reserve(waiting.registry, 'SN-1', 'key')).outcome).toBe('reserved')
    }
  })

  it('is written as its function would, and re-armed so that the claim is open again', async () => {
    const { registry, row } = await adoptAtlas({
      is_enabled: { N: '1' },
      is_registered: { N: '0' },
    })
    await record(registry)
    expect(await row('SN-1')).toMatchObject({
      is_registered: { N: '1' },
      iot_core_thing_name: { S: 'SN-1' },
      iot_core_registered_on: { S: now.toISOString() },
    })
    await registry.setDisabled('SN-1', true, now)
    expect((await row('SN-1'))?.is_enabled).toEqual({ N: '0' })
    expect((await registry.find('SN-1'))?.disabled).toBe(true)
    const how = { token: 'keep', openUntil: later(now, day), revoke: false } as const
    await registry.rearm('SN-1', how, now)
    expect((await row('SN-1'))?.is_registered).toEqual({ N: '0' })
    expect((await registry.find('SN-1'))?.claim.certificateId).toBeUndefined()
  })
})
