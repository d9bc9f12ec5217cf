import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EnrollReply } from '@certvend/client/wire'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { day } from '../src/clock.ts'
import { createLocalIssuer } from '../src/issuer/local.ts'
import { type Lab, type LabDevice, startLab } from '../src/lab.ts'
import { jsonLog } from '../src/log.ts'
import { judgeRequest } from '../src/policy.ts'
import { type DeviceKey, makeDeviceKey } from './device.ts'
import { send } from './https.ts'
import { movableClock } from './machine.ts'
import { type Knock, knock, type Session } from './mqtt.ts'

let lab: Lab
let directory: string
let lines: string[]
const clock = movableClock(new Date())

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'certvend-lab-test-'))
  lines = []
  const log = jsonLog((line) => lines.push(line), clock)
  lab = await startLab({ clock, log, registryPath: join(directory, 'registry.db') })
})
afterAll(async () => {
  await lab.close()
  rmSync(directory, { recursive: true })
})

async function post(device: LabDevice, key: DeviceKey, url = lab.vendingUrl) {
  const { deviceSerial, token } = device
  return send(`${url}/v1/enroll`, lab.pins, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({ deviceSerial, csr: await key.csr(deviceSerial) }),
  })
}

async function enroll(device: LabDevice) {
  const key = await makeDeviceKey()
  const answer = await post(device, key)
  if (answer.status !== 200) throw new Error(answer.text)
  const reply = JSON.parse(answer.text) as EnrollReply
  return { key, reply, chain: reply.certificateChain }
}

const at = (clientId: string, credential?: Knock['credential']): Knock => ({
  host: lab.mqtt.host,
  port: lab.mqtt.port,
  anchors: lab.mqtt.trustAnchors,
  clientId,
  ...(credential && { credential }),
})

async function enter(clientId: string, credential: Knock['credential']): Promise<Session> {
  const session = await knock(at(clientId, credential))
  if (typeof session === 'string') throw new Error(`closed: ${JSON.stringify(lab.mqtt.refusals)}`)
  return session
}

