/** One attempt to enroll, at a vending machine that answers as a test wants, and its outcome. */
import path from 'node:path'
import {
  CertvendError,
  type Credential,
  type CredentialStore,
  createClaim,
  createVendingServer,
  type EnrollOptions,
  enroll,
  isCertvendError,
  openCredentialStore,
} from '@certvend/client'
import { HttpResponse } from 'msw'
import { expect } from 'vitest'
import { type CertificateOptions, type Certified, certify } from './pki.ts'
import { contents, temporaryDirectory } from './temporary.ts'
import {
  type Authorities,
  makeVendingMachine,
  type Reply,
  type Respond,
  type VendingMachine,
} from './vending-machine.ts'

export const now = new Date('2027-03-01T12:00:00Z')
export const clock = {
  now: () => now,
  wait: () => Promise.reject(new Error('a test of one attempt does not wait')),
}
export const token = 'T0ken+of/one-use~0123456789._=='
export const claim = createClaim({ deviceSerial: 'device-1', token })

const [deviceCa, mqttCa] = await Promise.all([
  certify('Device CA', { ca: true }),
  certify('MQTT CA', { ca: true }),
])
export const authorities: Authorities = { deviceCa, mqttCa }
export const stranger: Certified = await certify('Stranger CA', { ca: true })
export const pin: string = stranger.certificate

export const server = () => createVendingServer({ url: 'https://vending.example', pins: pin })

export async function openFresh(): Promise<CredentialStore> {
  return openCredentialStore(path.join(temporaryDirectory(), 'state'))
}

export async function attempt(
  store: CredentialStore,
  machine: Pick<VendingMachine, 'send'>,
  options: EnrollOptions = {},
): Promise<Credential | CertvendError> {
  const asking = enroll(store, server(), claim, { clock, send: machine.send, ...options })
  return asking.catch((error) => {
    expect(error, String(error)).toBeInstanceOf(CertvendError)
    return error as CertvendError
  })
}

/**
 * One enrollment with a machine that answers by `respond`; asserts that nothing of it was kept, and
 * the key unless it was the key that was refused.
 */
export async function refusalOf(respond: Respond): Promise<CertvendError> {
  const store = await openFresh()
  const error = await attempt(store, makeVendingMachine(authorities, respond))
  expect(error).toBeInstanceOf(CertvendError)
  expect(store.current()).toBeUndefined()
  const generation = ['generations/0000000001', 'generations/0000000001/private-key.pem']
  expect(contents(store.directory)).toEqual(
    isCertvendError(error, 'ERR_KEY_REFUSED')
      ? ['generations', 'lock']
      : ['generations', ...generation, 'lock', 'pending'],
  )
  store.close()
  return error as CertvendError
}

/** An honest reply, bent. */
export const bent =
  (bend: (reply: Reply) => unknown, options?: CertificateOptions): Respond =>
  async (order, machine) => {
    const reply = await machine.honest(order, options)
    return HttpResponse.json((bend(reply) ?? reply) as never)
  }

export const made = (options: CertificateOptions): Respond => bent(() => undefined, options)

export const raw = (
  status: number,
  type: string | undefined,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Respond => {
  return () =>
    new HttpResponse(body, {
      status,
      headers: { ...(type ? { 'content-type': type } : {}), ...headers },
    })
}

export const json = 'application/json'
