/**
 * A fault at every call to AWS, in the whole life of a device: first certificate, first session, re-arming,
 * next certificate, its first session, sweep. Each call in turn fails, is throttled, or is carried out and
 * its answer lost; once, so that the SDK's own repetition meets it, and from there on, as if the process
 * had died. Whoever asked asks again, as a device, an event and a schedule do.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { day, hour, later } from '../../src/clock.ts'
import { createAwsIotIssuer } from '../../src/issuer/aws-iot.ts'
import { createOwnCaIssuer } from '../../src/issuer/aws-iot-own-ca.ts'
import { openIot } from '../../src/issuer/iot-client.ts'
import { handlePresence } from '../../src/issuer/iot-events.ts'
import { type IotRole, iotPermissions } from '../../src/issuer/iot-permissions.ts'
import type { Issuer } from '../../src/issuer/issuer.ts'
import { makeDeviceCa } from '../../src/issuer/local.ts'
import { sweep } from '../../src/sweep.ts'
import { hashToken } from '../../src/tokens.ts'
import { makeDeviceKey } from '../device.ts'
import { type Machine, movableClock, startMachine } from '../machine.ts'
import { type Account, openAccount } from './account.ts'
import { type Fault, type FaultProxy, startFaultProxy } from './fault-proxy.ts'

const { MINISTACK_URL: url = '' } = process.env
const signal = new AbortController().signal
const faults: readonly Fault[] = ['fails', 'throttles', 'loses the answer']

const say = (text: string) => process.stdout.write(`${text}\n`)

interface World {
  readonly account: Account
  readonly proxy: FaultProxy
  readonly region: string
}

/** Lives are lived side by side, each world in a region of its own. */
const worlds: World[] = []
let stories = 0
beforeAll(async () => {
  for (let number = 1; url && number <= 8; number += 1) {
    const region = `faults-${number}`
    worlds.push({ region, account: openAccount(url, region), proxy: await startFaultProxy(url) })
  }
})
afterAll(async () => {
  for (const { proxy } of worlds) await proxy.close()
})

/** The steps of a life, each repeated by whoever asks until it is done. */
const steps = ['vend', 'present', 'again', 'present again', 'sweep'] as const
type Step = (typeof steps)[number]

type Variant = {
  readonly name: string
  readonly role: IotRole
  readonly issuer: (
    iot: ReturnType<typeof openIot>,
    ca: Awaited<ReturnType<typeof makeDeviceCa>>,
  ) => Issuer
  /** What an old vending machine left behind. */
  readonly remains: boolean
}

const policyName = 'certvend-faults'
const settings = { policyName }

const variants: readonly Variant[] = [true, false].flatMap((remains) => {
  const state = remains ? 'after an old vending machine' : 'from nothing'
  return [
    {
      name: `AWS IoT by CSR, ${state}`,
      role: 'aws-iot',
      issuer: (iot) => createAwsIotIssuer({ iot, ...settings }),
      remains,
    },
    {
      name: `own CA, registered, ${state}`,
      role: 'aws-iot-own-ca',
      issuer: (iot, ca) => createOwnCaIssuer({ iot, ca, registration: 'registered', ...settings }),
      remains,
    },
    {
      name: `own CA, not registered, ${state}`,
      role: 'aws-iot-own-ca',
      issuer: (iot, ca) => createOwnCaIssuer({ iot, ca, registration: 'without-ca', ...settings }),
      remains,
    },
  ] satisfies Variant[]
})

