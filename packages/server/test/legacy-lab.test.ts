/** Every old dialect through real sockets: first boot, certificate, MQTT session, message. */
import { request } from 'node:http'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Lab, startLab } from '../src/lab.ts'
import type { LegacyName } from '../src/legacy/dialect.ts'
import { generateToken, hashToken } from '../src/tokens.ts'
import { send } from './https.ts'
import { type Asks, type Got, names, requests, vended } from './legacy.ts'
import { knock } from './mqtt.ts'

let lab: Lab
beforeAll(async () => {
  lab = await startLab({
    legacy: [
      { name: 'awslabs-2018', prefix: '/LATEST' },
      { name: 'awslabs-2020', prefix: '/Prod' },
      { name: 'iot-atlas' },
      { name: 'gateway-2021' },
      { name: 'express-2017' },
    ],
  })
})
afterAll(() => lab.close())

/** Sends what the dialect's client sends, over TLS but for the one that knows none. */
async function ask(name: LegacyName, asks: Asks) {
  const isPlain = name === 'express-2017'
  const made = requests[name](asks, isPlain ? lab.plainUrl! : lab.vendingUrl)
  const body = made.method === 'POST' ? await made.text() : undefined
  const headers = Object.fromEntries(made.headers)
  const options = { method: made.method, headers, ...(body !== undefined && { body }) }
  return isPlain ? sendPlain(made.url, options) : send(made.url, lab.pins, options)
}

const sendPlain = (url: string, options: { method: string; headers: object; body?: string }) =>
  new Promise<{ status: number; text: string }>((resolve, reject) => {
    const { body, method, headers } = options
    const outgoing = request(url, { method, headers: { ...headers } }, (incoming) => {
      text(incoming).then((said) => resolve({ status: incoming.statusCode!, text: said }), reject)
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })

async function enter(clientId: string, got: Got) {
  const session = await knock({
    host: lab.mqtt.host,
    port: lab.mqtt.port,
    anchors: [got.rootCa],
    clientId,
    credential: {
      key: { privateKeyPem: got.privateKey, csr: async () => '' },
      chain: [got.certificatePem],
    },
  })
  if (typeof session === 'string') throw new Error(JSON.stringify(lab.mqtt.refusals))
  return session
}

describe.each(names)('%s in the lab', (name) => {
  it('takes a device from its first boot to a message', async () => {
    const device = await lab.addDevice()
    const answer = await ask(name, device)
    expect(answer.status).toBe(200)
    const got = vended(name, answer.text)
    const session = await enter(device.deviceSerial, got)
    await session.publish(`devices/${device.deviceSerial}`, name, 1)
    expect(lab.mqtt.received.at(-1)).toMatchObject({
      clientId: device.deviceSerial,
      payload: Buffer.from(name),
    })
    session.socket.destroy()
    const [certificate] = await lab.registry.certificates(device.deviceSerial)
    expect(certificate?.confirmedAt).toBeDefined()
    expect(lab.legacyCounts().get(name)).toEqual({ accepted: 1, refused: 0 })
  })
})

describe('the lab', () => {
  it('lets a lost answer be asked for again: both certificates enter, then the newer alone', async () => {
    const device = await lab.addDevice()
    const first = vended('awslabs-2020', (await ask('awslabs-2020', device)).text)
    const second = vended('awslabs-2020', (await ask('awslabs-2020', device)).text)
    for (const got of [first, second]) (await enter(device.deviceSerial, got)).socket.destroy()
    await expect(enter(device.deviceSerial, first)).rejects.toThrow('certificate-not-active')
    ;(await enter(device.deviceSerial, second)).socket.destroy()
  })

  it('opens a device to the token of its fleet', async () => {
    const token = generateToken()
    await lab.registry.addFleet('pumps', await hashToken(token, 'generated'), new Date())
    await lab.registry.add(
      { deviceSerial: 'PUMP-1', thingName: 'PUMP-1', fleet: 'pumps' },
      undefined,
      new Date(),
    )
    const asks = { deviceSerial: 'PUMP-1', token }
    const got = vended('gateway-2021', (await ask('gateway-2021', asks)).text)
    ;(await enter('PUMP-1', got)).socket.destroy()
    expect((await ask('gateway-2021', asks)).status).toBe(409)
  })

  it('has none of the old URLs unless it is asked for them, and no door without TLS', async () => {
    const bare = await startLab()
    expect(bare.plainUrl).toBeUndefined()
    for (const name of names) {
      const { url, method } = requests[name]({ deviceSerial: 'SN-1', token: 'x' }, bare.vendingUrl)
      expect((await send(url, bare.pins, { method })).status, name).toBe(404)
    }
    await bare.close()
  })

  it('keeps the door without TLS on loopback, and nothing but the one dialect behind it', async () => {
    expect(new URL(lab.plainUrl!).hostname).toBe('127.0.0.1')
    for (const path of ['/v1/enroll', '/v1/cacerts', '/Prod/getcert', '/healthz'])
      expect(
        (await sendPlain(`${lab.plainUrl}${path}`, { method: 'GET', headers: {} })).status,
      ).toBe(404)
  })
})
