/** The dialects as msw handlers, without a network and behind real TLS: two implementations of the contract. */
import {
  CertvendError,
  type Claim,
  createClaim,
  createEndpoint,
  createVendingServer,
  type DialectOptions,
  type VendingServer,
} from '@certvend/client'
import { Client } from 'undici'
import { type Certified, certify } from '../pki.ts'
import { sendTo, serve } from '../vending-machine.ts'
import { machines, type OldDialect, oldDialects, Unanswered } from './machines.ts'
import type { Implementation, Machine } from './suite.ts'
import { freshSerial, makeWorld, type World } from './world.ts'

export const token = 'burned-in/token+0123456789=='

const [deviceCa, mqttCa, vendingCa] = await Promise.all([
  certify('AWS IoT stand-in', { ca: true }),
  certify('MQTT CA', { ca: true }),
  certify('Vending CA', { ca: true }),
])

export { deviceCa, mqttCa, vendingCa }

const identity: Certified = await certify('localhost', { issuer: vendingCa, dns: ['localhost'] })

/** What a device is told beforehand, for `dialect`. */
export const optionsFor = (dialect: OldDialect): DialectOptions => ({
  name: dialect,
  ...(dialect === 'iot-atlas'
    ? {}
    : { endpoint: createEndpoint('mqtt.example:8883', mqttCa.certificate) }),
})

/** Enters a device in `world`; what each machine reads of a row is in it. */
export function enter(world: World, dialect: OldDialect, deviceSerial = freshSerial()): Claim {
  world.rows.set(deviceSerial, { token, enabled: 1, registered: 0, applyState: 1 })
  world.fleetTokens.add(token)
  return createClaim({ deviceSerial, token, dialect })
}

/** The stage of API Gateway; what ran on a host of its own has none. */
const stage = (dialect: OldDialect): string => (dialect === 'express-2017' ? '' : '/Prod')

/** A vending server that nobody listens as: for a `Send` without a network. */
export const unreachable = (dialect: OldDialect): VendingServer =>
  createVendingServer({
    url: `https://vending.example${stage(dialect)}`,
    pins: vendingCa.certificate,
    dialect: optionsFor(dialect),
  })

/** A handler that is silent shows as a lost answer, at once. */
export const sendOver = (handlers: Parameters<typeof sendTo>[0]): ReturnType<typeof sendTo> => {
  const send = sendTo(handlers)
  return async (request, limits) => {
    try {
      return await send(request, limits)
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error
      throw new CertvendError('ERR_REPLY_LOST', 'vending.example did not answer within 3 s')
    }
  }
}

/** Nothing is said to whom express-2017 refuses. */
const manners: Implementation['manners'] = {
  'express-2017': { wrongToken: ['ERR_REPLY_LOST'], waitMs: 500 },
}

export const withoutNetwork: Implementation = {
  name: 'msw handlers',
  manners,
  async start(dialect): Promise<Machine> {
    const world = makeWorld({ deviceCa })
    const send = sendOver(machines[dialect](world))
    const server = unreachable(dialect)
    return {
      server,
      send,
      addDevice: async () => enter(world, dialect),
      async ask({ method, path, headers = {}, body }) {
        const url = new URL(`https://vending.example${stage(dialect)}${path}`)
        const request = { method, url, headers, ...(body === undefined ? {} : { body }) }
        const reply = await send(request, { deadlineMs: 3000, replyBytes: 100_000 })
        return { ...reply, body: Buffer.from(reply.body).toString() }
      },
    }
  },
}

/** The same handlers on loopback; `closing` is told how to stop each. */
export const behindTls = (closing: (close: () => Promise<void>) => void): Implementation => ({
  name: 'msw handlers behind TLS',
  manners,
  async start(dialect): Promise<Machine> {
    const world = makeWorld({ deviceCa })
    const { port, close } = await serve(machines[dialect](world), identity)
    closing(close)
    const url = `https://localhost:${port}${stage(dialect)}`
    return {
      server: createVendingServer({
        url,
        pins: vendingCa.certificate,
        dialect: optionsFor(dialect),
      }),
      addDevice: async () => enter(world, dialect),
      async ask({ method, path, headers = {}, body }) {
        const client = new Client(`https://localhost:${port}`, {
          connect: { ca: vendingCa.certificate },
          headersTimeout: 3000,
        })
        try {
          const reply = await client.request({
            method,
            path: `${stage(dialect)}${path}`,
            headers,
            body: body ?? null,
          })
          return {
            status: reply.statusCode,
            headers: Object.fromEntries(
              Object.entries(reply.headers).map(([name, value]) => [name, String(value)]),
            ),
            body: await reply.body.text(),
          }
        } finally {
          await client.destroy()
        }
      },
    }
  },
})

export { oldDialects }
