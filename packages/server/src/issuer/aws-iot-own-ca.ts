/**
 * Our own CA makes the certificates, and AWS IoT admits them: validity, subject and key are ours.
 *
 * What was signed and not recorded never reaches AWS, so nothing is left behind. A recorded certificate gets
 * there in one of three ways:
 *
 * - `registered`: RegisterCertificate, by us; the CA is registered with the account.
 * - `without-ca`: RegisterCertificateWithoutCA, by us; the CA need not be registered.
 * - `just-in-time`: by the device's first connection; the CA is registered with auto-registration.
 *   Enrolling calls AWS not once. The first connection is closed while the activator
 *   (`iot-events.ts`) looks the certificate up; the next one is let in.
 */
import type { SigningAuthority } from '../certificate.ts'
import type { RateGate } from '../rate-gate.ts'
import type { Certificate } from '../registry/registry.ts'
import { type BooksSettings, createIotBooks, unless } from './iot-books.ts'
import { type Iot, isRefusal } from './iot-client.ts'
import type { Issuer, Waiting } from './issuer.ts'
import { createLocalIssuer } from './local.ts'

export type Registration = 'registered' | 'without-ca' | 'just-in-time'

export interface OwnCaIssuerOptions extends BooksSettings {
  readonly iot: Iot
  readonly ca: SigningAuthority
  readonly registration: Registration
  /** How long a device certificate lasts, in milliseconds; 365 days by default. */
  readonly validityMs?: number
  /** Shared by everything in this process that calls AWS IoT. Without it nothing waits. */
  readonly gate?: RateGate
}

/** A CA of our own signs, and AWS IoT is told, or finds out by the first connection. */
export function createOwnCaIssuer(options: OwnCaIssuerOptions): Issuer {
  const { iot, ca, registration, gate } = options
  const signing = createLocalIssuer(ca, options)
  const books = createIotBooks(iot, options)
  const local: Issuer = {
    ...signing,
    async issue(request, device, reservation, waiting) {
      books.judge(device)
      return signing.issue(request, device, reservation, waiting)
    },
  }

  const withdraw: NonNullable<Issuer['withdraw']> = async (certificate, status, waiting) =>
    void (await books.setStatus(certificate.certificateId, status, waiting))

  if (registration === 'just-in-time')
    return {
      ...local,
      // The CA goes along: AWS finds the registered CA by it where the connection names no host (SNI).
      async issue(request, device, reservation, waiting) {
        const issued = await local.issue(request, device, reservation, waiting)
        return { ...issued, certificateChain: [...issued.certificateChain, ca.certificate] }
      },
      // Only what AWS has registered by itself; the rest comes when its device connects.
      async restore(certificate, device, waiting) {
        await books.enter(certificate, device, waiting).catch(unless('ResourceNotFoundException'))
      },
      withdraw,
    }

  const register =
    registration === 'registered' ? 'RegisterCertificate' : 'RegisterCertificateWithoutCA'
  const costs = {
    [register]: 1,
    CreateThing: 1,
    AttachPolicy: 1,
    AttachThingPrincipal: 1,
    UpdateCertificate: 1,
    ...(options.thingGroup !== undefined && { AddThingToThingGroup: 1 }),
  }

  /** Registers, or finds registered; the certificate's id is its hash, so it is the same one. */
  async function ensureRegistered(certificate: Certificate, waiting: Waiting): Promise<void> {
    const certificatePem = certificate.certificateChain[0] ?? ''
    try {
      const { certificateArn } =
        registration === 'registered'
          ? await iot.call(
              'RegisterCertificate',
              { certificatePem, caCertificatePem: ca.certificate, status: 'INACTIVE' },
              waiting,
            )
          : await iot.call(
              'RegisterCertificateWithoutCA',
              { certificatePem, status: 'INACTIVE' },
              waiting,
            )
      if (certificateArn) books.learn(certificateArn)
    } catch (error) {
      if (!isRefusal(error, 'ResourceAlreadyExistsException')) throw error
      if (error.resourceArn) books.learn(error.resourceArn)
    }
  }

  return {
    ...local,
    ...(gate && { admit: (publicKey, now) => gate.ask(publicKey, costs, now) }),
    async activate(certificate, device, waiting) {
      await ensureRegistered(certificate, waiting)
      await books.enter(certificate, device, waiting)
    },
    withdraw,
  }
}
