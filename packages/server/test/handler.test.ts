import { limits } from '@certvend/client/wire'
import { describe, expect, it } from 'vitest'
import { type Registry, registryBusy } from '../src/registry/registry.ts'
import { type Machine, startMachine } from './machine.ts'

const json = { 'content-type': 'application/json' }
const post = (body: string | Uint8Array, headers: Record<string, string> = json): RequestInit => ({
  method: 'POST',
  headers,
  body: body as string,
})

/** Every answer is a problem document that says so, is not stored, and repeats nothing of ours. */
async function refusal(machine: Machine, path: string, init: RequestInit) {
  const answer = await machine.send(path, init)
  expect(answer.headers.get('content-type')).toBe('application/problem+json')
  expect(answer.headers.get('cache-control')).toBe('no-store')
  expect(JSON.parse(answer.text)).toMatchObject({ status: answer.status })
  return answer
}

describe('a request that is not for this machine', () => {
  it('is not found', async () => {
    const machine = await startMachine()
    for (const path of ['/', '/v1/reenroll/', '/v1/enroll/', '/v1/../etc/passwd', '/getcert?x=1'])
      expect((await refusal(machine, path, { method: 'POST' })).problem).toBe('not-found')
  })

  it('with another method is told which ones there are', async () => {
    const machine = await startMachine()
    for (const [path, method, allow] of [
      ['/v1/enroll', 'GET', 'POST'],
      ['/v1/enroll', 'DELETE', 'POST'],
      ['/v1/cacerts', 'POST', 'GET, HEAD'],
      ['/healthz', 'PUT', 'GET, HEAD'],
    ] as const) {
      const answer = await refusal(machine, path, { method })
      expect([answer.status, answer.problem]).toEqual([405, 'method-not-allowed'])
      expect(answer.headers.get('allow')).toBe(allow)
    }
  })
})

describe('a body', () => {
  it('of another media type or with a content coding is refused', async () => {
    const machine = await startMachine()
    for (const headers of [
      { 'content-type': 'text/plain' },
      { 'content-type': 'application/x-www-form-urlencoded' },
      { 'content-type': 'application/jsonp' },
      { 'content-type': '' },
      { ...json, 'content-encoding': 'gzip' },
    ]) {
      const answer = await refusal(machine, '/v1/enroll', post('{}', headers))
      expect([answer.status, answer.problem]).toEqual([415, 'unsupported-media-type'])
    }
  })

  it('may say its charset and write its type in capitals', async () => {
    const machine = await startMachine()
    const headers = { 'content-type': 'Application/JSON; charset=utf-8' }
    expect((await refusal(machine, '/v1/enroll', post('{}', headers))).status).toBe(400)
  })

  it('of one byte too many is refused, also without a declared length', async () => {
    const machine = await startMachine()
    const big = new Uint8Array(limits.requestBytes + 1).fill(0x20)
    const streamed = new Response(big).body
    const undeclared = { method: 'POST', headers: json, body: streamed, duplex: 'half' }
    for (const init of [
      post(big),
      post('{}', { ...json, 'content-length': '99999' }),
      undeclared,
    ]) {
      const answer = await refusal(machine, '/v1/enroll', init as RequestInit)
      expect([answer.status, answer.problem]).toEqual([413, 'request-too-large'])
    }
  })

  it('that is not what the protocol asks for is refused without repeating it', async () => {
    const machine = await startMachine()
    const csr = '-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n'
    for (const body of [
      '',
      'null',
      '[]',
      '"x"',
      '{',
      '<html>sEcReT</html>',
      '{"deviceSerial":"SN-1"}',
      JSON.stringify({ deviceSerial: 7, csr }),
      JSON.stringify({ deviceSerial: 'SN-1', csr: 'sEcReT' }),
      JSON.stringify({ deviceSerial: 'SN-1', csr: [csr] }),
      JSON.stringify({ deviceSerial: 'SN-1', csr: csr + csr }),
      JSON.stringify({ deviceSerial: 'SN-1', csr: csr.replace('AA==', 'A'.repeat(12 * 1024)) }),
      Buffer.from([0x7b, 0xff, 0xfe, 0x7d]),
    ]) {
      const answer = await refusal(machine, '/v1/enroll', post(body))
      expect([answer.status, answer.problem]).toEqual([400, 'malformed-request'])
      expect(answer.text).not.toContain('sEcReT')
    }
  })

  it('with a serial that means something to a path, a topic or a shell is refused', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const before = await machine.registry.events({ limit: 100 })
    for (const deviceSerial of [
      '',
      '.',
      '..',
      '../SN-1',
      'a/b',
      'a\\b',
      'SN 1',
      ' SN-1',
      'SN-1\n',
      'SN\u0000',
      'Seriennummer-ä',
      'ѕn-1',
      '💥',
      '#',
      '+',
      '$(id)',
      '-rf',
      'x'.repeat(65),
      'x'.repeat(10_000),
    ]) {
      const csr = await device.key.csr('SN-1')
      const answer = await machine.enroll(device, { deviceSerial, csr })
      expect([answer.status, answer.problem], deviceSerial.slice(0, 70)).toEqual([
        400,
        'malformed-request',
      ])
      expect(answer.text.length).toBeLessThan(300)
    }
    expect(await machine.registry.events({ limit: 100 })).toEqual(before)
  })
})

