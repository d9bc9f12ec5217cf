/** The old URLs without sockets, asked as their clients ask. */
import { createHash, createPublicKey, X509Certificate } from 'node:crypto'
import type { LegacyName } from '../src/legacy/dialect.ts'
import {
  createLegacyFront,
  type LegacyFront,
  type LegacyOptions,
  withLegacy,
} from '../src/legacy/front.ts'
import { type Machine, startMachine } from './machine.ts'

export interface Asks {
  readonly deviceSerial?: string | undefined
  readonly token?: string | undefined
}

/** What each dialect's client sends. */
export const requests: Readonly<Record<LegacyName, (asks: Asks, base: string) => Request>> = {
  'awslabs-2018': (asks, base) => new Request(`${base}/LATEST/getcert${query(asks)}`),
  'awslabs-2020': (asks, base) => new Request(`${base}/Prod/getcert${query(asks)}`),
  'iot-atlas': ({ deviceSerial, token }, base) =>
    new Request(`${base}/dev/registration`, {
      method: 'POST',
      body: JSON.stringify({ device_uid: deviceSerial, device_token: token }),
    }),
  'gateway-2021': ({ deviceSerial, token }, base) =>
    new Request(`${base}/prod/register`, {
      method: 'POST',
      headers: { ...(token !== undefined && { authorization: `DeviceToken ${token}` }) },
      body: JSON.stringify({ thingName: deviceSerial, version: '1.0' }),
    }),
  'express-2017': ({ deviceSerial, token }, base) =>
    new Request(`${base}/`, {
      method: 'POST',
      body: new URLSearchParams({
        ...(token !== undefined && { accessToken: token }),
        ...(deviceSerial !== undefined && { seriaNum: deviceSerial }),
      }),
    }),
}

const query = ({ deviceSerial, token }: Asks): string =>
  `?${new URLSearchParams({
    ...(deviceSerial !== undefined && { serialNumber: deviceSerial }),
    ...(token !== undefined && { deviceToken: token }),
  })}`

export const names = Object.keys(requests) as readonly LegacyName[]

export interface Said {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

export interface LegacyMachine extends Machine {
  readonly front: LegacyFront
  /** Asks as a client of that dialect would. */
  ask(name: LegacyName, asks: Asks): Promise<Said>
  /** Asks, and reads what was vended. */
  get(name: LegacyName, asks: Asks): Promise<Got>
  say(request: Request): Promise<Said>
}

/** One front with every dialect, each where its clients expect it. */
export async function startLegacy(changes: Partial<LegacyOptions> = {}): Promise<LegacyMachine> {
  const machine = await startMachine()
  const { registry, issuer, clock } = machine
  const front = createLegacyFront({
    registry,
    issuer,
    clock,
    log: (event) => (machine.events as unknown[]).push(event),
    endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: [`${anchor}\r\n`] },
    routes: [
      { name: 'awslabs-2018', prefix: '/LATEST' },
      { name: 'awslabs-2020', prefix: '/Prod' },
      { name: 'iot-atlas' },
      { name: 'gateway-2021' },
      { name: 'express-2017' },
    ],
    ...changes,
  })
  const handler = withLegacy(front, machine.handler)
  const context = { remoteAddress: '192.0.2.1' }
  const say = async (request: Request): Promise<Said> => {
    const answer = await handler(request, context)
    return { status: answer.status, headers: answer.headers, text: await answer.text() }
  }
  const ask: LegacyMachine['ask'] = (name, asks) => say(requests[name](asks, 'https://old.example'))
  return {
    ...machine,
    front,
    say,
    ask,
    get: async (name, asks) => {
      const said = await ask(name, asks)
      return vended(name, said.text)
    },
  }
}

export const anchor = '-----BEGIN CERTIFICATE-----\nMQTT\n-----END CERTIFICATE-----'

/** A success, whichever dialect it came in. */
export interface Got {
  readonly certificateId: string
  readonly certificatePem: string
  readonly privateKey: string
  readonly publicKey: string
  readonly rootCa: string
}

/** @throws Error if it is no success, with the text */
export function vended(name: LegacyName, text: string): Got {
  const found = at[name](JSON.parse(text))
  if (!found.certificatePem) throw new Error(text)
  const { raw } = new X509Certificate(found.certificatePem)
  return { ...found, certificateId: createHash('sha256').update(raw).digest('hex') }
}

// biome-ignore lint/suspicious/noExplicitAny: each dialect is another shape, and reading it is the point
const at: Record<LegacyName, (body: any) => Omit<Got, 'certificateId'>> = {
  'awslabs-2018': (body) => created(body, body?.RootCA),
  'awslabs-2020': (body) => created(body, body?.RootCA),
  'iot-atlas': ({ payload }) => ({
    certificatePem: payload.certificates?.device_certificate,
    rootCa: payload.certificates?.root_ca,
    ...payload.keyPair,
  }),
  'gateway-2021': ({ certificateData, rootCa }) => ({
    certificatePem: certificateData?.pem,
    privateKey: certificateData?.key_pair.private_key,
    publicKey: certificateData?.key_pair.public_key,
    rootCa,
  }),
  'express-2017': ({ certdata, rootCA }) => created(certdata, rootCA),
}

// biome-ignore lint/suspicious/noExplicitAny: as above
const created = (body: any, rootCa: string) => ({
  certificatePem: body?.certificatePem,
  privateKey: body?.keyPair?.PrivateKey,
  publicKey: body?.keyPair?.PublicKey,
  rootCa,
})

/** Whether the three belong together. */
export const belongTogether = (got: Got): boolean => {
  const spki = (pem: string) => createPublicKey(pem).export({ type: 'spki', format: 'pem' })
  const ofCertificate = new X509Certificate(got.certificatePem).publicKey
  return (
    spki(got.privateKey) === ofCertificate.export({ type: 'spki', format: 'pem' }) &&
    got.publicKey === spki(got.privateKey)
  )
}
