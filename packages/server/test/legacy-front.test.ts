/** The old URLs as such: where they are, who else is there, and events that come without any. */
import { X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createLegacyFront } from '../src/legacy/front.ts'
import { rootCaOf } from '../src/legacy/root-ca.ts'
import type { LegacyRoute } from '../src/legacy/routes.ts'
import type { Shadows } from '../src/legacy/shadow.ts'
import { startLegacy, vended } from './legacy.ts'

describe('a route', () => {
  const statusAt = async (routes: readonly LegacyRoute[], path: string) => {
    const machine = await startLegacy({ routes })
    return (await machine.say(new Request(`https://old.example${path}`))).status
  }

  it('answers below any stage or base path, or below its own prefix alone', async () => {
    const anywhere = [{ name: 'awslabs-2020' }] as const
    for (const path of ['/getcert', '/Prod/getcert', '/LATEST/getcert', '/a/base/path/getcert'])
      expect(await statusAt(anywhere, path), path).toBe(400)
    const prod = [{ name: 'awslabs-2020', prefix: '/Prod' }] as const
    expect(await statusAt(prod, '/Prod/getcert')).toBe(400)
    for (const path of ['/getcert', '/prod/getcert', '/x/Prod/getcert', '/Prod/getcert/'])
      expect(await statusAt(prod, path), path).toBe(404)
  })

  it('leaves everything else to the vending machine', async () => {
    const machine = await startLegacy()
    for (const path of [
      '/getcert2',
      '/xgetcert',
      '/v1/getcerts',
      '/shadow',
      '/registrations',
      '/any/',
    ])
      expect((await machine.say(new Request(`https://old.example${path}`))).status, path).toBe(404)
    const device = await machine.addDevice()
    expect((await machine.enroll(device)).status).toBe(200)
  })

  it('does not share its URL with another', () => {
    const both = (one?: string, other?: string) => () =>
      createLegacyFront({
        routes: [
          { name: 'awslabs-2018', ...(one !== undefined && { prefix: one }) },
          { name: 'awslabs-2020', ...(other !== undefined && { prefix: other }) },
        ],
      } as never)
    for (const [one, other] of [[], ['/Prod'], ['/Prod', '/Prod']])
      expect(both(one, other)).toThrow('have one URL')
    expect(both('/LATEST', '/Prod')).not.toThrow()
  })
})

describe('an event without proxy integration', () => {
  it('of awslabs 2018 gets the raw object, the raw text or null', async () => {
    const machine = await startLegacy()
    const { deviceSerial, token } = await machine.addDevice('SN-1')
    const ask = (deviceToken: string) =>
      machine.front.answerDirect({ serialNumber: deviceSerial, deviceToken })
    expect(await ask('wrong-token')).toBe('Access Deny!')
    const answer = await ask(token)
    expect(vended('awslabs-2018', JSON.stringify(answer)).certificateId).toHaveLength(64)
    const now = machine.clock.now()
    await machine.registry.setDisabled(deviceSerial, true, now)
    expect(await ask(token)).toBe('Access Deny!')
    await machine.registry.setDisabled(deviceSerial, false, now)
    for (let time = 0; time < 4; time += 1) await ask(token)
    expect(await ask(token)).toBeNull()
  })

  it('of IoT Atlas gets the object with its status', async () => {
    const machine = await startLegacy()
    const { deviceSerial, token } = await machine.addDevice('SN-1')
    expect(await machine.front.answerDirect({ device_uid: deviceSerial })).toMatchObject({
      statusCode: 403,
      status: 'ERROR',
    })
    const fields = { device_uid: deviceSerial, device_token: token, requestContext: { a: 1 } }
    const answer = await machine.front.answerDirect(fields)
    expect(vended('iot-atlas', JSON.stringify(answer)).rootCa).toContain('MQTT')
  })

  it('with values that are no texts names no device', async () => {
    const machine = await startLegacy()
    for (const serialNumber of [1, null, {}, [], '', 'x'.repeat(513)])
      expect(await machine.front.answerDirect({ serialNumber, deviceToken: '' })).toBe(
        'Access Deny!',
      )
  })

  it('of a dialect that is off, or of none, is left alone', async () => {
    const machine = await startLegacy({ routes: [{ name: 'iot-atlas' }] })
    expect(machine.front.answerDirect({ serialNumber: 'SN-1', deviceToken: 'x' })).toBeUndefined()
    expect(machine.front.answerDirect({ thingName: 'SN-1' })).toBeUndefined()
  })
})

