/** What the sentences about registries are made of. */
import { randomBytes } from 'node:crypto'
import { day, later } from '../../src/clock.ts'
import type { Issued, Registry, Reservation } from '../../src/registry/registry.ts'

export const now = new Date('2030-05-17T12:00:00Z')

export const hex = (length: number): string => randomBytes(length).toString('hex')

export const token = { kind: 'sha256', hash: hex(32) } as const

/** A certificate as an issuer makes it; nobody looks into its PEM. */
export const issued = (at = now): Issued => ({
  certificateId: hex(32),
  certificateChain: ['-----BEGIN CERTIFICATE-----'],
  notBefore: at,
  notAfter: later(at, 365 * day),
})

export const add = (registry: Registry, deviceSerial: string) =>
  registry.add({ deviceSerial, thingName: deviceSerial }, token, now)

export const reserve = (registry: Registry, deviceSerial: string, publicKey: string, at = now) =>
  registry.reserve({ deviceSerial, claimNumber: 1, publicKey, certificateSerial: hex(16), at })

export async function reservation(
  registry: Registry,
  deviceSerial: string,
  publicKey: string,
): Promise<Reservation> {
  const outcome = await reserve(registry, deviceSerial, publicKey)
  if (outcome.outcome !== 'reserved') throw new Error(JSON.stringify(outcome))
  return outcome.reservation
}
