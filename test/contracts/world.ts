/**
 * What stands behind the old vending machines: their table, and as much of AWS IoT Core as they touch.
 *
 * The account remembers everything, so that a test can ask what became of a certificate.
 */
import { createPrivateKey, randomBytes } from 'node:crypto'
import { type Certified, certificateIdOf, certify, makeKeys, pem } from '../pki.ts'

/** A row as an operator entered it; which members are read depends on the vending machine. */
export interface Row {
  readonly token?: string
  /** awslabs: the ARN of the certificate that was vended. */
  certinfo?: string
  /** iot-atlas. */
  enabled?: number
  registered?: number
  /** express-2017: 1 may apply. */
  applyState?: number
}

export interface IotCertificate {
  readonly id: string
  readonly pem: string
  status: 'ACTIVE' | 'INACTIVE' | 'DELETED'
  readonly policies: Set<string>
  readonly things: Set<string>
}

/** What `CreateKeysAndCertificate` gives. */
export interface Made {
  readonly certificate: IotCertificate
  readonly arn: string
  readonly publicKey: string
  /** PKCS#1, as AWS makes it; SEC 1 where the world makes EC keys. */
  readonly privateKey: string
}

export interface World {
  readonly rows: Map<string, Row>
  readonly certificates: Map<string, IotCertificate>
  readonly policies: Set<string>
  readonly things: Set<string>
  /** The MQTT endpoint of the account. */
  readonly endpoint: string
  /** Tokens that a fleet shares, of gateway-2021. */
  readonly fleetTokens: Set<string>
  /** Throws, once, before the named step of AWS or DynamoDB. */
  failBefore?: string
  createKeysAndCertificate(): Promise<Made>
  createPolicy(name: string): void
  createThing(name: string): void
  attach(made: Made, names: { policy?: string; thing?: string }): void
  /** Detaches, deactivates and deletes; throws where AWS would. */
  destroy(arn: string): void
  /** Stops here when the test said so. */
  step(name: string): void
}

export interface WorldOptions {
  readonly deviceCa: Certified
  /** Default RSA, as AWS makes them; EC is a hundred times cheaper. */
  readonly keys?: 'RSA' | 'EC'
  readonly notBefore?: Date
}

export function makeWorld({ deviceCa, keys = 'RSA', notBefore }: WorldOptions): World {
  const world: World = {
    rows: new Map(),
    certificates: new Map(),
    policies: new Set(),
    things: new Set(),
    endpoint: 'a1b2c3d4e5f6g7-ats.iot.eu-west-1.amazonaws.com',
    fleetTokens: new Set(),
    step(name) {
      if (world.failBefore !== name) return
      delete world.failBefore
      throw new Error(`${name} failed, as the test wants`)
    },
    async createKeysAndCertificate() {
      world.step('createKeysAndCertificate')
      const made = await certify('AWS IoT Certificate', {
        issuer: deviceCa,
        keys: await makeKeys(keys),
        ...(notBefore ? { notBefore } : {}),
      })
      const id = certificateIdOf(made.certificate)
      const certificate: IotCertificate = {
        id,
        pem: made.certificate,
        status: 'ACTIVE',
        policies: new Set(),
        things: new Set(),
      }
      world.certificates.set(id, certificate)
      const key = createPrivateKey(made.privateKey)
      const spki = await crypto.subtle.exportKey('spki', made.keys.publicKey)
      return {
        certificate,
        arn: `arn:aws:iot:eu-west-1:123456789012:cert/${id}`,
        publicKey: pem('PUBLIC KEY', new Uint8Array(spki)),
        privateKey: key
          .export({ type: keys === 'RSA' ? 'pkcs1' : 'sec1', format: 'pem' } as never)
          .toString(),
      }
    },
    createPolicy(name) {
      world.step('createPolicy')
      if (world.policies.has(name)) throw new Error('ResourceAlreadyExistsException')
      world.policies.add(name)
    },
    createThing(name) {
      world.step('createThing')
      world.things.add(name)
    },
    attach({ certificate }, { policy, thing }) {
      world.step('attach')
      if (policy) certificate.policies.add(policy)
      if (thing) certificate.things.add(thing)
    },
    destroy(arn) {
      const certificate = world.certificates.get(arn.split('/')[1] ?? '')
      if (!certificate || certificate.status === 'DELETED') throw new Error('ResourceNotFound')
      world.step('destroy')
      certificate.status = 'INACTIVE'
      certificate.policies.clear()
      certificate.things.clear()
      world.step('delete')
      certificate.status = 'DELETED'
    },
  }
  return world
}

/** A serial that no other device of a test has. */
export const freshSerial = (): string => `device-${randomBytes(4).toString('hex')}`

/** What the vending machines fetched from the internet and served as `RootCA`. */
export const servedRootCa =
  '-----BEGIN CERTIFICATE-----\r\nVGhpcyBpcyBub3QgdG8gYmUgdHJ1c3RlZA==\r\n-----END CERTIFICATE-----\r\n'
