/** The sweep's judgement; AWS IoT's books are kept in memory (`aws/faults.test.ts` has an emulator's). */
import { createHash, X509Certificate } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { confirm } from '../src/activation.ts'
import { day, hour, later, minute } from '../src/clock.ts'
import { createAwsIotIssuer } from '../src/issuer/aws-iot.ts'
import { createOwnCaIssuer } from '../src/issuer/aws-iot-own-ca.ts'
import type { Iot } from '../src/issuer/iot-client.ts'
import { issuerBusy } from '../src/issuer/issuer.ts'
import { createLocalIssuer, makeDeviceCa } from '../src/issuer/local.ts'
import { judgeRequest } from '../src/policy.ts'
import type { Registry } from '../src/registry/registry.ts'
import { type SweepOptions, type SweepStep, sweep } from '../src/sweep.ts'
import { hashToken } from '../src/tokens.ts'
import { makeDeviceKey } from './device.ts'
import {
  type Device,
  type Machine,
  type MovableClock,
  movableClock,
  startMachine,
} from './machine.ts'

const signal = new AbortController().signal

interface Held {
  readonly certificateId: string
  readonly certificateArn: string
  readonly certificatePem: string
  readonly creationDate: Date
  status: string
}

/** What AWS IoT holds, in the order of its making; it lists two to a page. */
function makeAccount(clock: MovableClock) {
  const held = new Map<string, Held>()
  const made: string[] = []
  const calls: string[] = []
  const add = (certificatePem: string, status: string): Held => {
    const certificateId = createHash('sha256')
      .update(new X509Certificate(certificatePem).raw)
      .digest('hex')
    const certificateArn = `arn:aws:iot:eu-west-1:123456789012:cert/${certificateId}`
    const creationDate = clock.now()
    const one = { certificateId, certificateArn, certificatePem, creationDate, status }
    held.set(certificateId, one)
    made.push(certificateId)
    return one
  }
  const answers: Readonly<Record<string, (input: Record<string, string>) => object>> = {
    RegisterCertificateWithoutCA: ({ certificatePem, status }) => add(certificatePem!, status!),
    UpdateCertificate({ certificateId, newStatus }) {
      held.get(certificateId!)!.status = newStatus!
      return {}
    },
    ListCertificates({ marker = '0', ascendingOrder }) {
      const all = ascendingOrder ? made : made.toReversed()
      const from = Number(marker)
      const page = all.slice(from, from + 2).flatMap((id) => held.get(id) ?? [])
      return {
        certificates: page.map((one) => ({ ...one })),
        ...(from + 2 < all.length && { nextMarker: String(from + 2) }),
      }
    },
    DescribeCertificate: ({ certificateId }) => ({
      certificateDescription: held.get(certificateId!),
    }),
    DeleteCertificate({ certificateId }) {
      held.delete(certificateId!)
      return {}
    },
  }
  const iot: Iot = {
    async call(name, input) {
      calls.push(name)
      return (answers[name]?.(input as Record<string, string>) ?? {}) as never
    },
    close: () => undefined,
  }
  return { iot, held, calls, add }
}

async function start() {
  const clock = movableClock()
  const { iot, held, calls, add } = makeAccount(clock)
  const ca = await makeDeviceCa(clock)
  const issuer = createOwnCaIssuer({ iot, ca, registration: 'without-ca' })
  const machine = await startMachine({ issuer, clock })
  const { registry } = machine
  const books = { registry, issuer }
  const at = () => ({ signal, at: clock.now() })
  return {
    machine,
    clock,
    held,
    calls,
    issuer,
    add,
    statuses: () => [...held.values()].map(({ status }) => status),
    present: (certificateId: string) => confirm(books, certificateId, at()),
    async vend(device: Device): Promise<string> {
      const { certificateId } = (await machine.enroll(device)).reply
      clock.move(minute)
      return certificateId
    },
    async run(options: Partial<SweepOptions> = {}, changed: Registry = registry) {
      const steps: SweepStep[] = []
      const onStep = (step: SweepStep) => steps.push(step)
      const tools = { registry: changed, issuer, iot, clock }
      const report = await sweep(tools, { signal, onStep, ...options })
      return { report, steps }
    },
  }
}

type World = Awaited<ReturnType<typeof start>>

async function rearm({ registry }: Machine, clock: MovableClock, device: Device): Promise<Device> {
  const token = await hashToken(device.token, 'generated')
  const openUntil = later(clock.now(), day)
  await registry.rearm(device.deviceSerial, { token, openUntil, revoke: false }, clock.now())
  return { ...device, key: await makeDeviceKey() }
}

