/**
 * What a device in the field may rely on, as one set of sentences: run against the vending machines of
 * old as msw handlers, without a network and behind real TLS, and against our own server in their place.
 */
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import path from 'node:path'
import {
  CertvendError,
  type Claim,
  type Credential,
  createClaim,
  enroll,
  openCredentialStore,
  type Send,
  type VendingServer,
} from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { temporaryDirectory } from '../temporary.ts'
import type { OldDialect } from './machines.ts'

/** A vending machine that speaks one old dialect, and the hand of its operator. */
export interface Machine {
  /** Its URL, its pins, the dialect with what that has to be told. */
  readonly server: VendingServer
  /** Default: the real channel. */
  readonly send?: Send
  /** Enters a device that may be vended; resolves with its claim. */
  addDevice(): Promise<Claim>
  /** Raw, as an old client asks: what came back, whatever it is. */
  ask(request: RawRequest): Promise<RawReply>
}

export interface RawRequest {
  readonly method: 'GET' | 'POST'
  /** Below the vending URL, with query. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
}

export interface RawReply {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** How an implementation answers whom it refuses; the old machines differ in what they tell. */
export interface Manners {
  /** Codes that a wrong token may lead to; express-2017 of old says nothing at all. */
  readonly wrongToken?: readonly string[]
  /** How long to wait for an answer to it, in milliseconds. Default 10 000. */
  readonly waitMs?: number
}

/** One way in which the dialects are implemented. */
export interface Implementation {
  readonly name: string
  /** A machine that is stopped by the implementation when the test file ends. */
  start(dialect: OldDialect): Promise<Machine>
  readonly manners?: Partial<Record<OldDialect, Manners>>
}

/** The request that devices in the field send, word for word. */
export const fieldRequests: Readonly<
  Record<OldDialect, (serial: string, token: string) => RawRequest>
> = {
  'awslabs-2018': (serial, token) => ({
    method: 'GET',
    path: `/getcert?serialNumber=${serial}&deviceToken=${encodeURIComponent(token)}`,
  }),
  'awslabs-2020': (serial, token) => ({
    method: 'GET',
    path: `/getcert?serialNumber=${serial}&deviceToken=${encodeURIComponent(token)}`,
  }),
  'iot-atlas': (serial, token) => ({
    method: 'POST',
    path: '/registration',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ device_uid: serial, device_token: token }),
  }),
  'gateway-2021': (serial, token) => ({
    method: 'POST',
    path: '/register',
    headers: { 'content-type': 'application/json', authorization: `DeviceToken ${token}` },
    body: JSON.stringify({ thingName: serial, version: '1.0.0' }),
  }),
  'express-2017': (serial, token) => ({
    method: 'POST',
    path: '/',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: `accessToken=${encodeURIComponent(token)}&seriaNum=${serial}`,
  }),
}

/** The success that devices in the field read: keys in order, and where certificate and key stand. */
export const fieldSuccess: Readonly<
  Record<OldDialect, { keys: readonly string[]; certificate: string; privateKey: string }>
> = {
  'awslabs-2018': {
    keys: ['certificateArn', 'certificateId', 'certificatePem', 'keyPair', 'RootCA'],
    certificate: 'certificatePem',
    privateKey: 'keyPair.PrivateKey',
  },
  'awslabs-2020': {
    keys: ['certificateArn', 'certificateId', 'certificatePem', 'keyPair', 'RootCA'],
    certificate: 'certificatePem',
    privateKey: 'keyPair.PrivateKey',
  },
  'iot-atlas': {
    keys: ['statusCode', 'status', 'payload'],
    certificate: 'payload.certificates.device_certificate',
    privateKey: 'payload.keyPair.privateKey',
  },
  'gateway-2021': {
    keys: ['certificateData', 'rootCa'],
    certificate: 'certificateData.pem',
    privateKey: 'certificateData.key_pair.private_key',
  },
  'express-2017': {
    keys: ['rootCA', 'conCheck', 'certdata'],
    certificate: 'certdata.certificatePem',
    privateKey: 'certdata.keyPair.PrivateKey',
  },
}

const at = (value: unknown, where: string): unknown =>
  where
    .split('.')
    .reduce<unknown>((inner, key) => (inner as Record<string, unknown> | null)?.[key], value)

export const wrongToken = 'not-the-token-0123456789'

/** One attempt, in a fresh store; resolves with what it came to. */
async function tryToEnroll(
  { server, send }: Machine,
  claim: Claim,
  deadlineMs = 10_000,
): Promise<{ outcome: Credential | CertvendError; stored: Credential | undefined }> {
  const store = await openCredentialStore(path.join(temporaryDirectory(), 'state'))
  const outcome = await enroll(store, server, claim, {
    deadlineMs,
    ...(send ? { send } : {}),
  }).catch((error: unknown) => {
    expect(error, String(error)).toBeInstanceOf(CertvendError)
    return error as CertvendError
  })
  const stored = store.current()
  store.close()
  return { outcome, stored }
}