/** Lives one life with a fault in one step. @returns what was called in that step */
async function live(
  { account, proxy, region }: World,
  variant: Variant,
  fault?: { step: Step; at: number; fault: Fault; onwards: boolean },
): Promise<Record<Step, readonly string[]>> {
  stories += 1
  const serial = `faults-${process.pid}-${stories}`
  const clock = movableClock(new Date())
  const ca = await makeDeviceCa(clock)
  const iot = openIot({ clock, endpointUrl: proxy.url, region })
  // Whoever asks again meets another process, which remembers nothing.
  const issuer = () => variant.issuer(iot, ca)
  const machine: Machine = await startMachine({ issuer: issuer() })
  const { registry } = machine
  const before = new Set((await account.certificates()).map(({ certificateId }) => certificateId))
  await prepare(account, variant, serial, ca.certificate)
  let device = await machine.addDevice(serial, {
    attributes: { site: 'B' },
    thingType: `type-${serial}`,
  })
  const called = {} as Record<Step, readonly string[]>

  /** Runs a step until it is done; a fault is only in its first attempt. */
  async function run(step: Step, work: () => Promise<boolean>): Promise<void> {
    const here = fault?.step === step ? fault : undefined
    proxy.begin((number) =>
      here && (here.onwards ? number >= here.at : number === here.at) ? here.fault : undefined,
    )
    let done = await work()
    called[step] = proxy.calls.map(({ operation }) => operation)
    proxy.begin()
    for (let attempt = 0; !done; attempt += 1) {
      expect(attempt, `${step} recovers at the next request`).toBeLessThan(1)
      done = await work()
    }
    expect((await account.active(serial)).length, `${step}: at most two`).toBeLessThan(3)
  }
  const enroll = async () => {
    const answer = await machine.enroll(device, { through: machine.another({ issuer: issuer() }) })
    if (answer.status !== 200) expect([answer.status, answer.problem]).toEqual([503, 'busy'])
    return answer.status === 200
  }
  const newest = async () => (await registry.certificates(serial))[0]!.certificateId
  const present = async () => {
    const event = { eventType: 'connected', principalIdentifier: await newest() }
    const tools = { registry, issuer: issuer(), clock: machine.clock, log: () => undefined }
    return handlePresence(event, tools).then(
      () => true,
      () => false,
    )
  }

  // A certificate for this very key, whose answer never came: only the sweep will find it.
  if (variant.role === 'aws-iot')
    await account.call('POST', '/certificates', {
      certificateSigningRequest: await device.key.csr(serial),
    })
  await run('vend', enroll)
  expect(await account.active(serial)).toEqual([await newest()])
  await run('present', present)
  const token = await hashToken(device.token, 'generated')
  const openUntil = later(machine.clock.now(), day)
  await registry.rearm(serial, { token, openUntil, revoke: false }, machine.clock.now())
  machine.clock.move(1000)
  device = { ...device, key: await makeDeviceKey() }
  await run('again', enroll)
  expect((await account.active(serial)).length).toBe(2)
  await run('present again', present)
  expect(await account.active(serial)).toEqual([await newest()])
  await run('sweep', () =>
    sweep(
      { registry, issuer: issuer(), iot, clock: movableClock(later(new Date(), 2 * hour)) },
      { signal },
    ).then(
      () => true,
      () => false,
    ),
  )

  const mine = (await account.certificates()).filter(
    ({ certificateId }) => !before.has(certificateId),
  )
  expect(mine.map(({ certificateId, status }) => [certificateId, status])).toEqual([
    [await newest(), 'ACTIVE'],
  ])
  expect(await account.active(serial)).toEqual([await newest()])
  expect(await account.policiesOf(mine[0]!.certificateArn)).toEqual([policyName])
  expect(await account.thing(serial)).toMatchObject({
    attributes: { site: 'B', ...(variant.remains && { RegistrationWay: 'CVM' }) },
    thingTypeName: `type-${serial}`,
  })
  iot.close()
  await registry.close()
  return called
}

/** The account before the device comes: the CA and the policy are there, as the deployment makes them. */
async function prepare(
  account: Account,
  variant: Variant,
  serial: string,
  ca: string,
): Promise<void> {
  await account
    .call('POST', `/policies/${policyName}`, { policyDocument: '{"Version":"2012-10-17"}' })
    .catch(() => undefined)
  if (variant.role === 'aws-iot-own-ca')
    await account.call('POST', '/cacertificate?setAsActive=true', {
      caCertificate: ca,
      certificateMode: 'SNI_ONLY',
    })
  // The old vending machine's thing has other attributes, and no type: CreateThing conflicts (D7, D16).
  if (variant.remains)
    await account.call('POST', `/things/${serial}`, {
      attributePayload: { attributes: { RegistrationWay: 'CVM' } },
    })
}

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
      const plan = steps.flatMap((step) =>
        quiet[step].flatMap((operation, at) =>
          faults.flatMap((fault) =>
            [false, true].map((onwards) => ({ step, at, fault, onwards, operation })),
          ),
        ),
      )
      const role = { vend: variant.role, again: variant.role, sweep: 'sweep' } as const
      const left = plan.values()
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
            for (const one of steps) note(role[one as keyof typeof role] ?? 'presence', called[one])
          }
        }),
      )
      say(`${variant.name}: ${plan.length} combinations`)
    },
  )

  it('the calls that were made are those that the roles allow', () => {
    say(`combinations: ${combinations}`)
    say([...used].map(([role, set]) => `${role}: ${[...set].sort().join(' ')}`).join('\n'))
    for (const [role, operations] of used) {
      const allowed = iotPermissions[role as IotRole].map(({ action }) => action)
      expect(allowed).toEqual(expect.arrayContaining([...operations]))
    }
  })
})
