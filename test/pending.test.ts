/**
 * A certificate that is not yet let in: JITR, JITP and policies on their way, as a device meets them
 * at IoT Core. The broker is a door of ours that behaves so; behind it stands nothing, or a real
 * mosquitto, whose subscriber (ours as well) plays the rule and its function that activate.
 */
import {
  type CertvendError,
  type Clock,
  type Credential,
  connect,
  stayConnected,
  systemClock,
} from '@certvend/client'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import { instantClock } from './instant-clock.ts'
import { type Door, type DoorOptions, openDoor } from './iot-door.ts'
import { type Mosquitto, mosquittoMissing, startMosquitto } from './mosquitto.ts'
import { type Certified, certify } from './pki.ts'
import { seeded } from './seeded.ts'

let mqttCa: Certified
let server: Certified
let registeredCa: Certified
let device: Certified
let door: Door

beforeAll(async () => {
  mqttCa = await certify('MQTT CA', { ca: true })
  server = await certify('localhost', { issuer: mqttCa, dns: ['localhost'] })
  registeredCa = await certify('Factory CA', { ca: true })
  device = await certify('device-1', { issuer: registeredCa })
})
afterEach(() => door.close())

const open = async (options: Partial<DoorOptions> & { clock: Clock }): Promise<Door> => {
  door = await openDoor({ server, registeredCa, ...options })
  return door
}
const credential = (more: Partial<Credential> = {}, who = device): Credential =>
  credentialFor(
    who,
    { host: 'localhost', port: door.port, trustAnchors: [mqttCa.certificate] },
    more,
  )

/** Activates `afterMs` after the first knock; its policy is seen `policyMs` after that. */
function activator(
  clock: Clock,
  afterMs: number,
  policyMs = 0,
): NonNullable<DoorOptions['onRegistered']> {
  const asked = new Map<string, number>()
  return ({ certificateId }, { certificates }) => {
    const now = clock.now().getTime()
    const since = asked.get(certificateId) ?? now
    asked.set(certificateId, since)
    // The clock is virtual: what is due at the next knock happens at the next knock.
    if (now - since >= afterMs)
      certificates.set(certificateId, {
        status: 'ACTIVE',
        policyFrom: new Date(since + afterMs + policyMs),
      })
  }
}

interface Story {
  /** Every error told before the session opened. */
  readonly told: readonly CertvendError[]
  /** From the first attempt, in milliseconds of the virtual clock. */
  readonly tookMs: number
}

/** Stays connected until one message has been acknowledged. */
async function untilPublished(who: Credential, clock: Clock, seed = 1): Promise<Story> {
  const told: CertvendError[] = []
  const began = clock.now().getTime()
  const loop = stayConnected(who, {
    clock,
    random: seeded(seed),
    onRetry: ({ error }) => void told.push(error),
  })
  for await (const session of loop) {
    const tookMs = clock.now().getTime() - began
    await session.publish('up', 'hello')
    return { told, tookMs }
  }
  throw new Error('the loop ended by itself')
}