/** A certificate that is signed for a device's key, and never recorded. */
async function lose({ machine, issuer, clock }: World, device: Device): Promise<string> {
  const { deviceSerial, key } = device
  const judged = judgeRequest(await key.csr(deviceSerial), deviceSerial)
  if (!judged.ok) throw new Error(judged.reason)
  const { publicKey } = judged.request
  const reservation = {
    deviceSerial,
    claimNumber: 1,
    publicKey,
    certificateSerial: '40a1',
    reservedAt: clock.now(),
  }
  const row = (await machine.registry.find(deviceSerial))!
  const lost = await issuer.issue(judged.request, row, reservation, { signal })
  return lost.certificateChain[0]!
}

/** A device with two certificates in force. */
async function startWithTwo(present?: 'older' | 'newer') {
  const world = await start()
  const device = await world.machine.addDevice()
  const older = await world.vend(device)
  if (present === 'older') await world.present(older)
  const newer = await world.vend(await rearm(world.machine, world.clock, device))
  if (present === 'newer') await world.present(newer)
  return { ...world, device, older, newer }
}

describe('of two certificates, after the overlap', () => {
  it('the newer is retired if only the older has opened a session', async () => {
    const { run, held, clock, machine, older, newer } = await startWithTwo('older')
    clock.move(7 * day)
    const { steps, report } = await run()
    expect(steps).toMatchObject([{ action: 'retired', certificateId: newer }])
    expect([held.get(older)?.status, held.get(newer)?.status]).toEqual(['ACTIVE', 'INACTIVE'])
    expect((await machine.registry.findCertificate(newer))?.status).toBe('INACTIVE')
    expect((await machine.registry.findCertificate(newer))?.confirmedAt).toBeUndefined()
    // Withdrawn once, and removed by the next sweep only; the one in use stays for good.
    expect(report).toMatchObject({ retired: 1, withdrawn: 0, removed: 0 })
    expect((await run()).report).toMatchObject({ retired: 0, removed: 1 })
    expect([...held.keys()]).toEqual([older])
  })

  it('the older is retired if nobody told of any session, and none is noted', async () => {
    const { run, held, clock, machine, device, older, newer } = await startWithTwo()
    clock.move(7 * day)
    const { steps, report } = await run()
    expect(steps).toMatchObject([{ action: 'retired', certificateId: older }])
    expect(report).toMatchObject({ retired: 1, withdrawn: 0, removed: 0 })
    expect([held.get(older)?.status, held.get(newer)?.status]).toEqual(['INACTIVE', 'ACTIVE'])
    for (const one of await machine.registry.certificates(device.deviceSerial))
      expect(one.confirmedAt).toBeUndefined()
    const trail = await machine.registry.events({ limit: 100 })
    expect(trail.map(({ name }) => name)).not.toContain('certificate-confirmed')
  })

  it('the newer stays if the older has opened sessions and is expired', async () => {
    const { run, held, clock, newer, older, machine, device } = await startWithTwo('older')
    await machine.registry.setCertificateStatus(newer, 'INACTIVE', clock.now())
    clock.move(364 * day)
    const latest = (await machine.enroll(await rearm(machine, clock, device))).reply.certificateId
    clock.move(7 * day)
    expect((await run()).steps).toContainEqual(
      expect.objectContaining({ action: 'retired', certificateId: older }),
    )
    expect(held.get(latest)?.status).toBe('ACTIVE')
  })

  it.each(['older', undefined] as const)(
    'and not a minute earlier, nor by a dry run (session of: %s)',
    async (present) => {
      const { run, clock, statuses } = await startWithTwo(present)
      clock.move(7 * day - 2 * minute)
      expect((await run()).report).toMatchObject({ retired: 0, withdrawn: 0 })
      clock.move(2 * minute)
      expect((await run({ dryRun: true })).report).toMatchObject({ retired: 1, withdrawn: 0 })
      expect(statuses()).toEqual(['ACTIVE', 'ACTIVE'])
    },
  )

  it('nothing is retired that the first session of the newer has left', async () => {
    const { run, clock, held, newer } = await startWithTwo('newer')
    clock.move(8 * day)
    expect((await run()).report).toMatchObject({ retired: 0, removed: 1 })
    expect([...held.keys()]).toEqual([newer])
  })
})

