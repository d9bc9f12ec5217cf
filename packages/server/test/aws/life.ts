/**
 * The life of a device in an AWS account, told to the end: first certificate, first session, re-arming,
 * next certificate, its first session, sweep. A fault may be in the first attempt of one step; whoever
 * asked asks again, as a device, an event and a schedule do.
 */
import { randomBytes } from 'node:crypto'
import { expect } from 'vitest'
import { day, hour, later } from '../../src/clock.ts'
import { createAwsIotIssuer } from '../../src/issuer/aws-iot.ts'
import { createOwnCaIssuer } from '../../src/issuer/aws-iot-own-ca.ts'
import { openIot } from '../../src/issuer/iot-client.ts'
import { handlePresence, handleRegistered } from '../../src/issuer/iot-events.ts'
import type { IotRole } from '../../src/issuer/iot-permissions.ts'
import type { Issuer } from '../../src/issuer/issuer.ts'
import { makeDeviceCa } from '../../src/issuer/local.ts'
import { sweep } from '../../src/sweep.ts'
import { hashToken } from '../../src/tokens.ts'
import { makeDeviceKey } from '../device.ts'
import { type Machine, movableClock, startMachine } from '../machine.ts'
import type { Account } from './account.ts'
import type { Fault, FaultProxy } from './fault-proxy.ts'

const signal = new AbortController().signal

export interface World {
  readonly account: Account
  readonly proxy: FaultProxy
  readonly region: string
}

/** The steps of a life, each repeated by whoever asks until it is done. */
export const steps = [
  'vend',
  'register',
  'present',
  'again',
  'register again',
  'present again',
  'sweep',
] as const
export type Step = (typeof steps)[number]

/** Who carries a step out, and so whose role has to allow its calls. */
export const roleOf = (variant: Variant, step: Step): IotRole => {
  if (step.startsWith('present')) return 'presence'
  if (step.startsWith('register')) return 'registered'
  return step === 'sweep' ? 'sweep' : variant.role
}

export interface Variant {
  readonly name: string
  readonly role: IotRole
  readonly issuer: (
    iot: ReturnType<typeof openIot>,
    ca: Awaited<ReturnType<typeof makeDeviceCa>>,
  ) => Issuer
  /** What an old vending machine left behind. */
  readonly remains: boolean
}

export const vendingRoles = [
  'aws-iot',
  'aws-iot-own-ca',
  'aws-iot-own-ca-unregistered',
  'aws-iot-jitr',
] as const

const policyName = 'certvend-faults'
export const settings = { policyName }

export const variants: readonly Variant[] = [true, false].flatMap((remains) => {
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
      role: 'aws-iot-own-ca-unregistered',
      issuer: (iot, ca) => createOwnCaIssuer({ iot, ca, registration: 'without-ca', ...settings }),
      remains,
    },
    {
      name: `own CA, just in time, ${state}`,
      role: 'aws-iot-jitr',
      issuer: (iot, ca) =>
        createOwnCaIssuer({ iot, ca, registration: 'just-in-time', ...settings }),
      remains,
    },
  ] satisfies Variant[]
})

/** Lives one life with a fault in one step. @returns what was called in that step */
export async function live(
  { account, proxy, region }: World,
  variant: Variant,
  fault?: { step: Step; at: number; fault: Fault; onwards: boolean },
): Promise<Partial<Record<Step, readonly string[]>>> {
  const serial = `faults-${randomBytes(6).toString('hex')}`
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
  const called: Partial<Record<Step, readonly string[]>> = {}

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
  const newest = async () => (await registry.certificates(serial))[0]!
  const tools = () => ({
    registry,
    issuer: issuer(),
    clock: machine.clock,
    log: () => undefined,
  })
  const until = (work: Promise<unknown>) =>
    work.then(
      () => true,
      () => false,
    )
  const present = async () =>
    until(
      handlePresence(
        { eventType: 'connected', principalIdentifier: (await newest()).certificateId },
        tools(),
      ),
    )
  /** The device connects for the first time: AWS registers its certificate by itself, and tells. */
  const register = async (step: Step) => {
    if (variant.role !== 'aws-iot-jitr') return
    const { certificateId, certificateChain } = await newest()
    await account.call('POST', '/certificate/register', {
      certificatePem: certificateChain[0],
      status: 'INACTIVE',
    })
    await account.call('PUT', `/certificates/${certificateId}?newStatus=PENDING_ACTIVATION`)
    const event = { certificateId, caCertificateId: 'c'.repeat(64) }
    await run(step, () => until(handleRegistered(event, tools())))
  }

  // A certificate for this very key, whose answer never came: only the sweep will find it.
  if (variant.role === 'aws-iot')
    await account.call('POST', '/certificates', {
      certificateSigningRequest: await device.key.csr(serial),
    })
  await run('vend', enroll)
  await register('register')
  const first = (await newest()).certificateId
  expect(await account.active(serial)).toEqual([first])
  await run('present', present)
  const token = await hashToken(device.token, 'generated')
  const openUntil = later(machine.clock.now(), day)
  await registry.rearm(serial, { token, openUntil, revoke: false }, machine.clock.now())
  machine.clock.move(1000)
  device = { ...device, key: await makeDeviceKey() }
  await run('again', enroll)
  await register('register again')
  const second = (await newest()).certificateId
  expect((await account.active(serial)).toSorted()).toEqual([first, second].toSorted())
  await run('present again', present)
  expect(await account.active(serial)).toEqual([second])
  const twoHoursOn = movableClock(later(new Date(), 2 * hour))
  await run('sweep', () =>
    until(sweep({ registry, issuer: issuer(), iot, clock: twoHoursOn }, { signal })),
  )

  const mine = (await account.certificates()).filter(
    ({ certificateId }) => !before.has(certificateId),
  )
  expect(mine.map(({ certificateId, status }) => [certificateId, status])).toEqual([
    [second, 'ACTIVE'],
  ])
  expect(await account.active(serial)).toEqual([second])
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
export async function prepare(
  account: Account,
  variant: Variant,
  serial: string,
  ca: string,
): Promise<void> {
  await account
    .call('POST', `/policies/${policyName}`, { policyDocument: '{"Version":"2012-10-17"}' })
    .catch(() => undefined)
  if (variant.role === 'aws-iot-own-ca' || variant.role === 'aws-iot-jitr')
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