describe('the lab', () => {
  it('takes a device from its claim to an acknowledged message', async () => {
    const device = await lab.addDevice()
    const credential = await enroll(device)
    const { reply } = credential
    expect(reply.endpoint).toEqual({
      host: lab.mqtt.host,
      port: lab.mqtt.port,
      trustAnchors: lab.mqtt.trustAnchors,
    })
    const session = await enter(reply.thingName, credential)
    await session.publish('a/b', 'hello', 7)
    await session.publish('a/b', 'hello', 7, true)
    const mine = lab.mqtt.received.filter((message) => message.clientId === reply.thingName)
    expect(
      mine.map(({ topic, payload, qos, dup, messageId }) => [
        topic,
        payload.toString(),
        qos,
        dup,
        messageId,
      ]),
    ).toEqual([
      ['a/b', 'hello', 1, false, 7],
      ['a/b', 'hello', 1, true, 7],
    ])
    session.socket.destroy()
  })

  it('makes one certificate of fifty requests at once, over fifty connections', async () => {
    const device = await lab.addDevice()
    const key = await makeDeviceKey()
    const before = lab.requests.length
    const answers = await Promise.all(Array.from({ length: 50 }, () => post(device, key)))
    expect(new Set(answers.map((answer) => answer.text)).size).toBe(1)
    expect(answers[0]!.status).toBe(200)
    expect(await lab.registry.certificates(device.deviceSerial)).toHaveLength(1)
    expect(lab.requests.slice(before)).toEqual(
      Array(50).fill({ method: 'POST', path: '/v1/enroll', status: 200 }),
    )
  })

  it('makes one certificate of fifty requests whose answers are dropped', async () => {
    const device = await lab.addDevice()
    const key = await makeDeviceKey()
    const csr = await key.csr(device.deviceSerial)
    const body = JSON.stringify({ deviceSerial: device.deviceSerial, csr })
    const headers = {
      'content-type': 'application/json',
      authorization: `Bearer ${device.token}`,
    }
    const before = lab.requests.length
    for (let attempt = 0; attempt < 50; attempt += 1) {
      const signal = AbortSignal.timeout(attempt % 7)
      const dropped = send(`${lab.vendingUrl}/v1/enroll`, lab.pins, {
        method: 'POST',
        headers,
        body,
        signal,
      })
      await dropped.catch(() => undefined)
    }
    const answer = await post(device, key)
    expect(answer.status).toBe(200)
    expect(lab.requests.length).toBeGreaterThan(before)
    expect(await lab.registry.certificates(device.deviceSerial)).toHaveLength(1)
  })

  it('vouches for itself by the pin, and by nothing else', async () => {
    const { pki } = lab
    expect((await send(`${lab.vendingUrl}/healthz`, lab.pins)).status).toBe(200)
    for (const anchor of [pki.sibling, pki.brokerCa, pki.deviceCa])
      await expect(send(`${lab.vendingUrl}/healthz`, anchor.certificate)).rejects.toThrow()
    const sibling = await lab.serveUnderSibling()
    await expect(send(`${sibling.vendingUrl}/healthz`, lab.pins)).rejects.toMatchObject({
      code: 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
    })
    const health = await send(`${sibling.vendingUrl}/healthz`, pki.sibling.certificate)
    expect(health.status).toBe(200)
    await sibling.close()
    await expect(send(sibling.vendingUrl, lab.pins)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('serves under an identity of the test’s own making', async () => {
    const identity = await lab.pki.issueServer({
      issuer: lab.pki.intermediate,
      names: ['elsewhere.example'],
    })
    const door = await lab.serveWith(identity)
    await expect(send(door.vendingUrl, lab.pins)).rejects.toMatchObject({
      code: 'ERR_TLS_CERT_ALTNAME_INVALID',
    })
    await door.close()
  })

  it('issues what openssl verifies against the device CA', async () => {
    const { chain } = await enroll(await lab.addDevice())
    const ca = join(directory, 'ca.pem')
    const leaf = join(directory, 'leaf.pem')
    writeFileSync(ca, lab.pki.deviceCa.certificate)
    writeFileSync(leaf, chain[0]!)
    const verify = (...parameters: string[]) =>
      execFileSync('openssl', ['verify', '-x509_strict', ...parameters, leaf], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      })
    expect(verify('-purpose', 'sslclient', '-CAfile', ca)).toBe(`${leaf}: OK\n`)
    expect(() => verify('-purpose', 'sslserver', '-CAfile', ca)).toThrow()
  })

  it('can misbehave on purpose between the front door and the machine', async () => {
    const other = await startLab({
      intercept: async (request, answer) =>
        request.url.endsWith('/healthz') ? new Response('<html>', { status: 200 }) : answer(),
    })
    expect((await send(`${other.vendingUrl}/healthz`, other.pins)).text).toBe('<html>')
    expect((await send(`${other.vendingUrl}/v1/cacerts`, other.pins)).text).toContain('deviceCa')
    await other.close()
    await other.close()
  })
})

describe("the broker's door", () => {
  /** Closed without a byte, and no session was opened. */
  async function refused(door: Knock, reason: string) {
    const { opened } = lab.mqtt
    expect(await knock(door)).toBe('')
    expect(lab.mqtt.refusals.at(-1)).toEqual({ clientId: door.clientId, reason })
    expect(lab.mqtt.opened).toBe(opened)
  }

  it('stays shut for whoever shows no certificate', async () => {
    await refused(at('lab-1'), 'no-certificate')
  })

  it('stays shut for a certificate of another CA of the same name', async () => {
    const device = await lab.addDevice()
    const key = await makeDeviceKey()
    const validity = { notBefore: new Date(Date.now() - day), notAfter: new Date(Date.now() + day) }
    const impostor = await lab.pki.issueCa({ commonName: 'Certvend device CA', ...validity })
    const chain = await certify(impostor, device.deviceSerial, key)
    await refused(at(device.deviceSerial, { key, chain }), 'untrusted-certificate')
  })

  it('stays shut for a certificate of the right CA that the registry does not know', async () => {
    const device = await lab.addDevice()
    const key = await makeDeviceKey()
    const chain = await certify(lab.pki.deviceCa, device.deviceSerial, key)
    await refused(at(device.deviceSerial, { key, chain }), 'unknown-certificate')
  })

  it('stays shut for an inactive and for a revoked certificate, and opens again', async () => {
    const credential = await enroll(await lab.addDevice())
    const { certificateId, thingName } = credential.reply
    const door = at(thingName, credential)
    const set = (status: 'ACTIVE' | 'INACTIVE' | 'REVOKED') =>
      lab.registry.setCertificateStatus(certificateId, status, clock.now())
    await set('INACTIVE')
    await refused(door, 'certificate-not-active')
    await set('ACTIVE')
    const session = await enter(thingName, credential)
    session.socket.destroy()
    await set('REVOKED')
    await refused(door, 'certificate-not-active')
  })

  it('stays shut for a disabled and for a removed device', async () => {
    const [one, other] = [await lab.addDevice(), await lab.addDevice()]
    const credentials = [await enroll(one), await enroll(other)] as const
    await lab.registry.setDisabled(one.deviceSerial, true, clock.now())
    await refused(at(credentials[0].reply.thingName, credentials[0]), 'device-disabled')
    await lab.registry.remove(other.deviceSerial, clock.now())
    await refused(at(credentials[1].reply.thingName, credentials[1]), 'certificate-not-active')
  })

  it('stays shut for a client id that is not the thing name', async () => {
    const credential = await enroll(await lab.addDevice('SN.7', { thingName: 'thing-7' }))
    for (const clientId of ['SN.7', 'thing-8', '', 'thing-7 '])
      await refused(at(clientId, credential), 'client-id-is-not-thing-name')
    const session = await enter('thing-7', credential)
    session.socket.destroy()
  })

  it('closes the first session when a second one takes over its client id', async () => {
    const credential = await enroll(await lab.addDevice())
    const { thingName } = credential.reply
    const first = await enter(thingName, credential)
    const second = await enter(thingName, credential)
    await first.closed
    await second.publish('still/here', 'yes', 1)
    expect(lab.mqtt.sessions().filter((clientId) => clientId === thingName)).toHaveLength(1)
    second.socket.destroy()
  })

  it('is the broker’s own: neither the pin nor the device CA vouches for it', async () => {
    for (const anchor of [lab.pins, lab.pki.root.certificate, lab.pki.deviceCa.certificate])
      await expect(knock({ ...at('lab-1'), anchors: [anchor] })).rejects.toThrow()
  })

  it('retires the old certificate when its successor first connects', async () => {
    const device = await lab.addDevice()
    const old = await enroll(device)
    clock.move(1000)
    const openUntil = new Date(clock.now().getTime() + day)
    const how = { token: 'keep', openUntil, revoke: false } as const
    await lab.registry.rearm(device.deviceSerial, how, clock.now())
    const fresh = await enroll(device)
    const session = await enter(device.deviceSerial, old)
    await session.publish('still/here', 'yes', 1)
    const next = await enter(device.deviceSerial, fresh)
    await next.publish('now/here', 'yes', 1)
    next.socket.destroy()
    await refused(at(device.deviceSerial, old), 'certificate-not-active')
  })

  it('drops every connection when it is told to', async () => {
    const credential = await enroll(await lab.addDevice())
    const session = await enter(credential.reply.thingName, credential)
    lab.mqtt.dropConnections()
    await session.closed
    const again = await enter(credential.reply.thingName, credential)
    again.socket.destroy()
  })
})

describe('a token', () => {
  it('is in no file of the registry, no log line and no event', async () => {
    const generated = await lab.addDevice()
    const imported = await lab.addDevice('SN-weak', { token: 'tOkEn-that-was-burned-in' })
    for (const device of [generated, imported]) {
      await enroll(device)
      await post(device, await makeDeviceKey())
      await post({ ...device, deviceSerial: 'SN-unknown' }, await makeDeviceKey())
    }
    const trail = JSON.stringify(await lab.registry.events({ limit: 10_000 }))
    const files = readdirSync(directory).map((file) =>
      readFileSync(join(directory, file)).toString('latin1'),
    )
    expect(lines.join('')).toContain('SN-weak')
    for (const { token } of [generated, imported])
      for (const form of [
        token,
        encodeURIComponent(token),
        Buffer.from(token).toString('base64'),
        Buffer.from(token).toString('base64url'),
        Buffer.from(token).toString('hex'),
      ])
        for (const place of [...files, ...lines, trail]) expect(place.includes(form)).toBe(false)
  })
})

/** A certificate of `ca` that no registry knows. */
async function certify(ca: Lab['pki']['deviceCa'], deviceSerial: string, key: DeviceKey) {
  const judged = judgeRequest(await key.csr(deviceSerial), deviceSerial)
  if (!judged.ok) throw new Error(judged.reason)
  const device = (await lab.registry.find(deviceSerial))!
  const reservation = {
    deviceSerial,
    claimNumber: 1,
    publicKey: judged.request.publicKey,
    certificateSerial: '0123456789abcdef',
    reservedAt: clock.now(),
  }
  const { signal } = new AbortController()
  const issuer = createLocalIssuer(ca)
  return (await issuer.issue(judged.request, device, reservation, { signal })).certificateChain
}
