/**
 * A credential in a store: issued without a vending server, furnished in a directory,
 * portrayed.
 */
import fs from 'node:fs'
import path from 'node:path'
import {
  CertvendError,
  type Credential,
  type CredentialStore,
  type Issued,
  openCredentialStore,
} from '@certvend/client'
import { expect } from 'vitest'
import { type Certified, certificateIdOf, certify } from './pki.ts'
import { contents, temporaryDirectory } from './temporary.ts'

const deviceCa = await certify('Device CA', { ca: true })
export const mqttCa: Certified = await certify('MQTT CA', { ca: true })

/** What a vending server adds to the pending key. */
export async function issuedFor(store: CredentialStore): Promise<Issued> {
  const { privateKey } = store.begin()
  const publicKey = privateKey.publicKey.export({ type: 'spki', format: 'der' })
  const { certificate } = await certify('device-1', { issuer: deviceCa, publicKey })
  return {
    deviceSerial: 'device-1',
    thingName: 'device-1',
    certificateId: certificateIdOf(certificate),
    certificateChain: certificate,
    endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: [mqttCa.certificate] },
    keyOrigin: 'device',
    issuedAt: new Date('2026-12-01T00:00:00Z'),
  }
}

export const obtain = async (store: CredentialStore): Promise<Credential> =>
  store.issue(await issuedFor(store))

/** The path of a state directory that is yet to be made. */
export const stateDirectory = (): string => path.join(temporaryDirectory(), 'state')

/** A directory with one credential in use, and nobody who holds its lock. */
export async function furnished(): Promise<{ directory: string; credential: Credential }> {
  const directory = stateDirectory()
  const store = await openCredentialStore(directory)
  const credential = await obtain(store)
  store.close()
  return { directory, credential }
}

/** As {@link furnished}, with a whole successor that waits for its proof. */
export async function succeeded(): Promise<{
  directory: string
  credential: Credential
  successor: Credential
}> {
  const { directory, credential } = await furnished()
  const store = await openCredentialStore(directory)
  const successor = await obtain(store)
  store.close()
  return { directory, credential, successor }
}

export const pemOf = (credential?: Credential): string | undefined => credential?.privateKey.toPem()

/** Everything that can be seen of a directory: names, modes, owners, times, targets, content. */
export function portrait(directory: string): unknown[] {
  return ['.', ...contents(directory)].map((name) => {
    const target = path.join(directory, name)
    const { mode, uid, mtimeNs, ctimeNs, ino } = fs.lstatSync(target, { bigint: true })
    const link = fs.lstatSync(target).isSymbolicLink() && fs.readlinkSync(target)
    const content = fs.lstatSync(target).isFile() && fs.readFileSync(target, 'utf8')
    return { name, mode, uid, mtimeNs, ctimeNs, ino, link, content }
  })
}

/** Why `attempt` failed, as it must. */
export const failureOf = async (attempt: () => unknown): Promise<CertvendError> => {
  try {
    await attempt()
  } catch (error) {
    expect(error, String(error)).toBeInstanceOf(CertvendError)
    return error as CertvendError
  }
  throw new Error('it was expected to fail')
}