describe('the order of judgement', () => {
  it('is: the request itself, then the token, then the state of the claim', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    await machine.registry.setDisabled(device.deviceSerial, true, machine.clock.now())
    const badCsr = await device.key.csr('SN-other')
    const token = 'another-token'
    expect((await machine.enroll(device, { csr: badCsr, token })).problem).toBe('csr-refused')
    expect((await machine.enroll(device, { token })).problem).toBe('claim-refused')
    expect((await machine.enroll(device)).problem).toBe('device-disabled')
  })

  it('does not count a request that is refused before its token was looked at', async () => {
    const machine = await startMachine({ failures: { allowed: 1 } })
    const device = await machine.addDevice()
    const csr = await device.key.csr('SN-other')
    const token = 'another-token'
    for (let attempt = 0; attempt < 5; attempt += 1) await machine.enroll(device, { csr, token })
    expect((await machine.enroll(device, { token })).status).toBe(401)
  })
})

describe('the authorization header', () => {
  it('is a bearer token of the right form or counts as none', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const csr = await device.key.csr(device.deviceSerial)
    const body = JSON.stringify({ deviceSerial: device.deviceSerial, csr })
    for (const authorization of [
      device.token,
      `Basic ${device.token}`,
      `Bearer ${device.token} ${device.token}`,
      'Bearer short',
      `Bearer ${'x'.repeat(513)}`,
      'Bearer',
      'Bearer a\u00a0bcdefgh',
    ]) {
      const answer = await refusal(machine, '/v1/enroll', post(body, { ...json, authorization }))
      expect([answer.status, answer.problem]).toEqual([401, 'claim-refused'])
    }
    const authorization = `bearer ${device.token}`
    const answer = await machine.send('/v1/enroll', post(body, { ...json, authorization }))
    expect(answer.status).toBe(200)
  })
})

describe('the other operations', () => {
  it('give the device CA and the MQTT anchors, and no pins', async () => {
    const machine = await startMachine()
    const answer = await machine.send('/v1/cacerts')
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(JSON.parse(answer.text)).toEqual({
      deviceCa: await machine.issuer.caCertificates(),
      trustAnchors: ['-----BEGIN CERTIFICATE-----'],
    })
  })

  it('say whether the registry answers', async () => {
    const machine = await startMachine()
    expect((await machine.send('/healthz')).status).toBe(200)
    await machine.registry.close()
    const answer = await refusal(machine, '/healthz', {})
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '2'])
  })
})

describe('a registry', () => {
  it('that is busy makes the machine busy, with a time to come back', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const registry: Registry = {
      ...machine.registry,
      reserve: () => Promise.reject(registryBusy(new Error('locked'))),
    }
    const answer = await machine.enroll(device, { through: machine.another({ registry }) })
    expect([answer.status, answer.problem]).toEqual([503, 'busy'])
    expect(answer.headers.get('retry-after')).toBe('2')
  })

  it('that fails says so in the log and not to the caller', async () => {
    const machine = await startMachine()
    const device = await machine.addDevice()
    const find = () => Promise.reject(new Error('disk I/O error'))
    const through = machine.another({ registry: { ...machine.registry, find } })
    const answer = await machine.enroll(device, { through })
    expect([answer.status, answer.problem]).toEqual([500, 'internal'])
    expect(answer.text).not.toContain('disk')
    expect(machine.events).toContainEqual(expect.objectContaining({ reason: 'disk I/O error' }))
  })
})