describe('a certificate that registers at its first connection', () => {
  it.each([1000, 2000, 3000])(
    'is online soon after it was activated, %i ms after it knocked (JITP)',
    async (afterMs) => {
      for (let seed = 1; seed <= 10; seed++) {
        const clock = instantClock()
        await open({ clock, onRegistered: activator(clock, afterMs) })
        const { told, tookMs } = await untilPublished(credential(), clock, seed)
        // One knock after the deed, as the door acts on a knock.
        expect(tookMs).toBeLessThan(afterMs + 20_000)
        expect(told.length).toBeGreaterThan(0)
        for (const error of told)
          expect(error).toMatchObject({
            code: 'ERR_SESSION_REFUSED',
            remedy: 'retry',
            message: expect.stringMatching(
              /closed the connection before CONNACK; .*still be pending/,
            ),
          })
        expect(door.published).toEqual(['up hello'])
        if (seed < 10) await door.close()
      }
    },
  )

  it('never knocks twice within a second, which IoT Core would not take', async () => {
    const clock = instantClock()
    await open({ clock, onRegistered: activator(clock, 60_000) })
    await untilPublished(credential(), clock)
    const at = door.knocks.map((knock) => knock.at.getTime())
    expect(at.length).toBeGreaterThan(4)
    for (const [index, instant] of at.slice(1).entries())
      expect(instant - (at[index] ?? 0)).toBeGreaterThanOrEqual(1000)
  })

  it('made in a factory years ago is given the same patience', async () => {
    const clock = instantClock()
    await open({ clock, onRegistered: activator(clock, 30_000) })
    const issuedAt = new Date('2020-01-01')
    const { told } = await untilPublished(credential({ issuedAt }), clock)
    expect(new Set(told.map(({ remedy }) => remedy))).toEqual(new Set(['retry']))
  })

  it('and whose policy is not seen everywhere yet waits for that, too', async () => {
    const clock = instantClock()
    await open({ clock, onRegistered: activator(clock, 2000, 40_000) })
    const { told, tookMs } = await untilPublished(credential(), clock)
    expect(tookMs).toBeGreaterThanOrEqual(42_000)
    expect(told.every(({ remedy }) => remedy === 'retry')).toBe(true)
  })

  it('shows its CA after itself where the chain holds it', async () => {
    const clock = instantClock()
    await open({ clock, onRegistered: activator(clock, 0) })
    const certificateChain = device.certificate + registeredCa.certificate
    await untilPublished(credential({ certificateChain }), clock)
    await untilPublished(credential(), clock)
    expect(door.knocks.map(({ shown }) => shown)).toEqual([2, 2, 1])
  })

  it('and that nobody activates is a person’s affair after five minutes, with what to look at', async () => {
    const clock = instantClock()
    await open({ clock })
    const stop = new AbortController()
    const told: { error: CertvendError; at: number }[] = []
    const began = clock.now().getTime()
    const loop = stayConnected(credential({ issuedAt: new Date('2020-01-01') }), {
      clock,
      random: seeded(3),
      signal: stop.signal,
      onRetry: ({ error }) => {
        const at = clock.now().getTime() - began
        told.push({ error, at })
        if (at > 3_600_000) stop.abort()
      },
    })
    for await (const _ of loop) expect.unreachable('nobody was to be let in')
    const patient = told.filter(({ error }) => error.remedy === 'retry')
    const diagnosed = told.filter(({ error }) => error.remedy === 'operator')
    expect(patient.every(({ at }) => at < 300_000)).toBe(true)
    expect(diagnosed.every(({ at }) => at >= 300_000)).toBe(true)
    expect(diagnosed.length).toBeGreaterThan(5) // it goes on knocking, slowly
    expect(told.length).toBeLessThan(50)
    const hint = diagnosed[0]?.error.hint
    for (const cause of ['unknown', 'INACTIVE', 'PENDING_ACTIVATION', 'no policy', 'device-1'])
      expect(hint).toContain(cause)
    expect(hint).toContain(credential().certificateId)
  })

  it('of a CA that is not registered is diagnosed alike, as IoT Core shows no difference', async () => {
    const clock = instantClock()
    await open({ clock })
    const stranger = await certify('device-1', { issuer: await certify('Stranger', { ca: true }) })
    const failure = await connect(credential({}, stranger)).catch((error) => error)
    expect(failure).toMatchObject({ code: 'ERR_SESSION_REFUSED', remedy: 'retry' })
    expect(door.certificates.size).toBe(0)
  })
})

it('a certificate that was in use and is made INACTIVE is told to a person at once', async () => {
  const clock = instantClock()
  await open({ clock })
  door.admit(device.certificate)
  const issuedAt = new Date('2020-01-01')
  const told: CertvendError[] = []
  const stop = new AbortController()
  const loop = stayConnected(credential({ issuedAt }), {
    clock,
    random: seeded(5),
    signal: stop.signal,
    onRetry: ({ error }) => {
      told.push(error)
      if (told.length === 3) stop.abort()
    },
  })
  for await (const session of loop) {
    for (const one of door.certificates.values()) one.status = 'INACTIVE'
    await session.close()
  }
  expect(told.map(({ code, remedy }) => [code, remedy])).toEqual([
    ['ERR_SESSION_LOST', 'retry'],
    ['ERR_SESSION_REFUSED', 'operator'],
    ['ERR_SESSION_REFUSED', 'operator'],
  ])
})

describe.skipIf(mosquittoMissing)(`before a real mosquitto ${mosquittoMissing ?? ''}`, () => {
  let mosquitto: Mosquitto
  let identity: Certified
  beforeAll(async () => {
    identity = await certify('door', { issuer: registeredCa })
    mosquitto = await startMosquitto({ server, deviceCa: registeredCa })
  })
  afterAll(() => mosquitto.close())

  it('JITR: registered by its first connect, activated by whoever hears the event, online', async () => {
    const clock = systemClock
    const behind = { port: mosquitto.port, anchor: mqttCa, identity }
    const endpoint = {
      host: 'localhost',
      port: mosquitto.port,
      trustAnchors: [mqttCa.certificate],
    }
    const cloud = await connect(
      credentialFor(await certify('cloud', { issuer: registeredCa }), endpoint),
    )
    const events = await cloud.subscribe('$aws/events/certificates/registered/+')
    const arrived = await cloud.subscribe('up')
    await open({
      clock,
      behind,
      onRegistered: (event) =>
        void cloud.publish(
          `$aws/events/certificates/registered/${event.caCertificateId}`,
          JSON.stringify(event),
        ),
    })
    const activating = (async () => {
      for await (const { payload } of events) {
        const { certificateId } = JSON.parse(Buffer.from(payload).toString())
        door.certificates.set(certificateId, { status: 'ACTIVE', policyFrom: clock.now() })
      }
    })()
    const { told } = await untilPublished(credential(), clock)
    expect(told.length).toBeGreaterThan(0)
    for await (const { payload } of arrived) {
      expect(Buffer.from(payload).toString()).toBe('hello')
      break
    }
    expect(mosquitto.log).toContain('as device-1')
    await cloud.close()
    await activating
  })
})