/** The sentences, for one dialect of one implementation. */
export function contract(implementation: Implementation, dialect: OldDialect): void {
  const start = () => implementation.start(dialect)
  const manners = implementation.manners?.[dialect] ?? {}
  const another = (claim: Claim, more: { deviceSerial?: string; token?: string }): Claim =>
    createClaim({ deviceSerial: claim.deviceSerial, token: claim.token, dialect, ...more })

  describe(`${dialect} as ${implementation.name}`, () => {
    it('vends a whole credential, with the key that it made', async () => {
      const machine = await start()
      const claim = await machine.addDevice()
      const { outcome, stored } = await tryToEnroll(machine, claim)
      expect(outcome).toEqual(stored)
      expect(stored).toMatchObject({
        deviceSerial: claim.deviceSerial,
        keyOrigin: 'server',
        vendedBy: { dialect, url: machine.server.url.href },
      })
      const { publicKey } = new X509Certificate(stored!.certificateChain)
      expect(stored!.privateKey.publicKey.equals(publicKey)).toBe(true)
    })

    it('answers the request of a device in the field with the keys that it reads', async () => {
      const machine = await start()
      const { deviceSerial, token } = await machine.addDevice()
      const reply = await machine.ask(fieldRequests[dialect](deviceSerial, token))
      expect(reply.status).toBe(200)
      expect(reply.headers['content-type']).toMatch(/^application\/json(;|$)/)
      const body: unknown = JSON.parse(reply.body)
      const { keys, certificate, privateKey } = fieldSuccess[dialect]
      expect(Object.keys(body as object)).toEqual(keys)
      const leaf = new X509Certificate(String(at(body, certificate)))
      expect(leaf.checkPrivateKey(createPrivateKey(String(at(body, privateKey))))).toBe(true)
      expect(String(at(body, privateKey))).toMatch(/^-----BEGIN RSA PRIVATE KEY-----\n/)
      expect(at(body, certificate)).not.toContain('\r')
      expect(createPublicKey(leaf.publicKey.export({ type: 'spki', format: 'pem' })).type).toBe(
        'public',
      )
    })

    it('refuses a wrong token', async () => {
      const machine = await start()
      const claim = await machine.addDevice()
      const { outcome, stored } = await tryToEnroll(
        machine,
        another(claim, { token: wrongToken }),
        manners.waitMs,
      )
      expect(manners.wrongToken ?? ['ERR_CLAIM_REFUSED']).toContain((outcome as CertvendError).code)
      expect(stored).toBeUndefined()
      expect(String((outcome as CertvendError).message)).not.toContain(wrongToken)
    })

    it('vends to the device after a stranger was refused', async () => {
      const machine = await start()
      const claim = await machine.addDevice()
      await tryToEnroll(machine, another(claim, { token: wrongToken }), manners.waitMs)
      const { stored } = await tryToEnroll(machine, claim)
      expect(stored).toMatchObject({ deviceSerial: claim.deviceSerial })
    })

    it.skipIf(dialect === 'gateway-2021')('refuses an unknown serial', async () => {
      const machine = await start()
      const claim = another(await machine.addDevice(), { deviceSerial: 'device-nobody-entered' })
      const { outcome, stored } = await tryToEnroll(machine, claim, manners.waitMs)
      expect(manners.wrongToken ?? ['ERR_CLAIM_REFUSED']).toContain((outcome as CertvendError).code)
      expect(stored).toBeUndefined()
    })

    it.runIf(dialect === 'gateway-2021')('answers a ping with the time in seconds', async () => {
      const machine = await start()
      const reply = await machine.ask({ method: 'GET', path: '/register' })
      expect(reply.status).toBe(200)
      expect(reply.headers['content-type']).toMatch(/^application\/json(;|$)/)
      const body = JSON.parse(reply.body)
      expect(body).toEqual({ response: true, time: expect.any(Number) })
      expect(Number.isInteger(body.time)).toBe(true)
      expect(new Date(body.time * 1000).getUTCFullYear()).toBeGreaterThan(2020)
      expect(new Date(body.time * 1000).getUTCFullYear()).toBeLessThan(2100)
    })

    it('gives a request without serial and token no certificate', async () => {
      const machine = await start()
      await machine.addDevice()
      const bare = fieldRequests[dialect]('', '')
      const reply = await machine
        .ask({ ...bare, ...(bare.body ? { body: '{}' } : {}) })
        .catch(() => ({ body: '' }))
      expect(reply.body).not.toContain('PRIVATE KEY')
    })
  })
}