describe('a sweep', () => {
  it('meets the youngest first, so that one that is cut off has seen the orphans', async () => {
    const world = await start()
    const devices = [await world.machine.addDevice(), await world.machine.addDevice()]
    for (const device of devices) await world.vend(device)
    const { machine, clock, add, held } = world
    const orphan = add(await lose(world, devices[1]!), 'INACTIVE')
    clock.move(2 * hour)
    const seen: string[] = []
    const cut = new Error('cut off')
    const stop = new AbortController()
    const cutOff: Registry = {
      ...machine.registry,
      async findCertificate(id) {
        seen.push(id)
        if (seen.length === 2) stop.abort(cut)
        stop.signal.throwIfAborted()
        return machine.registry.findCertificate(id)
      },
    }
    await expect(world.run({ signal: stop.signal }, cutOff)).rejects.toBe(cut)
    expect(seen[0]).toBe(orphan.certificateId)
    expect([held.size, held.has(orphan.certificateId)]).toEqual([2, false])
  })

  it('leaves the device whose row AWS would refuse, says why, and goes on', async () => {
    const { run, machine, vend, held, clock } = await start()
    const [one, other] = [await machine.addDevice(), await machine.addDevice()]
    const ids = [await vend(one), await vend(other)]
    for (const id of ids) held.get(id)!.status = 'INACTIVE'
    clock.move(2 * hour)
    const bad: Registry = {
      ...machine.registry,
      find: async (serial) => {
        const device = await machine.registry.find(serial)
        return device && serial === other.deviceSerial ? { ...device, thingName: 'a b' } : device
      },
    }
    const { steps, report } = await run({}, bad)
    expect(report).toMatchObject({ left: 1, activated: 1 })
    expect(steps[0]).toMatchObject({
      action: 'left',
      deviceSerial: other.deviceSerial,
      why: expect.stringContaining(`the thing name of ${other.deviceSerial} must be`),
    })
    expect(ids.map((id) => held.get(id)!.status)).toEqual(['ACTIVE', 'INACTIVE'])
  })

  it('leaves what it cannot read, certificate or row, says why, and goes on', async () => {
    const world = await start()
    const { machine, vend, held, clock, add } = world
    const [one, other] = [await machine.addDevice(), await machine.addDevice()]
    const [known, kept] = [await vend(one), await vend(other)]
    const orphan = add(await lose(world, one), 'INACTIVE')
    const torn = add(await lose(world, other), 'INACTIVE')
    Object.assign(torn, { certificatePem: torn.certificatePem.slice(0, 200) })
    clock.move(2 * hour)
    const bad: Registry = {
      ...machine.registry,
      async findCertificate(id) {
        if (id === known) throw new TypeError('the row cannot be read')
        return machine.registry.findCertificate(id)
      },
    }
    for (const dryRun of [true, false]) {
      const { steps, report } = await world.run({ dryRun }, bad)
      expect(report).toMatchObject({ seen: 4, left: 2, removed: 1 })
      expect(steps).toEqual([
        { action: 'left', certificateId: torn.certificateId, why: expect.stringMatching(/PEM/) },
        expect.objectContaining({ action: 'removed', certificateId: orphan.certificateId }),
        { action: 'left', certificateId: known, why: 'the row cannot be read' },
      ])
    }
    expect([...held.keys()]).toEqual([known, kept, torn.certificateId])
  })

  it('ends when AWS is busy, and when it is told to', async () => {
    const { run, machine, vend, held, clock, issuer } = await start()
    held.get(await vend(await machine.addDevice()))!.status = 'INACTIVE'
    clock.move(2 * hour)
    const stop = new AbortController()
    const reason = new Error('stopped')
    for (const [how, options] of [
      [() => Promise.reject(issuerBusy(1000, 'throttled')), {}],
      [
        async () => {
          stop.abort(reason)
          throw reason
        },
        { signal: stop.signal },
      ],
    ] as const) {
      Object.assign(issuer, { restore: how })
      await expect(run(options)).rejects.toThrow(/busy|stopped/)
    }
  })
})

describe('a name that AWS does not take', () => {
  it.each(['aws-iot', 'without-ca', 'just-in-time'] as const)(
    'is refused before anything is made (%s), and costs no claim',
    async (kind) => {
      const clock = movableClock()
      const { iot, calls } = makeAccount(clock)
      const ca = await makeDeviceCa(clock)
      const issuer =
        kind === 'aws-iot'
          ? createAwsIotIssuer({ iot })
          : createOwnCaIssuer({ iot, ca, registration: kind })
      const machine = await startMachine({ issuer, clock })
      const device = await machine.addDevice('SN-1', { policyName: 'a,b' })
      expect((await machine.enroll(device)).status).toBe(500)
      expect(machine.events).toContainEqual(
        expect.objectContaining({
          event: 'failed',
          reason: expect.stringMatching(/^the policy name of SN-1 must be 1 to 128 letters/),
        }),
      )
      expect(calls).toEqual([])
      expect(await machine.registry.certificates('SN-1')).toEqual([])
      // Whoever minds no names shows that the claim is still this key's to use.
      const through = machine.another({ issuer: createLocalIssuer(ca) })
      expect((await machine.enroll(device, { through })).status).toBe(200)
      expect(await machine.alarms()).toEqual([])
    },
  )
})
