/** Rows of old tables: what each becomes, and why one is refused. */
import { describe, expect, it } from 'vitest'
import { type Fields, judgeRow } from '../src/import/row.ts'

const id = 'a'.repeat(64)
const arn = `arn:aws:iot:eu-west-1:123456789012:cert/${id}`
const strong = '0123456789abcdefABCDEF'

describe('a row of deviceInfo', () => {
  const row = (fields: Fields) => judgeRow({ serialNumber: 'SN-1', deviceToken: strong, ...fields })

  it('waits, or holds the certificate that its ARN names', () => {
    const waiting = { deviceSerial: 'SN-1', thingName: 'SN-1', token: strong, disabled: false }
    expect(row({})).toEqual({ ok: true, row: waiting })
    expect(row({ certinfo: '' })).toEqual({ ok: true, row: waiting })
    expect(row({ certinfo: { NULL: true } })).toEqual({ ok: true, row: waiting })
    expect(row({ certinfo: { S: arn } })).toEqual({ ok: true, row: { ...waiting, spentOn: id } })
    expect(row({ certinfo: 'something' })).toMatchObject({ row: { spentOn: 'elsewhere' } })
  })

  it('is given the policy that was named for all', () => {
    const fields = { serialNumber: 'SN-1', deviceToken: strong }
    expect(judgeRow(fields, { policyName: 'devices' })).toMatchObject({
      row: { policyName: 'devices' },
    })
  })

  it('may hold numbers where others hold texts', () => {
    expect(row({ serialNumber: { N: '100200' }, deviceToken: 123456 })).toMatchObject({
      row: { deviceSerial: '100200', token: '123456' },
    })
  })
})

describe('a row of IoT Atlas', () => {
  const row = (fields: Fields) =>
    judgeRow({ device_uid: 'D-1', device_token: strong, is_enabled: 1, ...fields })

  it.each([
    [{ is_registered: 0 }, { disabled: false }],
    [{ is_registered: '0', is_enabled: '1' }, { disabled: false }],
    [{ is_registered: { N: '0' }, is_enabled: { S: '1' } }, { disabled: false }],
    [{ is_enabled: '0' }, { disabled: true }],
    [{ is_enabled: { N: '0' } }, { disabled: true }],
    [{ is_enabled: { BOOL: false } }, { disabled: true }],
    [{ is_enabled: false }, { disabled: true }],
    [{ is_enabled: ' TRUE ' }, { disabled: false }],
    [{ is_registered: 1 }, { spentOn: 'elsewhere' }],
    [{ is_registered: '1' }, { spentOn: 'elsewhere' }],
    [{ is_registered: { S: '1' } }, { spentOn: 'elsewhere' }],
    [{ iot_core_registered_on: '2022-01-01T10:00:00' }, { spentOn: 'elsewhere' }],
    [{ iot_core_thing_name: 'pump_1' }, { spentOn: 'elsewhere', thingName: 'pump_1' }],
    [{}, { thingName: 'thing_D-1' }],
  ])('%j is %j', (fields, expected) => {
    const judged = row(fields)
    expect(judged).toMatchObject({ ok: true, row: expected })
    if (!('spentOn' in expected))
      expect((judged as { row: object }).row).not.toHaveProperty('spentOn')
  })

  it.each([
    [{ is_enabled: 2 }, 'has an is_enabled that is neither 0 nor 1'],
    [{ is_enabled: '' }, 'has no is_enabled'],
    [{ is_registered: 'perhaps' }, 'has an is_registered that is neither 0 nor 1'],
    [{ is_enabled: { L: [] } }, 'has something in is_enabled that is neither text'],
  ])('%j is refused', (fields, reason) => {
    expect(row(fields)).toMatchObject({ ok: false, deviceSerial: 'D-1' })
    expect((row(fields) as { reason: string }).reason).toContain(reason)
  })
})

describe('a row of product', () => {
  const row = (fields: Fields) =>
    judgeRow({ seriaNum: 'P-1', accessToken: 'abc123', applyState: '1', ...fields })

  it('brings its own thing and policy, in either spelling of the serial', () => {
    expect(row({ thingName: 'pump', policyName: 'pumps' })).toEqual({
      ok: true,
      row: {
        deviceSerial: 'P-1',
        token: 'abc123',
        thingName: 'pump',
        policyName: 'pumps',
        disabled: false,
      },
    })
    expect(judgeRow({ serialNum: 'P-2', accesstoken: 'abc123', applyState: 1 })).toMatchObject({
      row: { deviceSerial: 'P-2' },
    })
  })

  it('that may not apply has its certificate already', () => {
    for (const applyState of [0, '0', 'no', false])
      expect(row({ applyState })).toMatchObject({ row: { spentOn: 'elsewhere' } })
    expect(row({ applyState: 'NULL' })).toMatchObject({ reason: 'has no applyState' })
  })
})

describe('a row of any table', () => {
  const tooLong = 'x'.repeat(600)
  it.each([
    ['a column that nobody knows', { name: 'SN-1' }, 'has none of the columns'],
    ['no serial', { serialNumber: '', deviceToken: strong }, 'has no serial'],
    ['a serial that is null', { serialNumber: null, deviceToken: strong }, 'has no serial'],
    ['an illegal serial', { serialNumber: 'SN 1/../2', deviceToken: strong }, 'cannot be used'],
    [
      'a serial that is too long',
      { serialNumber: 'x'.repeat(65), deviceToken: strong },
      'cannot be used',
    ],
    [
      'a serial that no thing can have',
      { serialNumber: 'SN.1', deviceToken: strong },
      'thing name',
    ],
    ['no token', { serialNumber: 'SN-1' }, 'has no token'],
    ['an empty token', { serialNumber: 'SN-1', deviceToken: '  ' }, 'has no token'],
    ['a token that is null', { serialNumber: 'SN-1', deviceToken: { NULL: true } }, 'has no token'],
    [
      'a token with a blank in it',
      { serialNumber: 'SN-1', deviceToken: 'a b' },
      'no client can send',
    ],
    [
      'a token that is too long',
      { serialNumber: 'SN-1', deviceToken: tooLong },
      'no client can send',
    ],
    ['a number that is not exact', { serialNumber: 'SN-1', deviceToken: 2 ** 60 }, 'is not exact'],
    ['a list for a token', { serialNumber: 'SN-1', deviceToken: ['a'] }, 'neither text, number'],
    [
      'an object for a token',
      { serialNumber: 'SN-1', deviceToken: { S: 'a', N: '1' } },
      'neither text',
    ],
    [
      'a column twice',
      { serialNumber: 'SN-1', SERIALNUMBER: 'SN-2', deviceToken: strong },
      'twice',
    ],
    [
      'an illegal policy',
      { seriaNum: 'P', accessToken: 'a', applyState: 1, policyName: 'a b' },
      'policy name',
    ],
  ])('with %s is refused', (_, fields, reason) => {
    const judged = judgeRow(fields as Fields)
    expect(judged).toMatchObject({ ok: false })
    expect((judged as { reason: string }).reason).toContain(reason)
    expect(JSON.stringify(judged)).not.toContain(strong)
  })
})
