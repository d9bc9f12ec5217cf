/** What an old dialect does to a claim: asking again, two at once, fleets, and our own protocol beside it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { day, hour, later, minute } from '../src/clock.ts'
import { createLegacyFront } from '../src/legacy/front.ts'
import { createMakeKey } from '../src/legacy/made-key.ts'
import { openLibsqlRegistry } from '../src/registry/libsql.ts'
import { generateToken, hashToken } from '../src/tokens.ts'
import { type LegacyMachine, requests, startLegacy, vended } from './legacy.ts'

const statuses = async ({ registry }: LegacyMachine, deviceSerial: string) =>
  (await registry.certificates(deviceSerial)).map(({ status }) => status)

describe('asking again', () => {
  it('gives another certificate, and the one before stays in force until it has connected', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    const first = await machine.get('awslabs-2020', device)
    machine.clock.move(minute)
    const second = await machine.get('awslabs-2020', device)
    expect(second.certificateId).not.toBe(first.certificateId)
    expect(second.privateKey).not.toBe(first.privateKey)
    expect(await statuses(machine, 'SN-1')).toEqual(['ACTIVE', 'ACTIVE'])
    await machine.registry.confirm(second.certificateId, machine.clock.now())
    expect(await statuses(machine, 'SN-1')).toEqual(['ACTIVE', 'INACTIVE'])
    expect((await machine.registry.findCertificate(first.certificateId))?.status).toBe('INACTIVE')
  })

  it('keeps at most two in force, and among them the one that is in use', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    const used = await machine.get('awslabs-2018', device)
    await machine.registry.confirm(used.certificateId, machine.clock.now())
    for (let lost = 0; lost < 3; lost += 1) {
      machine.clock.move(minute)
      await machine.get('awslabs-2018', device)
    }
    expect(await statuses(machine, 'SN-1')).toEqual(['ACTIVE', 'INACTIVE', 'INACTIVE', 'ACTIVE'])
    expect((await machine.registry.findCertificate(used.certificateId))?.status).toBe('ACTIVE')
  })

  it('keeps the first and the newest in force as long as none has connected', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    const first = await machine.get('awslabs-2020', device)
    for (let lost = 0; lost < 3; lost += 1) {
      machine.clock.move(minute)
      await machine.get('awslabs-2020', device)
    }
    expect(await statuses(machine, 'SN-1')).toEqual(['ACTIVE', 'INACTIVE', 'INACTIVE', 'ACTIVE'])
    expect((await machine.registry.findCertificate(first.certificateId))?.status).toBe('ACTIVE')
  })

  it('is over after five certificates, without an alarm, until the device is re-armed', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    for (let time = 0; time < 5; time += 1) await machine.get('iot-atlas', device)
    const sixth = await machine.ask('iot-atlas', device)
    expect(JSON.parse(sixth.text)).toMatchObject({ statusCode: 409 })
    expect(await machine.alarms()).toEqual([])
    const now = machine.clock.now()
    await machine.registry.rearm(
      'SN-1',
      { token: 'keep', openUntil: later(now, day), revoke: false },
      now,
    )
    await machine.get('iot-atlas', device)
  })

  it('is over a day after the first certificate', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    await machine.get('awslabs-2020', device)
    machine.clock.move(day - 1)
    await machine.get('awslabs-2020', device)
    machine.clock.move(1)
    const late = await machine.ask('awslabs-2020', device)
    expect([late.status, late.text]).toEqual([409, 'Access Denied'])
    expect(await machine.registry.certificates('SN-1')).toHaveLength(2)
  })

  it('is not used up by an issuer that fails', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    let failures = 8
    const failing = createLegacyFront({
      registry: machine.registry,
      clock: machine.clock,
      log: () => undefined,
      endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: ['anchor'] },
      routes: [{ name: 'gateway-2021' }],
      issuer: {
        ...machine.issuer,
        issue: async (...parameters) => {
          failures -= 1
          if (failures >= 0) throw new Error('throttled')
          return machine.issuer.issue(...parameters)
        },
      },
    })
    const ask = async () => {
      const request = requests['gateway-2021'](device, 'https://old.example')
      return (await failing.answer(request, { remoteAddress: '192.0.2.1' }))!.status
    }
    for (let time = 0; time < 8; time += 1) expect(await ask()).toBe(500)
    expect(await ask()).toBe(200)
    expect(await machine.registry.certificates('SN-1')).toHaveLength(1)
  })

  it('makes no key for a claim that is known to be spent', async () => {
    let made = 0
    const makeKey = createMakeKey()
    const machine = await startLegacy({
      makeKey: (deviceSerial) => {
        made += 1
        return makeKey(deviceSerial)
      },
    })
    const device = await machine.addDevice('SN-1')
    for (let time = 0; time < 9; time += 1) await machine.ask('awslabs-2020', device)
    expect(made).toBe(5)
  })
})

describe('two requests at once', () => {
  it('of one device are answered one after the other, and both with a certificate', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    const got = await Promise.all([
      machine.get('awslabs-2020', device),
      machine.get('awslabs-2020', device),
    ])
    expect(new Set(got.map(({ certificateId }) => certificateId)).size).toBe(2)
    expect(await statuses(machine, 'SN-1')).toEqual(['ACTIVE', 'ACTIVE'])
    expect(await machine.alarms()).toEqual([])
  })

  it('through two processes never give more than a claim has, nor an alarm', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    const { registry, issuer, clock } = machine
    const others = Array.from({ length: 4 }, () =>
      createLegacyFront({
        registry,
        issuer,
        clock,
        log: () => undefined,
        endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: ['anchor'] },
        routes: [{ name: 'gateway-2021' }],
      }),
    )
    const ask = async (front: (typeof others)[number]) => {
      const request = requests['gateway-2021'](device, 'https://old.example')
      return (await front.answer(request, { remoteAddress: '192.0.2.1' }))!
    }
    const answers = await Promise.all(others.map(ask))
    const won = answers.filter((answer) => answer.status === 200)
    expect(won.length).toBeLessThanOrEqual(1)
    // Each may have overtaken the others until all were told to come back; who then does is given it.
    if (won.length === 0) {
      expect(answers.map((answer) => answer.status)).toEqual([503, 503, 503, 503])
      won.push(await ask(others[0]!))
    }
    const [kept] = await registry.certificates('SN-1')
    expect(vended('gateway-2021', await won[0]!.text()).certificateId).toBe(kept!.certificateId)
    expect(await registry.certificates('SN-1')).toHaveLength(1)
    expect(await machine.alarms()).toEqual([])
  })

  it('through two processes, one overtaking the other, both end with a certificate', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    let rounds = 0
    const slow = createLegacyFront({
      registry: machine.registry,
      clock: machine.clock,
      log: () => undefined,
      endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: ['anchor'] },
      routes: [{ name: 'awslabs-2020' }],
      issuer: {
        ...machine.issuer,
        issue: async (...parameters) => {
          rounds += 1
          // While the first signature is made, the other process binds a key and ends.
          if (rounds === 1) await machine.get('awslabs-2020', device)
          return machine.issuer.issue(...parameters)
        },
      },
    })
    const request = requests['awslabs-2020'](device, 'https://old.example')
    const answer = await slow.answer(request, { remoteAddress: '192.0.2.1' })
    expect([answer?.status, rounds]).toEqual([200, 2])
    expect(await statuses(machine, 'SN-1')).toEqual(['ACTIVE', 'ACTIVE'])
    expect(await machine.alarms()).toEqual([])
  })

  it('of more devices than keys can be made for are told to come back', async () => {
    const makeKey = createMakeKey(1)
    const keys = await Promise.all(['SN-1', 'SN-2', 'SN-3', 'SN-4'].map(makeKey))
    expect(keys.map((key) => key !== undefined)).toEqual([true, true, true, false])
    expect(await makeKey('SN-4')).toBeDefined()
    const machine = await startLegacy({ makeKey: async () => undefined })
    const answer = await machine.ask('awslabs-2020', await machine.addDevice())
    expect([answer.status, answer.text]).toEqual([503, 'Service error'])
    expect(answer.headers.get('retry-after')).toBe('10')
  })
})

describe('beside our own protocol', () => {
  it('a claim that a key of the device itself has spent is refused, with an alarm', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    await machine.enroll(device)
    const answer = await machine.ask('awslabs-2020', device)
    expect([answer.status, answer.text]).toEqual([409, 'Access Denied'])
    expect(await machine.alarms()).toEqual(['claim-conflict'])
    expect((await machine.enroll(device)).status).toBe(200)
    expect(await statuses(machine, 'SN-1')).toEqual(['ACTIVE'])
  })

  it('a claim that was vended in an old dialect is refused to every other key, with an alarm', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    await machine.get('awslabs-2020', device)
    expect((await machine.enroll(device)).problem).toBe('claim-spent')
    expect(await machine.alarms()).toEqual(['claim-conflict'])
  })

  it('a weak token that was imported is good for an old dialect', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1', { token: 'a1b2c3' })
    await machine.get('awslabs-2018', device)
    expect((await machine.ask('awslabs-2018', { ...device, token: 'a1b2c4' })).text).toBe(
      '"Access Deny!"',
    )
  })
})

describe("a fleet's token", () => {
  const start = async () => {
    const machine = await startLegacy()
    const token = generateToken()
    await machine.registry.addFleet(
      'pumps',
      await hashToken(token, 'generated'),
      machine.clock.now(),
    )
    await machine.addDevice('PUMP-1', { fleet: 'pumps', token: null })
    await machine.addDevice('GATE-1', { fleet: 'gates', token: null })
    await machine.addDevice('ALONE-1', { token: null })
    return { machine, token }
  }

  it('opens the rows of its fleet, and no others', async () => {
    const { machine, token } = await start()
    await machine.get('gateway-2021', { deviceSerial: 'PUMP-1', token })
    for (const deviceSerial of ['GATE-1', 'ALONE-1', 'PUMP-2']) {
      const answer = await machine.ask('gateway-2021', { deviceSerial, token })
      expect([answer.status, answer.text], deviceSerial).toEqual([
        401,
        '{"message":"Unauthorized"}',
      ])
    }
  })

  it('opens each of them once: whoever comes second is told that the thing exists', async () => {
    const { machine, token } = await start()
    const first = await machine.get('gateway-2021', { deviceSerial: 'PUMP-1', token })
    const second = await machine.ask('gateway-2021', { deviceSerial: 'PUMP-1', token })
    expect(second.status).toBe(409)
    expect(JSON.parse(second.text).error).toBe('Thing exists in the AWS IoT Account, exiting...')
    expect(await machine.registry.certificates('PUMP-1')).toMatchObject([
      { certificateId: first.certificateId, status: 'ACTIVE' },
    ])
  })

  it('is worth nothing in the other dialects and in our own protocol', async () => {
    const { machine, token } = await start()
    const asks = { deviceSerial: 'PUMP-1', token }
    expect((await machine.ask('awslabs-2020', asks)).status).toBe(403)
    expect((await machine.ask('awslabs-2018', asks)).text).toBe('"Access Deny!"')
    const device = { ...(await machine.addDevice()), ...asks }
    expect((await machine.enroll(device)).problem).toBe('claim-refused')
  })

  it('is worth nothing after its fleet was removed', async () => {
    const { machine, token } = await start()
    await machine.registry.removeFleet('pumps', machine.clock.now())
    const answer = await machine.ask('gateway-2021', { deviceSerial: 'PUMP-1', token })
    expect(answer.status).toBe(401)
  })

  it('is not needed by a device that has a token of its own', async () => {
    const { machine } = await start()
    const device = await machine.addDevice('PUMP-9', { fleet: 'pumps' })
    await machine.get('gateway-2021', device)
  })
})

describe('what an old dialect leaves behind', () => {
  it('holds no private key, no token and no address of a request with one', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'certvend-legacy-'))
    const registry = openLibsqlRegistry(join(directory, 'registry.db'))
    const machine = await startLegacy({ registry })
    const token = generateToken()
    const device = { deviceSerial: 'SN-1', thingName: 'SN-1' }
    await registry.add(device, await hashToken(token, 'generated'), machine.clock.now())
    const got = await machine.get('awslabs-2020', { deviceSerial: 'SN-1', token })
    await machine.ask('awslabs-2018', { deviceSerial: 'SN-1', token: 'wrong-token-here' })
    await machine.ask('awslabs-2018', { deviceSerial: 'no serial\nat all', token })
    await registry.close()
    const written = readdirSync(directory).map((file) =>
      readFileSync(join(directory, file), 'latin1'),
    )
    const logged = JSON.stringify(machine.events)
    const middle = got.privateKey.split('\n')[12]!
    for (const text of [...written, logged])
      for (const secret of [
        token,
        middle,
        'PRIVATE KEY',
        'deviceToken',
        'wrong-token-here',
        'at all',
      ])
        expect(text.includes(secret), secret).toBe(false)
    expect(written.some((text) => text.includes(got.certificateId))).toBe(true)
    rmSync(directory, { recursive: true })
  })

  it('is a notice once an hour, with the count since the start', async () => {
    const machine = await startLegacy()
    const device = await machine.addDevice('SN-1')
    const notices = () =>
      machine.events
        .filter(({ event }) => event === 'deprecated')
        .map(({ operation, level, accepted, refused }) => [operation, level, accepted, refused])
    await machine.get('awslabs-2020', device)
    for (let time = 0; time < 3; time += 1) await machine.ask('awslabs-2020', { token: 'x' })
    await machine.ask('gateway-2021', device)
    expect(notices()).toEqual([
      ['awslabs-2020', 'warning', 1, 0],
      ['gateway-2021', 'warning', 0, 1],
    ])
    machine.clock.move(hour)
    await machine.ask('awslabs-2020', { token: 'x' })
    expect(notices().at(-1)).toEqual(['awslabs-2020', 'warning', 1, 4])
    expect(machine.front.counts().get('awslabs-2020')).toEqual({ accepted: 1, refused: 4 })
  })
})
