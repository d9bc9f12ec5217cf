/**
 * What AWS IoT must hold before a certificate opens sessions, and how it gets there: thing, policy, both
 * attached, and ACTIVE last.
 *
 * Each step creates what is absent, or compares what is there and goes on. So it does not matter where
 * an earlier attempt was cut off, or what an old vending machine or an operator left: a policy or a
 * thing of that name, a thing with other attributes, a certificate that is there already.
 */
import type { Certificate, Device } from '../registry/registry.ts'
import { type Iot, isRefusal } from './iot-client.ts'
import { defaultPolicyName, placeOf, sharedPolicy } from './iot-policy.ts'
import type { Waiting } from './issuer.ts'

export interface BooksSettings {
  /** The shared policy; made of {@link sharedPolicy} where there is none. `certvend-device` by default. */
  readonly policyName?: string
  /** A thing group that every device joins; it must exist. None by default. */
  readonly thingGroup?: string
  /** A role alias that a policy made here lets devices use. */
  readonly roleAlias?: string
}

export interface IotBooks {
  /**
   * To be asked before anything is made for the device.
   *
   * @throws Error if a name of the device's row is not one that AWS IoT takes everywhere
   */
  judge(device: Device): void
  /** Thing, policy, both attached, ACTIVE. */
  enter(certificate: Certificate, device: Device, options: Waiting): Promise<void>
  /** Sets a certificate's status. @returns false if AWS does not hold it */
  setStatus(
    certificateId: string,
    status: 'INACTIVE' | 'REVOKED',
    options: Waiting,
  ): Promise<boolean>
  /** Remembers where certificates are, from the ARN of one. */
  learn(certificateArn: string): void
}

const exists = 'ResourceAlreadyExistsException'
const absent = 'ResourceNotFoundException'

/** A name that AWS takes for a thing and for a policy alike. */
const commonName = /^[A-Za-z0-9_-]{1,128}$/

function judgeNames(device: Device, policyName: string): void {
  for (const [what, name] of [
    ['thing name', device.thingName],
    ['policy name', policyName],
    ['thing type', device.thingType ?? 'none'],
  ] as const)
    if (!commonName.test(name))
      throw new Error(
        `the ${what} of ${device.deviceSerial} must be 1 to 128 letters, digits, _ or -, which AWS takes for things and policies alike`,
      )
}

export function createIotBooks(iot: Iot, settings: BooksSettings = {}): IotBooks {
  let arnPrefix: string | undefined
  const learn = (certificateArn: string): void => {
    arnPrefix = certificateArn.slice(0, certificateArn.lastIndexOf('/') + 1)
  }

  async function arnOf(certificate: Certificate, options: Waiting): Promise<string> {
    const { certificateId, certificateArn } = certificate
    if (certificateArn) learn(certificateArn)
    if (!arnPrefix) {
      const { certificateDescription } = await iot.call(
        'DescribeCertificate',
        { certificateId },
        options,
      )
      learn(certificateDescription?.certificateArn ?? '')
    }
    return `${arnPrefix}${certificateId}`
  }

  async function ensureThing(device: Device, options: Waiting): Promise<void> {
    const { thingName, thingType: thingTypeName, attributes } = device
    const wanted = {
      thingName,
      ...(thingTypeName !== undefined && { thingTypeName }),
      ...(attributes && { attributePayload: { attributes: { ...attributes } } }),
    }
    try {
      await iot.call('CreateThing', wanted, options)
    } catch (error) {
      if (isRefusal(error, exists)) return compareThing(device, options)
      if (thingTypeName === undefined || !isRefusal(error, absent)) throw error
      await iot.call('CreateThingType', { thingTypeName }, options).catch(unless(exists))
      await iot.call('CreateThing', wanted, options)
    }
  }

  /** What the row says is added to the thing that is there; what else it has stays. */
  async function compareThing(device: Device, options: Waiting): Promise<void> {
    const { thingName, thingType, attributes = {} } = device
    const there = await iot.call('DescribeThing', { thingName }, options)
    const hasType = thingType === undefined || there.thingTypeName === thingType
    const hasAttributes = Object.entries(attributes).every(
      ([name, value]) => there.attributes?.[name] === value,
    )
    if (hasType && hasAttributes) return
    const change = {
      thingName,
      attributePayload: { attributes: { ...attributes }, merge: true },
      ...(!hasType && { thingTypeName: thingType }),
    }
    try {
      await iot.call('UpdateThing', change, options)
    } catch (error) {
      if (hasType || !isRefusal(error, absent)) throw error
      await iot.call('CreateThingType', { thingTypeName: thingType }, options).catch(unless(exists))
      await iot.call('UpdateThing', change, options)
    }
  }

  /** The policy is made only where attaching finds none: CreatePolicy's quota is the scarcest. */
  async function attachPolicy(policyName: string, target: string, options: Waiting): Promise<void> {
    try {
      await iot.call('AttachPolicy', { policyName, target }, options)
    } catch (error) {
      if (!isRefusal(error, absent)) throw error
      const policyDocument = JSON.stringify(sharedPolicy(placeOf(target), settings.roleAlias))
      await iot.call('CreatePolicy', { policyName, policyDocument }, options).catch(unless(exists))
      await iot.call('AttachPolicy', { policyName, target }, options)
    }
  }

  const policyOf = (device: Device): string =>
    device.policyName ?? settings.policyName ?? defaultPolicyName

  return {
    learn,
    judge: (device) => judgeNames(device, policyOf(device)),
    async enter(certificate, device, options) {
      const { certificateId } = certificate
      const { thingName } = device
      const policyName = policyOf(device)
      judgeNames(device, policyName) // an operator may have changed the row since
      const principal = await arnOf(certificate, options)
      await ensureThing(device, options)
      if (settings.thingGroup !== undefined) {
        const group = { thingGroupName: settings.thingGroup, thingName }
        await iot.call('AddThingToThingGroup', group, options)
      }
      await attachPolicy(policyName, principal, options)
      await iot.call('AttachThingPrincipal', { thingName, principal }, options)
      await iot.call('UpdateCertificate', { certificateId, newStatus: 'ACTIVE' }, options)
    },
    async setStatus(certificateId, newStatus, options) {
      try {
        await iot.call('UpdateCertificate', { certificateId, newStatus }, options)
        return true
      } catch (error) {
        if (isRefusal(error, absent)) return false
        throw error
      }
    },
  }
}

/** Lets one refusal pass as done. */
export const unless =
  (reason: string) =>
  (error: unknown): undefined => {
    if (!isRefusal(error, reason)) throw error
  }