describe('/shadow of awslabs 2020', () => {
  /** A shadow service of one thing; what is judged here is who may ask, and what is written. */
  const start = async (changes: Partial<Shadows> = {}) => {
    const written: unknown[] = []
    const shadows: Shadows = {
      reported: async (thingName) => ({ thingName, temperature: 21 }),
      desire: async (thingName, desired) => {
        written.push({ thingName, desired })
        return desired
      },
      ...changes,
    }
    const machine = await startLegacy({ shadows, routes: [{ name: 'awslabs-2020' }] })
    const { token } = await machine.addDevice('SN-1', { thingName: 'thing-1' })
    const at = (query: string, init: RequestInit = {}) =>
      machine.say(new Request(`https://old.example/Prod/shadow?${query}`, init))
    return { machine, written, at, known: `serialNumber=SN-1&deviceToken=${token}` }
  }

  it('shows what the thing reported, and nothing where it has no shadow', async () => {
    const { at, known } = await start()
    expect(JSON.parse((await at(known)).text)).toEqual({ thingName: 'thing-1', temperature: 21 })
    const bare = await start({ reported: async () => undefined })
    expect((await bare.at(bare.known)).text).toBe('{}')
  })

  it('writes what is desired, without serial and token, and with what only looks like them', async () => {
    const { at, known, written } = await start()
    const body = JSON.stringify({ level: 3, myserialNumberX: 'kept', deviceToken: undefined })
    const answer = await at(`${known}&mode=slow&level=1`, { method: 'PUT', body })
    const desired = { mode: 'slow', level: 3, myserialNumberX: 'kept' }
    expect([answer.status, JSON.parse(answer.text)]).toEqual([200, desired])
    expect(written).toEqual([{ thingName: 'thing-1', desired }])
  })

  it('refuses strangers, disabled devices and other methods, and writes nothing', async () => {
    const { machine, at, known, written } = await start()
    const put = { method: 'PUT', body: '{"level":3}' }
    const all = [
      await at('serialNumber=SN-1&deviceToken=wrong', put),
      await at('serialNumber=SN-2&deviceToken=wrong', put),
      await at('', put),
      await at(known, { ...put, method: 'POST' }),
    ]
    await machine.registry.setDisabled('SN-1', true, machine.clock.now())
    all.push(await at(known, put))
    expect(all.map(({ status, text }) => [status, text])).toEqual([
      [403, 'Access Denied'],
      [403, 'Access Denied'],
      [400, 'Service error'],
      [405, 'Bad Request'],
      [403, 'Access Denied'],
    ])
    expect(written).toEqual([])
  })

  it('says that it failed where the shadow service does, and not why', async () => {
    const { machine, at, known } = await start({
      reported: async () => {
        throw new Error('AccessDeniedException for role/secret')
      },
    })
    const answer = await at(known)
    expect([answer.status, answer.text]).toEqual([500, 'Error issuing certificate!'])
    expect(machine.events).toContainEqual(expect.objectContaining({ event: 'failed' }))
  })

  it('is not there without a shadow service', async () => {
    const machine = await startLegacy()
    const answer = await machine.say(new Request('https://old.example/Prod/shadow'))
    expect(answer.status).toBe(404)
  })
})

describe('the root that is handed out', () => {
  const anchors = ['-----BEGIN CERTIFICATE-----\r\nA\r\n-----END CERTIFICATE-----', 'B\n\n']

  it("is Amazon's for AWS IoT Core, from Node's own list", () => {
    const pem = rootCaOf({
      host: 'a1b2c3-ats.iot.eu-west-1.amazonaws.com',
      port: 8883,
      trustAnchors: anchors,
    })
    const root = new X509Certificate(pem)
    expect(root.subject).toContain('CN=Amazon Root CA 1')
    expect(root.checkIssued(root) && root.verify(root.publicKey)).toBe(true)
  })

  it('is what judges the MQTT server for every other, whatever its name looks like', () => {
    for (const host of ['mqtt.example', 'x-ats.iot.eu-west-1.amazonaws.com.evil.example'])
      expect(rootCaOf({ host, port: 8883, trustAnchors: anchors })).toBe(
        '-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\nB\n',
      )
  })
})
