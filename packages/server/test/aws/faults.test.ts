/**
 * A fault at every call to AWS, in the whole life of a device: first certificate, first session, re-arming,
 * next certificate, its first session, sweep. Each call in turn fails, is throttled, or is carried out and
 * its answer lost; once, so that the SDK's own repetition meets it, and from there on, as if the process
 * had died. Whoever asked asks again, as a device, an event and a schedule do.
 */
import { randomInt, X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { day, hour, later } from '../../src/clock.ts'
import { createAwsIotIssuer } from '../../src/issuer/aws-iot.ts'
import { createOwnCaIssuer } from '../../src/issuer/aws-iot-own-ca.ts'
import { openIot } from '../../src/issuer/iot-client.ts'
import { createIotEndpoint } from '../../src/issuer/iot-endpoint.ts'
import { iotPermissions } from '../../src/issuer/iot-permissions.ts'
import { makeDeviceCa } from '../../src/issuer/local.ts'
import type { Registry } from '../../src/registry/registry.ts'
import { sweep } from '../../src/sweep.ts'
import { hashToken } from '../../src/tokens.ts'
import { makeDeviceKey } from '../device.ts'
import { movableClock, startMachine } from '../machine.ts'
import { openAccount } from './account.ts'
import { type Fault, startFaultProxy } from './fault-proxy.ts'
import {
  live,
  prepare,
  roleOf,
  settings,
  steps,
  variants,
  vendingRoles,
  type World,
} from './life.ts'

const { MINISTACK_URL: url = '' } = process.env
const signal = new AbortController().signal
const faults: readonly Fault[] = ['fails', 'throttles', 'loses the answer']

/** All of them take minutes: `npm run prove:aws`. Otherwise every sixth, from a place drawn by chance. */
const isAll = process.env.CERTVEND_FAULTS === 'all'
const seed = Number(process.env.CERTVEND_SEED ?? randomInt(6))

const say = (text: string) => process.stdout.write(`${text}\n`)

/** Lives are lived side by side, each world in a region of its own. */
const worlds: World[] = []
beforeAll(async () => {
  for (let number = 1; url && number <= 8; number += 1) {
    const region = `faults-${number}`
    worlds.push({ region, account: openAccount(url, region), proxy: await startFaultProxy(url) })
  }
})
afterAll(async () => {
  for (const { proxy } of worlds) await proxy.close()
})

describe.skipIf(!url)(`a fault at every call ${url ? '' : '(npm run test:aws)'}`, () => {
  let combinations = 0
  const used = new Map<string, Set<string>>()
  const note = (role: string, operations: readonly string[]) => {
    const known = used.get(role) ?? new Set()
    for (const operation of operations) known.add(operation)
    used.set(role, known)
  }

  it.each(variants)(
    '$name: the next request recovers, and nothing is left',
    {
      timeout: 900_000,
    },
    async (variant) => {
      const quiet = await live(worlds[0]!, variant)
      for (const step of steps) note(roleOf(variant, step), quiet[step] ?? [])
      const plan = steps.flatMap((step) =>
        (quiet[step] ?? []).flatMap((operation, at) =>
          faults.flatMap((fault) =>
            [false, true].map((onwards) => ({ step, at, fault, onwards, operation })),
          ),
        ),
      )
      const left = plan.filter((_, at) => isAll || (at + seed) % 6 === 0).values()
      await Promise.all(
        worlds.map(async (world) => {
          for (const combination of left) {
            const { step, at, operation, fault, onwards } = combination
            const called = await live(world, variant, combination).catch((error: Error) => {
              const more = onwards ? ', and all after it' : ''
              const where = `${step}, call ${at} ${operation} ${fault}${more}`
              throw new Error(`${where}: ${error.message}`, { cause: error })
            })
            combinations += 1
            for (const one of steps) note(roleOf(variant, one), called[one] ?? [])
          }
        }),
      )
      const of = isAll ? '' : `, every sixth of them (CERTVEND_SEED=${seed})`
      say(`${variant.name}: ${plan.length} combinations${of}`)
    },
  )

  it('what stands in between is put right by the sweep: cut-off commands, and a missing presence', async () => {
    const world = worlds[0]!
    const { account, proxy, region } = world
    const clock = movableClock(new Date())
    const iot = openIot({ clock, endpointUrl: proxy.url, region })
    const issuer = createAwsIotIssuer({ iot, ...settings })
    const machine = await startMachine({ issuer })
    const { registry } = machine
    const serials = ['cut-off', 'revoked', 'disabled', 'overlap'].map(
      (name) => `sweep-${process.pid}-${name}`,
    )
    const ids = new Map<string, string>()
    for (const serial of serials) {
      await prepare(account, { ...variants[0]!, remains: true }, serial, '')
      const added = await machine.addDevice(serial, { thingType: `type-${serial}` })
      ids.set(serial, (await machine.enroll(added)).reply.certificateId)
      if (!serial.endsWith('overlap')) continue
      const token = await hashToken(added.token, 'generated')
      const openUntil = later(machine.clock.now(), day)
      await registry.rearm(serial, { token, openUntil, revoke: false }, machine.clock.now())
      machine.clock.move(1000)
      const again = await machine.enroll({ ...added, key: await makeDeviceKey() })
      ids.set('newer', again.reply.certificateId)
    }
    const status = async (name: string) => {
      const id = [...ids].find(([key]) => key.endsWith(name))![1]
      const all = await account.certificates()
      return all.find(({ certificateId }) => certificateId === id)?.status
    }
    const id = (name: string) => [...ids].find(([key]) => key.endsWith(name))![1]
    await account.call('PUT', `/certificates/${id('cut-off')}?newStatus=INACTIVE`)
    await account.call('DELETE', `/things/${serials[0]}/principals`, undefined, {
      'x-amzn-principal': (await account.certificates()).find(
        ({ certificateId }) => certificateId === id('cut-off'),
      )!.certificateArn,
    })
    await registry.setCertificateStatus(id('revoked'), 'REVOKED', machine.clock.now())
    await registry.setDisabled(serials[2]!, true, machine.clock.now())
    // A certificate that is nobody's here.
    const { certificateId: stranger } = await account.call('POST', '/certificates', {
      certificateSigningRequest: await (await makeDeviceKey()).csr('stranger'),
    })
    // One more, for a kind of key that nobody knows: whose it is cannot be found out.
    const ecPublicKey = Buffer.from('2a8648ce3d0201', 'hex')
    const { raw } = new X509Certificate((await makeDeviceCa(clock)).certificate)
    raw.fill(0x7f, raw.indexOf(ecPublicKey) + 1, raw.indexOf(ecPublicKey) + ecPublicKey.length)
    const { certificateId: unreadable } = await account.call(
      'POST',
      '/certificate/register-no-ca',
      {
        certificatePem: `-----BEGIN CERTIFICATE-----\n${raw.toString('base64')}\n-----END CERTIFICATE-----\n`,
        status: 'INACTIVE',
      },
    )

    // Its row names another type by now, which AWS does not have yet.
    const changed: Registry = {
      ...registry,
      find: async (serial) => {
        const device = await registry.find(serial)
        return device && serial === serials[0] ? { ...device, thingType: `new-${serial}` } : device
      },
    }
    const inTwoHours = movableClock(later(machine.clock.now(), 2 * hour))
    const options = { signal, windowMs: 3650 * day } // the machine's clock is years ahead of MiniStack's
    const soon = { registry: changed, issuer, iot, clock: inTwoHours }
    proxy.begin()
    const planned = await sweep(soon, { ...options, dryRun: true })
    expect(planned).toMatchObject({ activated: 1, withdrawn: 2, removed: 0, retired: 0, left: 1 })
    expect(await Promise.all(['cut-off', 'revoked', 'disabled'].map(status))).toEqual([
      'INACTIVE',
      'ACTIVE',
      'ACTIVE',
    ])
    expect(await sweep(soon, options)).toMatchObject(planned)
    expect(await Promise.all(['cut-off', 'revoked', 'disabled', 'overlap'].map(status))).toEqual([
      'ACTIVE',
      'REVOKED',
      'INACTIVE',
      'ACTIVE',
    ])
    expect(await account.active(serials[0]!)).toEqual([id('cut-off')])
    expect(await account.thing(serials[0]!)).toMatchObject({ thingTypeName: `new-${serials[0]}` })
    const afterAWeek = { ...soon, clock: movableClock(later(machine.clock.now(), 8 * day)) }
    expect(await sweep(afterAWeek, options)).toMatchObject({ retired: 1, withdrawn: 0 })
    expect(await account.active(serials[3]!)).toEqual([id('newer')])
    // What was retired goes with the next one; what is nobody's, unreadable, revoked or disabled stays.
    expect(await sweep(afterAWeek, options)).toMatchObject({ retired: 0, removed: 1, left: 1 })
    expect(await status('overlap')).toBeUndefined()
    const left = (await account.certificates()).map(({ certificateId }) => certificateId)
    expect(left).toEqual(
      expect.arrayContaining([stranger, unreadable, id('revoked'), id('disabled')]),
    )
    note(
      'sweep',
      proxy.calls.map(({ operation }) => operation),
    )
    iot.close()
  })

  it('a third certificate takes the second out, also where devices register themselves', async () => {
    const { account, proxy, region } = worlds[0]!
    const clock = movableClock(new Date())
    const iot = openIot({ clock, endpointUrl: proxy.url, region })
    const ca = await makeDeviceCa(clock)
    const issuer = createOwnCaIssuer({ iot, ca, registration: 'just-in-time', ...settings })
    const machine = await startMachine({ issuer })
    const serial = `third-${process.pid}`
    let device = await machine.addDevice(serial)
    proxy.begin()
    const made: string[] = []
    for (let round = 0; round < 3; round += 1) {
      const { certificateId, certificateChain } = (await machine.enroll(device)).reply
      made.push(certificateId)
      await account.call('POST', '/certificate/register-no-ca', {
        certificatePem: certificateChain[0],
        status: 'ACTIVE',
      })
      const token = await hashToken(device.token, 'generated')
      const openUntil = later(machine.clock.now(), day)
      await machine.registry.rearm(serial, { token, openUntil, revoke: false }, machine.clock.now())
      machine.clock.move(1000)
      device = { ...device, key: await makeDeviceKey() }
    }
    const all = await account.certificates()
    const statuses = made.map((id) => all.find(({ certificateId }) => certificateId === id)?.status)
    expect(statuses).toEqual(['INACTIVE', 'ACTIVE', 'ACTIVE'])
    note(
      'aws-iot-jitr',
      proxy.calls.map(({ operation }) => operation),
    )
    iot.close()
  })

  it('the calls that were made are those that the roles allow, and no more are allowed', async () => {
    const { proxy, region } = worlds[0]!
    proxy.begin()
    const iot = openIot({ clock: movableClock(), endpointUrl: proxy.url, region })
    const endpoint = createIotEndpoint(iot)
    const { host } = await endpoint()
    expect(host).toContain('-ats.iot.')
    expect((await endpoint()).host).toBe(host)
    expect(proxy.calls).toHaveLength(1) // AWS is asked once
    iot.close()
    for (const role of vendingRoles)
      note(
        role,
        proxy.calls.map(({ operation }) => operation),
      )
    say(`combinations: ${combinations}`)
    for (const role of [...vendingRoles, 'registered', 'presence', 'sweep'] as const) {
      const allowed = [...new Set(iotPermissions[role].map(({ action }) => action))].sort()
      const made = [...(used.get(role) ?? [])].sort()
      say(`${role}: ${made.join(' ')}`)
      expect({ role, made }).toEqual({ role, made: allowed })
    }
  })
})
